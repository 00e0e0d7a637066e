//! Runs one of PostgreSQL's programs: in a process group of its own, with
//! bounded buffers, and never leaving anything of it behind.
//!
//! Pipes are read and written by threads, so that whoever waits here wakes up
//! every [`TICK`] to ask [`Stop::check`]. Dropping a [`Child`] ends its whole
//! group, so that every early return does. What leaves the group on purpose
//! (`setsid`) cannot be reached without cgroups; PostgreSQL's clients do not.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::error::{Error, Result};
use crate::stop::Stop;

/// How long a wait may sleep before it asks again whether to stop.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// How long a child may take to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// How long a pipe may stay open after the child is gone.
const LINGER: Duration = Duration::from_secs(5);
/// One read or write of a pipe, in bytes; [`QUEUED`] of them may wait.
pub(super) const CHUNK: usize = 64 * 1024;
const QUEUED: usize = 8;

/// What a child may keep of our environment. Everything else may be a secret
/// of ours, or a `PG*` variable that would send it somewhere else.
const INHERITED: &[&str] =
    &["PATH", "HOME", "TZ", "LD_LIBRARY_PATH", "KRB5CCNAME", "KRB5_CONFIG", "SSL_CERT_FILE"];

/// Leaves `command` with a minimal environment and messages in English, which
/// is what `complaint.rs` reads.
pub(super) fn clean_environment(command: &mut Command) {
    command.env_clear().env("LC_ALL", "C").env("LANG", "C");
    command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    if std::env::var_os("PATH").is_none() {
        command.env("PATH", OsString::from("/usr/bin:/bin"));
    }
}

/// Which ends of a child's pipes are ours. The others are closed to it.
#[derive(Clone, Copy, Default)]
pub(super) struct Pipes {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
}

/// A running child and its process group.
pub(super) struct Child {
    program: String,
    process: process::Child,
    group: Pid,
    stdin: Option<SyncSender<Vec<u8>>>,
    stdout: Option<Receiver<io::Result<Vec<u8>>>>,
    stderr_done: Receiver<()>,
    exited_at: Option<Instant>,
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts `command`. `on_stderr` gets what it writes to stderr, on another
    /// thread, cut anywhere.
    pub(super) fn spawn(
        mut command: Command,
        pipes: Pipes,
        on_stderr: impl FnMut(&[u8]) + Send + 'static,
    ) -> Result<Self> {
        let path = std::path::PathBuf::from(command.get_program());
        let program = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let ours = |piped| if piped { Stdio::piped() } else { Stdio::null() };
        command.stdin(ours(pipes.stdin)).stdout(ours(pipes.stdout)).stderr(Stdio::piped()).process_group(0);
        let mut process = command.spawn().map_err(|e| Error::io("run", &path, e))?;
        let stdin = process.stdin.take().map(writer);
        let stdout = process.stdout.take().map(reader);
        let stderr_done = drain(process.stderr.take(), on_stderr);
        let group = Pid::from_child(&process);
        Ok(Self { program, process, group, stdin, stdout, stderr_done, exited_at: None, status: None })
    }

    /// The program's name without its directory.
    pub(super) fn program(&self) -> &str {
        &self.program
    }

    /// The next piece of stdout, none at its end. Fails when `stop` says so;
    /// the caller then drops the child, which ends it.
    pub(super) fn read(&mut self, stop: &Stop) -> Result<Option<Vec<u8>>> {
        loop {
            stop.check()?;
            let Some(stdout) = &self.stdout else { return Ok(None) };
            match stdout.recv_timeout(TICK) {
                Ok(Ok(bytes)) => return Ok(Some(bytes)),
                Ok(Err(e)) => {
                    return Err(Error::from_io(&format!("cannot read what {} writes", self.program), e));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.refuse_lingering()?,
            }
        }
    }

    /// Everything that it writes to stdout, of which there may be `limit` bytes.
    pub(super) fn read_all(&mut self, limit: usize, stop: &Stop) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(bytes) = self.read(stop)? {
            all.extend_from_slice(&bytes);
            if all.len() > limit {
                return Err(Error::failed(format!("{} answered with more than {limit} bytes", self.program)));
            }
        }
        Ok(all)
    }

