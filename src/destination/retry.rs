//! The one retry loop of the program, and what it needs to know of a failure.

use std::future::Future;
use std::time::Duration;

use crate::error::Error;

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How often an operation is tried.
const ATTEMPTS_MAX: u32 = 5;

/// The longest that a server's own wish for a pause is granted. A longer one is
/// for the next run: a daemon comes back, a person should be told.
const WISH_MAX: Duration = Duration::from_secs(15 * 60);

/// How an attempt failed.
pub(super) enum Fault {
    /// Trying again cannot help.
    Final(Error),
    /// It may pass; the server may have said after how long.
    Passing(Error, Option<Duration>),
}

/// Tries `attempt` until it succeeds, fails for good, or has been tried often
/// enough. The last error is the result.
pub(super) async fn retrying<T, F, A>(mut attempt: A) -> Result<T, Error>
where
    A: FnMut(u32) -> F,
    F: Future<Output = Result<T, Fault>>,
{
    let mut pause = FIRST_PAUSE;
    let mut tried = 0;
    loop {
        let (error, wish) = match attempt(tried).await {
            Ok(value) => return Ok(value),
            Err(Fault::Final(error)) => return Err(error),
            Err(Fault::Passing(error, wish)) => (error, wish),
        };
        tried += 1;
        if tried >= ATTEMPTS_MAX {
            return Err(error.during(format!("tried {tried} times")));
        }
        let wait = wish.unwrap_or(pause);
        if wait > WISH_MAX {
            return Err(error.hint(format!(
                "the server asks to wait {}; try again after that",
                humantime::format_duration(Duration::from_secs(wait.as_secs()))
            )));
        }
        tokio::time::sleep(wait).await;
        pause *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(faults: Vec<Fault>) -> (Result<u32, Error>, usize) {
        let total = faults.len();
        let faults = std::sync::Mutex::new(faults.into_iter());
        let result = retrying(|tried| {
            let fault = faults.lock().unwrap().next();
            async move { fault.map_or(Ok(tried), Err) }
        })
        .await;
        let used = total - faults.lock().unwrap().len();
        (result, used)
    }

    fn passing(wish_ms: u64) -> Fault {
        Fault::Passing(Error::failed("502"), Some(Duration::from_millis(wish_ms)))
    }

    #[tokio::test]
    async fn passing_faults_are_tried_again_and_final_ones_are_not() {
        assert_eq!(run(vec![passing(1), passing(1)]).await.0.unwrap(), 2);
        let (result, used) = run(vec![Fault::Final(Error::failed("401")), passing(1)]).await;
        assert_eq!((result.unwrap_err().message(), used), ("401", 1));
        let (result, used) = run((0..9).map(|_| passing(1)).collect()).await;
        assert_eq!((result.unwrap_err().message(), used), ("tried 5 times: 502", 5));
    }

    #[tokio::test]
    async fn a_wish_beyond_reason_is_told_instead_of_granted() {
        let error = run(vec![passing(3_600_000)]).await.0.unwrap_err();
        assert!(error.next_step().unwrap().contains("1h"));
    }
}
