//! Where output goes: what is for programs to stdout, what is for people to
//! stderr.

use std::io::Write;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};

use super::print::bytes;
use crate::commands::daemon;
use crate::error::{Error, Result};

/// Writes to stdout what is for programs, to stderr what is for people.
pub(super) struct Printer {
    json: bool,
    quiet: bool,
}

impl Printer {
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// A line for people.
    pub(super) fn line(&self, text: &str) {
        if !self.quiet {
            // A closed stderr is no reason to fail.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// A report: JSON, or whatever `people` prints.
    pub(super) fn report(&self, report: &impl Serialize, people: impl FnOnce(&Self)) -> Result<()> {
        self.value(&super::json_of(report)?, people)
    }

    pub(super) fn value(&self, value: &Value, people: impl FnOnce(&Self)) -> Result<()> {
        if self.json {
            return self.text(format!("{value:#}\n").as_bytes());
        }
        people(self);
        Ok(())
    }

    /// A datum that is for programs in either form.
    pub(super) fn data(&self, value: &Value, plain: &str) -> Result<()> {
        let text = if self.json { format!("{value:#}\n") } else { format!("{plain}\n") };
        self.text(text.as_bytes())
    }

    /// What is for programs. A key or a report that could not be written
    /// somewhere is a failure; a reader that has read enough is not.
    pub(super) fn text(&self, text: &[u8]) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::from_io("cannot print", e)),
            _ => Ok(()),
        }
    }

    /// An error, and the exit code that it means.
    pub(super) fn failure(&self, error: &Error) -> ExitCode {
        let code = error.kind().exit_code();
        if self.json {
            let value = json!({ "error": error.message(), "hint": error.next_step(), "exit_code": code });
            let _ = writeln!(std::io::stdout(), "{value:#}");
        }
        print_error(error);
        ExitCode::from(code)
    }

    /// What the daemon tells, a line each, with the time.
    pub(super) fn daemon_listener(&self) -> impl Fn(daemon::Event) + Send + Sync + 'static {
        let (json, quiet) = (self.json, self.quiet);
        move |event| {
            let printer = Printer { json: false, quiet };
            let now = Utc::now().format("%Y-%m-%dT%H:%M:%SZ");
            let say = |text: String| printer.line(&format!("{now} {text}"));
            let next = |next: Option<DateTime<Utc>>| {
                next.map_or("never".to_owned(), |t| t.format("%Y-%m-%dT%H:%M:%SZ").to_string())
            };
            match event {
                daemon::Event::Started { system, next: at } => {
                    say(format!(
                        "offsite {} watches over {system}; next run {}",
                        env!("CARGO_PKG_VERSION"),
                        next(at)
                    ));
                }
                daemon::Event::Begin(why) => say(format!("backup begins ({why})")),
                daemon::Event::Note(text) => say(text),
                daemon::Event::Trouble(error) => trouble(&now.to_string(), &error),
                daemon::Event::Ended { result, next: at } => {
                    match result {
                        Ok(report) => {
                            if json && let Ok(report) = super::json_of(&report) {
                                let _ = writeln!(std::io::stdout(), "{report}");
                            }
                            say(format!(
                                "backup {}: {} ({}; pack {:.1} s with dump {:.1} s, upload {:.1} s)",
                                report.state,
                                report.snapshot,
                                bytes(report.size_bytes),
                                report.seconds.pack,
                                report.seconds.dump,
                                report.seconds.upload
                            ));
                            report.problems.iter().for_each(|p| say(format!("  degraded: {p}")));
                        }
                        Err(error) => trouble(&now.to_string(), &error.during("backup failed")),
                    }
                    say(format!("next run {}", next(at)));
                }
            }
        }
    }
}

fn trouble(now: &str, error: &Error) {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "{now} error: {error}");
    if let Some(hint) = error.next_step() {
        let _ = writeln!(stderr, "{now} hint: {hint}");
    }
}

fn print_error(error: &Error) {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "error: {error}");
    if let Some(hint) = error.next_step() {
        let _ = writeln!(stderr, "hint: {hint}");
    }
}
