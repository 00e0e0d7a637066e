//! The command line: parse, run one verb, print its report, exit.
//!
//! What is for programs goes to stdout: with `--json` one object, else only a
//! key, a key id, completions or a manual page. Everything for people goes to
//! stderr.

mod args;
mod bars;
mod print;
mod printer;
mod signals;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use chrono::Utc;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use serde::Serialize;
use serde_json::Value;

use crate::commands::restore::Options as RestoreOptions;
use crate::commands::{
    Run, Whence, backup, check, daemon, demo, init, list, plan, restore, show, status, verify,
};
use crate::config::{Config, FILE_NAME, default_key_places, resolve_keys};
use crate::error::{Error, Result};
use crate::key::{KeyId, MasterKey};
use crate::stop::Stop;
use args::{Args, Command, KeyCommand};
use printer::Printer;

/// Exit code of a run or snapshot that lacks something required.
const DEGRADED: u8 = 3;
/// Exit code of `status` when the newest snapshot is too old.
const STALE: u8 = 4;

/// Runs the program; the exit code is the verdict.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    let printer = Printer::new(args.json, args.quiet);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return printer.failure(&Error::from_io("cannot start", e)),
    };
    let code = match runtime.block_on(dispatch(args, &printer)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => printer.failure(&error),
    };
    // A thread that hangs in a dead mount must not keep the process.
    runtime.shutdown_background();
    code
}

/// Help and version are answers; everything else is a usage error in our form.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // Arguments that do not parse cannot say whether JSON is wanted.
    let json = std::env::args_os().skip(1).take_while(|a| a != "--").any(|a| a == "--json");
    let printer = Printer::new(json, false);
    let text = error.render().to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        printer.line(text.trim_end());
        return printer.failure(&Error::usage("no command was given"));
    }
    // clap's first paragraph says what is wrong, the next ones add details.
    let wanted = |l: &&str| !l.is_empty() && !l.starts_with("For more information");
    let lines = text.lines().take_while(|l| !l.starts_with("Usage:")).map(str::trim).filter(wanted);
    let message = lines.map(|l| l.trim_start_matches("tip: ")).collect::<Vec<_>>().join("\n  ");
    printer.failure(
        &Error::usage(message.trim_start_matches("error: "))
            .hint("`offsite --help` lists the commands, `offsite COMMAND --help` their options"),
    )
}

