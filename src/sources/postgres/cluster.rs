//! A throwaway cluster: for the demo, for drills and for tests. It listens on a
//! socket in a private directory, is not durable, and leaves nothing behind.
//!
//! PostgreSQL refuses to run as root. As root everything is run through
//! `setpriv` as `postgres`, or else `nobody`: changing a child's user with the
//! standard library keeps root's supplementary groups, and dropping those would
//! need unsafe code.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::Signal;
use tempfile::TempDir;

use super::child::{Child, Pipes, clean_environment};
use super::client::{directories, version_of};
use super::complaint::explain;
use super::connection::Connection;
use super::stderr::Stderr;
use crate::error::{Error, Result};
use crate::repository::inventory::PsqlVersion;
use crate::stop::Stop;

/// How long the server may take until it accepts connections.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to shut down before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// The longest path of a socket, in bytes: `sun_path` less its final zero.
const SOCKET_PATH_MAX: usize = 107;
const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// What the server is told: small, private, and as fast as something may be
/// that nobody will miss.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "shared_buffers=16MB",
    "max_connections=20",
    "dynamic_shared_memory_type=mmap",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
];

/// A running throwaway cluster. Dropping it stops the server and removes its
/// files.
pub struct Cluster {
    server: Child,
    home: TempDir,
    /// Where the socket is when the path of `home` is too long for one.
    socket_home: Option<TempDir>,
    role: String,
    major: u32,
}

/// Whether this machine has the programs that [`Cluster::start`] needs.
pub fn server_installed() -> bool {
    newest_server().is_some()
}

impl Cluster {
    /// Makes and starts a cluster of the newest installed version in a new
    /// directory under `scratch`, with `bootstrap_role` as its superuser. To load
    /// a dump, that should be the dumped cluster's own: servers from 16 on fail
    /// on some of its grants otherwise. Fails when no server is installed or it
    /// does not come up in 30 s.
    ///
    /// As root, `scratch` and directories above it that are ours and below the
    /// system's temporary directory become traversable for others.
    pub fn start(scratch: &Path, bootstrap_role: &str, stop: &Stop) -> Result<Self> {
        let (bin, major) = newest_server().ok_or_else(|| {
            Error::failed("no PostgreSQL server is installed (initdb and postgres were not found)")
                .hint("apt-get install postgresql, or give the URL of an empty cluster instead")
        })?;
        let runner = Runner::of_this_process()?;
        let scratch = fs::canonicalize(scratch).map_err(|e| Error::io("open", scratch, e))?;
        runner.open_way_to(&scratch)?;
        let home = runner.private_directory(&scratch, "cluster-")?;
        let socket_home = match fits_a_socket(home.path()) {
            true => None,
            false => Some(runner.private_directory(Path::new("/tmp"), "offsite-pg-")?),
        };
        let socket = socket_home.as_ref().unwrap_or(&home).path().to_path_buf();
        let data = home.path().join("data");

        let mut initdb = runner.command(&bin.join("initdb"), home.path());
        initdb.arg("-D").arg(&data).arg("-U").arg(bootstrap_role);
        initdb.args(["-A", "trust", "-E", "UTF8", "--locale=C", "-N"]);
        let connection = Connection::from_url(&url(bootstrap_role, &socket))?;
        run_to_end("initdb", initdb, &connection, stop)?;

        let mut postgres = runner.command(&bin.join("postgres"), home.path());
        postgres.arg("-D").arg(&data).arg("-c").arg(setting("unix_socket_directories", &socket));
        postgres.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        let stderr = Stderr::default();
        let record = stderr.clone();
        let server = Child::spawn(postgres, Pipes::default(), move |bytes| record.push(bytes))?;
        let mut cluster = Self { server, home, socket_home, role: bootstrap_role.to_owned(), major };
        cluster.wait_until_ready(&data, &stderr, &connection, stop)?;
        Ok(cluster)
    }

    /// Where it is, for [`Connection::from_url`]. Holds no secret.
    pub fn url(&self) -> String {
        url(&self.role, self.socket_home.as_ref().unwrap_or(&self.home).path())
    }