    /// Hands `bytes` to stdin. False when nobody reads it any more: the child
    /// has ended early, and [`Child::wait`] and its stderr know why.
    pub(super) fn feed(&mut self, bytes: Vec<u8>, stop: &Stop) -> Result<bool> {
        let mut bytes = bytes;
        loop {
            stop.check()?;
            let Some(stdin) = &self.stdin else { return Ok(false) };
            match stdin.try_send(bytes) {
                Ok(()) => return Ok(true),
                Err(TrySendError::Disconnected(_)) => return Ok(false),
                Err(TrySendError::Full(back)) => bytes = back,
            }
            if self.has_exited()? {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Tells the child that its input ends here.
    pub(super) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Ends its input, waits until it has ended by itself, clears away what it
    /// left in its group, and says how it ended. All of its stderr has been
    /// seen then.
    pub(super) fn wait(&mut self, stop: &Stop) -> Result<ExitStatus> {
        self.stdin = None;
        let mut pause = Duration::from_millis(1);
        while !self.has_exited()? {
            stop.check()?;
            thread::sleep(pause);
            pause = (pause * 2).min(TICK);
        }
        let status = self.reap()?;
        // Beyond this somebody outside the group holds the pipe; the status
        // counts all the same.
        let _ = self.stderr_done.recv_timeout(LINGER);
        Ok(status)
    }

    /// Whether the child itself has ended. It is not reaped by asking, so that
    /// its group's number cannot yet belong to anybody else.
    pub(super) fn has_exited(&mut self) -> Result<bool> {
        if self.exited_at.is_some() {
            return Ok(true);
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(self.group), options) {
            Ok(Some(_)) => self.exited_at = Some(Instant::now()),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::from_io(&format!("cannot wait for {}", self.program), e.into())),
        }
        Ok(self.exited_at.is_some())
    }

    /// Asks the child's group to end, and kills it when that takes longer
    /// than `grace`.
    pub(super) fn end(&mut self, signal: Signal, grace: Duration) {
        if self.status.is_some() {
            return;
        }
        // Fails only when nobody is left.
        let _ = kill_process_group(self.group, signal);
        let patience = Instant::now() + grace;
        while !matches!(self.has_exited(), Ok(true) | Err(_)) && Instant::now() < patience {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.reap();
    }

    fn reap(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let _ = kill_process_group(self.group, Signal::KILL);
        let ended = self.process.wait();
        let status = ended.map_err(|e| Error::from_io(&format!("cannot wait for {}", self.program), e))?;
        self.status = Some(status);
        Ok(status)
    }

    /// The child is gone but its stdout is still open: whatever of its group
    /// holds it is ended, and what is out of reach is an error.
    fn refuse_lingering(&mut self) -> Result<()> {
        if !self.has_exited()? {
            return Ok(());
        }
        let _ = kill_process_group(self.group, Signal::KILL);
        match self.exited_at {
            Some(at) if at.elapsed() > LINGER => {
                Err(Error::failed(format!("{} ended but left a process that holds its output", self.program)))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end(Signal::TERM, GRACE);
    }
}

fn reader(mut pipe: impl Read + Send + 'static) -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::sync_channel(QUEUED);
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            let piece = match pipe.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => Ok(buffer[..n].to_vec()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => Err(e),
            };
            let failed = piece.is_err();
            if sender.send(piece).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

fn writer(mut pipe: impl Write + Send + 'static) -> SyncSender<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel::<Vec<u8>>(QUEUED);
    thread::spawn(move || {
        // A closed pipe drops the receiver, which `feed` sees.
        while let Ok(bytes) = receiver.recv()
            && pipe.write_all(&bytes).is_ok()
        {}
    });
    sender
}

fn drain(
    pipe: Option<impl Read + Send + 'static>,
    mut each: impl FnMut(&[u8]) + Send + 'static,
) -> Receiver<()> {
    let (done, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        if let Some(mut pipe) = pipe {
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => each(&buffer[..n]),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
        }
        let _ = done.send(());
    });
    receiver
}