async fn dispatch(args: Args, printer: &Printer) -> Result<u8> {
    let stop = Stop::default();
    signals::listen(stop.clone())?;
    let bars = bars::progress(args.quiet || args.json, args.verbose > 0, std::io::stderr().is_terminal());
    let run = Run { progress: bars, stop };
    let named = args.config();
    let whence = |source: &args::Source| Whence {
        config: named.clone(),
        from: source.from.clone(),
        system: source.system.clone(),
    };
    let config = || Config::load(&Config::locate(named.as_deref())?);
    match &args.command {
        Command::Demo { to } => {
            let report = demo::demo(to.as_deref(), &run).await?;
            printer.report(&report, |p| print::demo(p, &report))?;
            Ok(if report.identical { 0 } else { 1 })
        }
        Command::Init(init_args) => {
            let path = named.clone().unwrap_or_else(|| FILE_NAME.into());
            let report = init::init(&init_args.options(path)).await?;
            printer.report(&report, |p| print::init(p, &report))?;
            Ok(0)
        }
        Command::Check => {
            let report = check::check(&config()?, &run).await?;
            printer.report(&report, |p| print::check(p, &report))?;
            Ok(u8::from(!report.ok))
        }
        Command::Backup { dry_run: true } => {
            let plan = plan::plan(&config()?, &run).await?;
            printer.report(&plan, |p| print::plan(p, &plan))?;
            Ok(if plan.problems.is_empty() { 0 } else { DEGRADED })
        }
        Command::Backup { dry_run: false } => {
            let report = backup::backup(&config()?, &run).await?;
            printer.report(&report, |p| print::backup(p, &report))?;
            Ok(if report.problems.is_empty() { 0 } else { DEGRADED })
        }
        Command::List { source } => {
            let report = list::list(&whence(source)).await?;
            printer.report(&report, |p| print::list(p, &report, Utc::now()))?;
            Ok(0)
        }
        Command::Show { snapshot, source } => {
            let report = show::show(&whence(source), snapshot, &run).await?;
            printer.value(&report.json(), |p| {
                print::show(p, &report, source.from.as_deref(), args.verbose > 0)
            })?;
            Ok(0)
        }
        Command::Verify { snapshot, source } => {
            let report = verify::verify(&whence(source), snapshot, &run).await?;
            printer.report(&report, |p| print::verify(p, &report))?;
            Ok(if report.state == "degraded" { DEGRADED } else { 0 })
        }
        Command::Restore(restore_args) => {
            let options = RestoreOptions {
                wanted: restore_args.snapshot.clone(),
                target: restore_args.target.clone(),
                only: restore_args.only.clone(),
                postgres: restore_args.postgres.iter().map(|url| url.clone().into()).collect(),
                force: restore_args.force,
            };
            let report = restore::restore(&whence(&restore_args.source), options, &run).await?;
            printer.report(&report, |p| print::restore(p, &report))?;
            Ok(if report.state == "degraded" { DEGRADED } else { 0 })
        }
        Command::Daemon => {
            let path = Config::locate(named.as_deref())?;
            let tell = printer.daemon_listener();
            daemon::daemon(&path, run.stop, crate::progress::Progress::silent(), Arc::new(tell)).await?;
            Ok(0)
        }
        Command::Status { max_age, source } => {
            let report = status::status(&whence(source), *max_age, Utc::now()).await?;
            printer.report(&report, |p| print::status(p, &report, *max_age))?;
            Ok(match report.verdict {
                status::Verdict::Good => 0,
                status::Verdict::Degraded => DEGRADED,
                status::Verdict::Stale => STALE,
            })
        }
        Command::Key { command } => key(command, named.as_deref(), printer),
        Command::Completions { shell } => {
            // It panics when it cannot write, which a buffer always lets it do.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "offsite", &mut script);
            printer.text(&script)?;
            Ok(0)
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Args::command())
                .render(&mut page)
                .map_err(|e| Error::from_io("cannot print", e))?;
            printer.text(&page)?;
            Ok(0)
        }
    }
}

#[derive(Serialize)]
struct KeyReport<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    key_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    also_opens: Vec<String>,
}

fn key(command: &KeyCommand, config: Option<&std::path::Path>, printer: &Printer) -> Result<u8> {
    match command {
        KeyCommand::Generate => {
            let key = MasterKey::generate()?;
            let text = key.text();
            let report = KeyReport { key: Some(&text), key_id: key.id().to_string(), also_opens: vec![] };
            printer.data(&json_of(&report)?, &text)?;
            printer.line(&format!("This is a new master key; its id is {}.", key.id()));
            printer.line(
                "Whoever has it can read every backup; without it nobody can. Put it on paper, in a safe,",
            );
            printer.line("away from this machine, before the first backup.");
        }
        KeyCommand::Id => {
            // A config says where its key is; else the usual places are looked at.
            let places = match Config::locate(config) {
                Ok(path) => Config::load(&path)?.key,
                Err(e) if config.is_some() => return Err(e),
                Err(_) => default_key_places(),
            };
            let keys = resolve_keys(&places)?;
            let ids: Vec<KeyId> = keys.all().iter().map(MasterKey::id).collect();
            let others = ids[1..].iter().map(ToString::to_string).collect();
            let report = KeyReport { key: None, key_id: ids[0].to_string(), also_opens: others };
            let shown = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            printer.data(&json_of(&report)?, &shown)?;
        }
    }
    Ok(0)
}

fn json_of(report: &impl Serialize) -> Result<Value> {
    serde_json::to_value(report)
        .map_err(|e| Error::failed(format!("the report cannot be written as JSON: {e}")))
}
