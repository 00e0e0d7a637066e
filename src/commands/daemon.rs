//! `daemon`: backs up on the schedule, for years, without being looked at.
//!
//! The scheduler only rings; the work is done here, one run at a time. Whether
//! a backup is due after a start is asked of the destination: a timer that
//! starts anew with every restart would never fire.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler};

use super::backup::{self, Report};
use super::lock::LastStart;
use super::{Home, Run, Whence};
use crate::config::Config;
use crate::config::schedule::Schedule;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::repository::listing::State;
use crate::stop::Stop;

/// After a start, a run that began this recently is not followed by another one:
/// it may be what made the daemon start anew.
const RESTART_PAUSE: Duration = Duration::from_secs(15 * 60);

/// How often the destination is asked again, after a start, when it does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// How long a run may take to end once it was asked to stop, beyond the grace
/// that an upload has. A thread that is stuck longer, in a dead network mount,
/// cannot be killed: then the process ends and its supervisor starts a new one.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);

/// What the daemon tells of itself.
pub enum Event {
    /// It is up.
    Started {
        /// The system.
        system: String,
        /// The next run.
        next: Option<DateTime<Utc>>,
    },
    /// A run begins, and why.
    Begin(&'static str),
    /// A run is over.
    Ended {
        /// What it came to.
        result: Result<Box<Report>>,
        /// The next one.
        next: Option<DateTime<Utc>>,
    },
    /// Something else worth a line.
    Note(String),
    /// Something that is wrong outside of a run.
    Trouble(Error),
}

/// Whom the daemon tells.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// Runs until `stop` is requested. The config is read anew for every run, its
/// schedule after every run.
pub async fn daemon(config_path: &Path, stop: Stop, progress: Progress, tell: Listener) -> Result<()> {
    let config = Config::load(config_path)?;
    let mut schedule = config.schedule.clone();
    let (ring, mut rung) = mpsc::channel::<()>(1);
    let missed = Arc::new(AtomicU64::new(0));
    let mut scheduler = start_scheduler(&schedule, ring.clone(), missed.clone()).await?;
    tell(Event::Started { system: config.system.clone(), next: schedule.next_after(Utc::now()) });
    let driver = Driver { config_path: config_path.to_owned(), stop: stop.clone(), progress, tell };
    let mut catch_up = Box::pin(driver.until_due(&config));
    let mut caught_up = false;
    let outcome = loop {
        let why = tokio::select! {
            () = stopped(&stop) => break Ok(()),
            _ = rung.recv() => "scheduled",
            due = &mut catch_up, if !caught_up => {
                caught_up = true;
                if !due {
                    continue;
                }
                "catching up: the newest snapshot is older than one interval"
            }
        };
        // Whatever rings now is answered by this run.
        caught_up = true;
        missed.store(0, Ordering::Relaxed);
        let result = match driver.run(why).await {
            Ok(result) => result,
            Err(stuck) => break Err(stuck),
        };
        if let Ok(config) = Config::load(config_path)
            && config.schedule.to_string() != schedule.to_string()
        {
            match start_scheduler(&config.schedule, ring.clone(), missed.clone()).await {
                Ok(started) => {
                    // It returns at once; what it still rings is among the skipped.
                    let _ = std::mem::replace(&mut scheduler, started).shutdown().await;
                    schedule = config.schedule;
                    (driver.tell)(Event::Note(format!("the schedule is now {schedule}")));
                }
                Err(e) => (driver.tell)(Event::Trouble(e.during("the old schedule goes on"))),
            }
        }
        (driver.tell)(Event::Ended { result, next: schedule.next_after(Utc::now()) });
        // What rang meanwhile is skipped, not made up for.
        while rung.try_recv().is_ok() {}
        let skipped = missed.swap(0, Ordering::Relaxed);
        if skipped > 0 {
            (driver.tell)(Event::Trouble(
                Error::failed(format!(
                    "{skipped} scheduled runs were skipped: the run before them was still going on"
                ))
                .hint(
                    "a run takes longer than the schedule's interval: look at its stages, or set [deadlines]",
                ),
            ));
        }
    };
    // It returns at once, whatever is going on; the run has been waited for above.
    if let Err(e) = scheduler.shutdown().await {
        (driver.tell)(Event::Note(format!("the scheduler did not shut down: {e}")));
    }
    if let Err(reason) = stop.check() {
        (driver.tell)(Event::Note(reason.message().to_owned()));
    }
    outcome
}

/// A scheduler that rings, and counts what nobody was there to hear.
async fn start_scheduler(
    schedule: &Schedule,
    ring: mpsc::Sender<()>,
    missed: Arc<AtomicU64>,
) -> Result<JobScheduler> {
    let cannot = |e| Error::failed(format!("the scheduler does not start: {e}"));
    let scheduler = JobScheduler::new().await.map_err(cannot)?;
    let job = Job::new_async(schedule.to_string().as_str(), move |_, _| {
        let (ring, missed) = (ring.clone(), missed.clone());
        Box::pin(async move {
            missed.fetch_add(1, Ordering::Relaxed);
            // Full means that one is waiting already.
            let _ = ring.try_send(());
        })
    });
    scheduler.add(job.map_err(cannot)?).await.map_err(cannot)?;
    scheduler.start().await.map_err(cannot)?;
    Ok(scheduler)
}

async fn stopped(stop: &Stop) {
    while stop.check().is_ok() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

struct Driver {
    config_path: PathBuf,
    stop: Stop,
    progress: Progress,
    tell: Listener,
}

impl Driver {
    /// One run, in a task of its own, so that not even a panic in it ends the
    /// daemon. An error means that it is stuck for good.
    async fn run(&self, why: &'static str) -> Result<Result<Box<Report>>> {
        (self.tell)(Event::Begin(why));
        let run = Run { progress: self.progress.clone(), stop: Stop::default() };
        let (path, task_run) = (self.config_path.clone(), run.clone());
        let mut task = tokio::spawn(async move {
            let config = Config::load(&path)?;
            backup::backup(&config, &task_run).await
        });
        let joined = tokio::select! {
            joined = &mut task => joined,
            () = stopped(&self.stop) => {
                if let Err(reason) = self.stop.check() {
                    (self.tell)(Event::Note(format!(
                        "{}: the run ends; an upload that has begun may take {} s more",
                        reason.message(),
                        backup::UPLOAD_GRACE.as_secs()
                    )));
                    run.stop.request(reason);
                }
                match tokio::time::timeout(backup::UPLOAD_GRACE + STOP_TIME_MAX, &mut task).await {
                    Ok(joined) => joined,
                    Err(_) => return Err(Error::failed("the run does not end although it was asked to")),
                }
            }
        };
        let result = joined.unwrap_or_else(|e| {
            Err(Error::failed(format!("the run died: {e}"))
                .hint("this is a defect of offsite: please report it"))
        });
        Ok(result.map(Box::new))
    }

    /// Resolves once it is known whether a backup is due now.
    async fn until_due(&self, config: &Config) -> bool {
        let mut told = false;
        let newest = loop {
            match self.newest().await {
                Ok(newest) => break newest,
                Err(error) if !told => {
                    told = true;
                    (self.tell)(Event::Trouble(error.during("cannot tell yet whether a backup is due")));
                }
                Err(_) => {}
            }
            tokio::time::sleep(ASK_AGAIN).await;
        };
        let now = Utc::now();
        if !config.schedule.is_due(newest, now) {
            return false;
        }
        if let Some(age) = LastStart::of(&config.path).age()
            && age < RESTART_PAUSE
        {
            let wait = RESTART_PAUSE - age;
            (self.tell)(Event::Note(format!(
                "a backup is due, but a run began only {} s ago; waiting {} s",
                age.as_secs(),
                wait.as_secs()
            )));
            tokio::time::sleep(wait).await;
        }
        true
    }

    /// When the newest snapshot was taken, as the destination has it. A degraded
    /// one counts: taking another would not help. One from the future does not.
    async fn newest(&self) -> Result<Option<DateTime<Utc>>> {
        let whence = Whence { config: Some(self.config_path.clone()), ..Whence::default() };
        let home = Home::open(&whence)?;
        let found = match home.snapshots().await {
            Ok(found) => found,
            // The first backup makes a directory that is not there.
            Err(_) if matches!(&*home.destination, crate::destination::Destination::Directory(d) if d.is_absent()) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        let now = Utc::now();
        let whole = found.iter().filter(|s| s.state != State::Incomplete).map(|s| s.current_at(now));
        Ok(whole.filter(|taken| *taken <= now).max())
    }
}
