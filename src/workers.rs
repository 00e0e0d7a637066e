//! Workers: the cores that read, compress, seal and open, and what they made in
//! the order in which it was asked for.
//!
//! Nothing here can deadlock: a worker never waits for anything, and whoever
//! asks waits only for the oldest piece of work, which is in a worker's hands or
//! next in the queue. So the order holds with one core as with many, and at most
//! a fixed number of pieces is in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::available_parallelism;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// The most workers there are. More would not be faster, because one thread
/// reads and hashes for all of them, and each costs memory.
const WORKERS_MAX: usize = 4;

/// A few threads that take work from one queue. Clones share them.
#[derive(Clone)]
pub struct Workers {
    pool: Arc<ThreadPool>,
    count: usize,
}

impl Workers {
    /// Starts a worker for each core that this process may use.
    pub fn start() -> Result<Self> {
        Self::of(available_parallelism().map_or(1, usize::from).min(WORKERS_MAX))
    }

    fn of(count: usize) -> Result<Self> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|n| format!("worker-{n}"))
            // Whoever waits for the work is told; the process goes on to say so.
            .panic_handler(|_| {})
            .build()
            .map_err(|e| {
                Error::failed(format!("cannot start threads: {e}"))
                    .hint("raise the limit of processes: `ulimit -u`, or the container's pids limit")
            })?;
        Ok(Self { pool: Arc::new(pool), count })
    }
}

/// Pieces of work in a row, each done by whichever worker is free.
pub struct InOrder<T> {
    workers: Workers,
    results: VecDeque<Receiver<T>>,
}

impl<T: Send + 'static> InOrder<T> {
    /// Nothing yet.
    pub fn new(workers: &Workers) -> Self {
        Self { workers: workers.clone(), results: VecDeque::new() }
    }

    /// Whether there is one piece for each worker and one to go on with; then
    /// take a result before giving more work.
    pub fn is_full(&self) -> bool {
        self.results.len() > self.workers.count
    }

    /// Whether no result is left to take.
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    /// Gives a piece of work. It must not wait for other work.
    pub fn submit(&mut self, work: impl FnOnce() -> T + Send + 'static) {
        let (sender, receiver) = sync_channel(1);
        self.results.push_back(receiver);
        self.workers.pool.spawn_fifo(move || {
            // Nobody waits any more when the run has failed meanwhile.
            let _ = sender.send(work());
        });
    }

    /// The result of the oldest piece, once it is done; none when there is none.
    pub fn take(&mut self) -> Option<Result<T>> {
        let oldest = self.results.pop_front()?;
        Some(oldest.recv().map_err(|_| {
            Error::failed("a worker thread died, which is a defect of offsite")
                .hint("run it again; nothing was stored or restored by this run")
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn results_come_in_the_order_of_the_work_whoever_is_done_first() {
        for count in [1, 2, 4] {
            let mut row = InOrder::new(&Workers::of(count).unwrap());
            let mut seen = Vec::new();
            for n in 0..200_u64 {
                while row.is_full() {
                    seen.push(row.take().unwrap().unwrap());
                }
                row.submit(move || {
                    std::thread::sleep(Duration::from_micros((n * 7919) % 300));
                    n
                });
                assert!(row.results.len() <= count + 1);
            }
            seen.extend(std::iter::from_fn(|| row.take()).map(Result::unwrap));
            assert_eq!(seen, (0..200).collect::<Vec<_>>());
        }
    }

    #[test]
    fn rows_that_feed_one_another_share_one_worker_without_waiting_for_ever() {
        let workers = Workers::of(1).unwrap();
        for _ in 0..50 {
            let (mut first, mut second) = (InOrder::new(&workers), InOrder::new(&workers));
            let mut sum = 0;
            for n in 0..100_u64 {
                while first.is_full() {
                    let n: u64 = first.take().unwrap().unwrap();
                    while second.is_full() {
                        sum += second.take().unwrap().unwrap();
                    }
                    second.submit(move || n + 1);
                }
                first.submit(move || n);
            }
            while let Some(n) = first.take() {
                let n = n.unwrap();
                second.submit(move || n + 1);
            }
            while let Some(n) = second.take() {
                sum += n.unwrap();
            }
            assert_eq!(sum, 5050);
        }
    }

    #[test]
    fn work_that_panics_is_an_error_and_the_workers_go_on() {
        let mut row = InOrder::new(&Workers::of(1).unwrap());
        row.submit(|| panic!("on purpose"));
        row.submit(|| 7);
        assert!(row.take().unwrap().is_err());
        assert_eq!(row.take().unwrap().unwrap(), 7);
    }
}