    /// What `sql` answers in `database`, unaligned; it stops at the first error.
    pub fn sql(&self, database: &str, sql: &str, stop: &Stop) -> Result<String> {
        let clients = super::client::installed();
        let client =
            super::client::psql_at_least(&clients, PsqlVersion { major: self.major, minor: 0 }, self.major)?;
        let connection = Connection::from_url(&self.url())?.with_database(database);
        let answer = super::query::ask(client, &connection, sql, stop)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// The major version of the server, such as 15.
    pub fn server_major(&self) -> u32 {
        self.major
    }

    /// Stops the server and removes its files. Fails when files stay behind.
    pub fn stop(mut self) -> Result<()> {
        self.server.end(Signal::INT, STOP_LIMIT);
        for home in [Some(&self.home), self.socket_home.as_ref()].into_iter().flatten() {
            fs::remove_dir_all(home.path()).map_err(|e| Error::io("remove", home.path(), e))?;
        }
        Ok(())
    }

    /// The server writes `ready` into its pid file, which `pg_ctl -w` reads too.
    fn wait_until_ready(
        &mut self,
        data: &Path,
        stderr: &Stderr,
        connection: &Connection,
        stop: &Stop,
    ) -> Result<()> {
        let started = Instant::now();
        let pid_file = data.join("postmaster.pid");
        loop {
            stop.check()?;
            let text = fs::read_to_string(&pid_file).unwrap_or_default();
            if text.lines().nth(7).is_some_and(|state| state.trim() == "ready") {
                return Ok(());
            }
            if self.server.has_exited()? {
                let status = self.server.wait(stop)?;
                return Err(explain("postgres", status, &stderr.text(), connection));
            }
            if started.elapsed() > START_LIMIT {
                let seconds = START_LIMIT.as_secs();
                return Err(Error::failed(format!(
                    "the throwaway PostgreSQL server was not ready after {seconds} s"
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for clients.
        self.server.end(Signal::INT, STOP_LIMIT);
    }
}

/// As whom PostgreSQL's server programs run.
struct Runner {
    other: Option<OtherUser>,
}

struct OtherUser {
    setpriv: PathBuf,
    name: OsString,
    uid: u32,
    gid: u32,
}

impl Runner {
    fn of_this_process() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { other: None });
        }
        let user = uzers::get_user_by_name("postgres").or_else(|| uzers::get_user_by_name("nobody"));
        let user = user.ok_or_else(|| {
            Error::failed(
                "PostgreSQL does not run as root, and there is no user postgres or nobody to run it as",
            )
        })?;
        let setpriv = directories().into_iter().map(|bin| bin.join("setpriv")).find(|path| path.exists());
        let setpriv = setpriv.ok_or_else(|| {
            Error::failed(
                "PostgreSQL does not run as root, and setpriv is missing to run it as somebody else",
            )
            .hint("apt-get install util-linux, or run this as another user")
        })?;
        let (name, uid, gid) = (user.name().to_owned(), user.uid(), user.primary_group_id());
        Ok(Self { other: Some(OtherUser { setpriv, name, uid, gid }) })
    }

    fn command(&self, program: &Path, home: &Path) -> Command {
        let mut command = match &self.other {
            None => Command::new(program),
            Some(other) => {
                let mut command = Command::new(&other.setpriv);
                command.args(["--reuid", &other.uid.to_string(), "--regid", &other.gid.to_string()]);
                command.args(["--clear-groups", "--"]).arg(program);
                command
            }
        };
        clean_environment(&mut command);
        // Our own directories may be closed to the other user.
        command.env("HOME", home).current_dir(home);
        command
    }

    /// A new directory that only the server's user may enter.
    fn private_directory(&self, parent: &Path, prefix: &str) -> Result<TempDir> {
        let made = tempfile::Builder::new().prefix(prefix).tempdir_in(parent);
        let directory = made.map_err(|e| Error::io("make a directory in", parent, e))?;
        if let Some(other) = &self.other {
            let path = directory.path();
            chown(path, Some(other.uid), Some(other.gid))
                .map_err(|e| Error::io("change the owner of", path, e))?;
        }
        Ok(directory)
    }

    fn open_way_to(&self, scratch: &Path) -> Result<()> {
        let Some(other) = &self.other else { return Ok(()) };
        for directory in scratch.ancestors() {
            let metadata = fs::metadata(directory).map_err(|e| Error::io("look at", directory, e))?;
            if other.may_enter(&metadata) {
                continue;
            }
            let ours =
                metadata.uid() == 0 && (directory == scratch || directory.starts_with(std::env::temp_dir()));
            if !ours {
                return Err(Error::failed(format!(
                    "user {} runs the throwaway PostgreSQL server and may not enter {}",
                    other.name.to_string_lossy(),
                    directory.display()
                ))
                .hint("use a scratch directory elsewhere, such as under /var/tmp"));
            }
            // Entering is not listing: what else is in there stays unseen.
            let mode = Permissions::from_mode(metadata.mode() & 0o7777 | 0o001);
            fs::set_permissions(directory, mode).map_err(|e| Error::io("open", directory, e))?;
        }
        Ok(())
    }
}

impl OtherUser {
    fn may_enter(&self, metadata: &fs::Metadata) -> bool {
        let bit = match metadata {
            owned if owned.uid() == self.uid => 0o100,
            shared if shared.gid() == self.gid => 0o010,
            _ => 0o001,
        };
        metadata.mode() & bit != 0
    }
}

fn run_to_end(program: &str, command: Command, connection: &Connection, stop: &Stop) -> Result<()> {
    let stderr = Stderr::default();
    let record = stderr.clone();
    let mut child = Child::spawn(command, Pipes::default(), move |bytes| record.push(bytes))?;
    let status = child.wait(stop)?;
    match status.success() {
        true => Ok(()),
        false => Err(explain(program, status, &stderr.text(), connection)),
    }
}

/// The newest server of this machine: its programs and its major version.
fn newest_server() -> Option<(PathBuf, u32)> {
    let servers = directories().into_iter().filter(|bin| bin.join("initdb").exists());
    let versions = servers
        .filter_map(|bin| version_of(&bin.join("postgres")).map(|(major, minor, _)| (major, minor, bin)));
    versions.max_by_key(|(major, minor, _)| (*major, *minor)).map(|(major, _, bin)| (bin, major))
}

/// The setting is a list, so anything but plain characters would need quoting;
/// such a path is avoided instead.
fn fits_a_socket(directory: &Path) -> bool {
    let bytes = directory.as_os_str().as_bytes();
    let plain = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(byte));
    plain && bytes.len() + 1 + SOCKET_NAME.len() <= SOCKET_PATH_MAX
}

fn setting(name: &str, value: &Path) -> OsString {
    let mut setting = OsString::from(format!("{name}="));
    setting.push(value);
    setting
}

fn url(role: &str, socket: &Path) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    format!("postgresql://{}@/postgres?host={}", encode(role), encode(&socket.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::super::inventory::read;
    use super::*;

    #[test]
    fn starts_answers_and_leaves_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let stop = Stop::default();
        let cluster = Cluster::start(scratch.path(), "drill", &stop).unwrap();
        let connection = Connection::from_url(&cluster.url()).unwrap();
        let inventory = read(&connection, &stop).unwrap();
        assert_eq!((inventory.server_major, cluster.server_major()), (15, 15));
        assert_eq!(inventory.roles, ["drill"]);
        let names: Vec<&str> = inventory.databases.iter().map(|database| database.name.as_str()).collect();
        assert_eq!(names, ["postgres", "template1"]);
        assert!(
            inventory
                .databases
                .iter()
                .all(|d| d.size_bytes > 1_000_000 && d.connectable && d.owner == "drill")
        );
        cluster.stop().unwrap();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        let error = read(&connection, &stop).unwrap_err();
        assert!(error.message().starts_with("cannot connect to PostgreSQL at "), "{error}");
    }

    #[test]
    fn a_long_or_odd_scratch_path_gets_a_short_socket_elsewhere() {
        let scratch = tempfile::tempdir().unwrap();
        let long = scratch.path().join("with space").join("x".repeat(120));
        fs::create_dir_all(&long).unwrap();
        let cluster = Cluster::start(&long, "drill", &Stop::default()).unwrap();
        let connection = Connection::from_url(&cluster.url()).unwrap();
        let socket_home = cluster.socket_home.as_ref().unwrap().path().to_path_buf();
        assert!(read(&connection, &Stop::default()).is_ok());
        drop(cluster);
        assert!(!socket_home.exists() && fs::read_dir(&long).unwrap().count() == 0);
    }

    #[test]
    fn a_stop_before_the_start_is_obeyed() {
        let scratch = tempfile::tempdir().unwrap();
        let stop = Stop::default();
        stop.request(Error::failed("stopped by SIGTERM"));
        let error = Cluster::start(scratch.path(), "drill", &stop).map(drop).unwrap_err();
        assert_eq!(error.message(), "stopped by SIGTERM");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
