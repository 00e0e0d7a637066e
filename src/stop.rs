//! Asking work to stop: one flag, looked at wherever work can be cut short.
//!
//! Blocking threads cannot be killed, so everything that loops asks
//! [`Stop::check`] and gives up with an ordinary error.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// A shared request to stop, by a signal or by a deadline. Clones are one flag.
#[derive(Clone, Default)]
pub struct Stop {
    reason: Arc<Mutex<Option<Error>>>,
    deadline: Option<(Instant, Duration, &'static str)>,
}

impl Stop {
    /// Asks everything that holds a clone to give up with `reason`. The first
    /// reason stays.
    pub fn request(&self, reason: Error) {
        if let Ok(mut slot) = self.reason.lock() {
            slot.get_or_insert(reason);
        }
    }

    /// The same flag with a deadline of its own for one stage.
    pub fn within(&self, limit: Duration, stage: &'static str) -> Self {
        Self {
            reason: self.reason.clone(),
            deadline: Instant::now().checked_add(limit).map(|at| (at, limit, stage)),
        }
    }

    /// An error when stopping was asked for or the deadline has passed.
    pub fn check(&self) -> Result<()> {
        if let Ok(slot) = self.reason.lock()
            && let Some(reason) = slot.as_ref()
        {
            return Err(reason.clone());
        }
        match self.deadline {
            Some((at, limit, stage)) if Instant::now() >= at => Err(Error::failed(format!(
                "{stage} took longer than its deadline of {}",
                humantime::format_duration(limit)
            ))
            .hint(format!("raise `{stage}` under [deadlines] in the config if it needs that long"))),
            _ => Ok(()),
        }
    }

    /// Wraps a reader such that every read first asks [`Stop::check`].
    pub fn reading<R: io::Read>(&self, inner: R) -> StoppableReader<R> {
        StoppableReader { inner, stop: self.clone() }
    }
}

/// A reader that gives up when it is asked to; made by [`Stop::reading`].
pub struct StoppableReader<R> {
    inner: R,
    stop: Stop,
}

impl<R: io::Read> io::Read for StoppableReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.inner.read(buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reaches_every_clone_and_its_first_reason_stays() {
        let stop = Stop::default();
        let other = stop.within(Duration::from_secs(3600), "dump");
        assert!(other.check().is_ok());
        stop.request(Error::failed("stopped by SIGTERM"));
        stop.request(Error::failed("later"));
        assert_eq!(other.check().unwrap_err().message(), "stopped by SIGTERM");
    }

    #[test]
    fn a_deadline_names_its_stage() {
        let stop = Stop::default().within(Duration::ZERO, "dump");
        assert!(stop.check().unwrap_err().message().starts_with("dump took longer"));
        assert!(Stop::default().check().is_ok());
    }
}
