//! The arguments, as clap reads them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueHint};

use crate::commands::init::Options as InitOptions;

/// An encrypted offsite backup agent: one object, on a schedule, that restores.
#[derive(Parser)]
#[command(name = "offsite", version, about, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 usage or config, 3 degraded, 4 stale (status), \
    5 integrity: wrong key, damage or tampering.")]
pub(super) struct Args {
    /// The config [default: $OFFSITE_CONFIG, else ./backup-paths.toml, else
    /// /etc/offsite/backup-paths.toml]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Print one JSON object on stdout
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Say more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(super) verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Args {
    /// The config that was named. clap's own reading of the environment takes an
    /// empty variable, as `${OFFSITE_CONFIG:-}` in a compose file makes it, for a
    /// mistake; here it is none.
    pub(super) fn config(&self) -> Option<PathBuf> {
        let named = || std::env::var_os("OFFSITE_CONFIG").filter(|path| !path.is_empty());
        self.config.clone().or_else(|| named().map(PathBuf::from))
    }
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Back up a sample system, burn it down, restore it, compare every byte
    Demo {
        /// Tell the story with this destination instead of a folder
        #[arg(long, value_name = "DESTINATION")]
        to: Option<String>,
    },
    /// Write a commented config, make a key, prepare the destination
    Init(InitArgs),
    /// Look whether a backup would succeed, without writing anything
    Check,
    /// Back up once
    Backup {
        /// Show what would be taken, how large, and what would be missing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the snapshots, newest first
    List {
        #[command(flatten)]
        source: Source,
    },
    /// Show a snapshot's manifest
    Show {
        /// A name, a unique prefix, an id, or `latest`
        #[arg(default_value = "latest")]
        snapshot: String,
        #[command(flatten)]
        source: Source,
    },
    /// Read a snapshot back and check every byte of it
    Verify {
        /// A name, a unique prefix, an id, or `latest`
        #[arg(default_value = "latest")]
        snapshot: String,
        #[command(flatten)]
        source: Source,
    },
    /// Restore a snapshot's files, and load its dumps
    Restore(RestoreArgs),
    /// Back up on the schedule, until stopped
    Daemon,
    /// Show the age and state of the newest snapshot
    Status {
        /// Exit with 4 when the newest snapshot is older than this, such as 7h
        #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
        max_age: Option<Duration>,
        #[command(flatten)]
        source: Source,
    },
    /// Make and name master keys
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Print a new master key
    Generate,
    /// Print the id of the master key
    Id,
}

#[derive(ClapArgs, Default)]
pub(super) struct Source {
    /// Read from this destination; no config is needed then
    #[arg(long, value_name = "DESTINATION")]
    pub(super) from: Option<String>,
    /// Look only at this system's snapshots
    #[arg(long, value_name = "NAME")]
    pub(super) system: Option<String>,
}

#[derive(ClapArgs)]
pub(super) struct InitArgs {
    /// The paths that cannot be regenerated
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    paths: Vec<String>,
    /// github://owner/repo or file:///dir
    #[arg(long)]
    destination: Option<String>,
    /// The system's name [default: this machine's]
    #[arg(long, value_name = "NAME")]
    system: Option<String>,
    /// Store the new key in this file, mode 0600, instead of showing it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    write_key: Option<PathBuf>,
    /// Accept a public repository
    #[arg(long)]
    allow_public: bool,
}

impl InitArgs {
    pub(super) fn options(&self, config: PathBuf) -> InitOptions {
        InitOptions {
            config,
            system: self.system.clone(),
            destination: self.destination.clone(),
            paths: self.paths.clone(),
            write_key: self.write_key.clone(),
            allow_public: self.allow_public,
        }
    }
}

#[derive(ClapArgs)]
pub(super) struct RestoreArgs {
    /// A name, a unique prefix, an id, or `latest` (the newest complete one)
    #[arg(default_value = "latest")]
    pub(super) snapshot: String,
    /// The folder that stands for `/`: new or empty, unless --force is given
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) target: PathBuf,
    /// Only these: a path, a file name, or a gitignore pattern; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub(super) only: Vec<String>,
    /// Load the dump into this empty cluster: [LABEL=]URL, or env:NAME that holds it
    #[arg(long, value_name = "URL")]
    pub(super) postgres: Vec<String>,
    /// Restore into a folder that has files: same names are replaced, others stay
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) source: Source,
}
