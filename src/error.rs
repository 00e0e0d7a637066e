//! The one error type: what happened, to what, and what to do next.
//!
//! Errors are what a person reads at night, so each is a sentence that fits
//! after `error: ` and, where there is a next step, one that fits after
//! `hint: `. The [`Kind`] is what a script reads: it becomes the exit code.

use std::fmt;
use std::io;
use std::path::Path;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What sort of failure it is. It decides the exit code and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The work could not be done: disk, network, database, a busy lock.
    Failed,
    /// The command line or the config is wrong; nothing was attempted.
    Usage,
    /// Wrong key, damage or tampering: the bytes are not what was stored.
    Integrity,
}

impl Kind {
    /// The process exit code of an error of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Integrity => 5,
        }
    }
}

/// A failure with its next step. Never holds a secret: whoever builds one
/// from a secret's value has made a mistake.
#[derive(Clone, Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl Error {
    /// The work could not be done (exit code 1).
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// The command line or the config is wrong (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Wrong key, damage or tampering (exit code 5).
    pub fn integrity(message: impl Into<String>) -> Self {
        Self::new(Kind::Integrity, message)
    }

    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// Adds what to do next, a sentence that fits after `hint: `.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says in front of the message what was being done.
    pub fn during(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// A failed system call on `path`: `cannot <verb> <path>: <reason>`.
    pub fn io(verb: &str, path: &Path, source: io::Error) -> Self {
        match source.downcast::<Error>() {
            Ok(inner) => inner,
            Err(source) => Self::failed(format!("cannot {verb} {}: {}", path.display(), plain(&source))),
        }
    }

    /// Takes our own error back out of an [`io::Error`] that carried it through
    /// a reader or writer of another crate, or wraps a foreign one.
    pub fn from_io(doing: &str, source: io::Error) -> Self {
        match source.downcast::<Error>() {
            Ok(inner) => inner,
            Err(source) => Self::failed(format!("{doing}: {}", plain(&source))),
        }
    }

    /// The sort of failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The sentence that fits after `error: `.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The sentence that fits after `hint: `, if there is a next step.
    pub fn next_step(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// The system's words for an error without Rust's ` (os error N)`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_lowercase(),
        None => text,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Lets our errors travel through the readers and writers of other crates;
/// [`Error::from_io`] takes them out again.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn travels_through_io_and_keeps_kind_and_hint() {
        let io: io::Error = Error::integrity("token 3 is damaged").hint("use an older snapshot").into();
        let back = Error::from_io("reading", io);
        assert_eq!(back.kind(), Kind::Integrity);
        assert_eq!(back.message(), "token 3 is damaged");
        assert_eq!(back.next_step(), Some("use an older snapshot"));
    }

    #[test]
    fn system_errors_lose_their_number_and_keep_their_words() {
        let error = Error::io("open", Path::new("/x"), io::Error::from_raw_os_error(2));
        assert_eq!(error.message(), "cannot open /x: no such file or directory");
    }
}
