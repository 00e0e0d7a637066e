//! Progress, told to whoever listens: a bar on a terminal, lines in a log.

use std::sync::Arc;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A cluster's dump.
    Dump,
    /// Reading, packing and sealing files.
    Pack,
    /// Sending to the destination.
    Upload,
    /// Fetching, opening and checking.
    Download,
    /// Loading dumps into a cluster.
    Load,
}

impl Stage {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Dump => "dump",
            Stage::Pack => "pack",
            Stage::Upload => "upload",
            Stage::Download => "download",
            Stage::Load => "load",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A stage begins; its size in bytes where that is known.
    Begin(Stage, Option<u64>),
    /// Bytes done in a stage, since the last such event.
    Bytes(Stage, u64),
    /// A stage is over.
    End(Stage),
    /// Something a person should see now.
    Note(String),
}

/// A listener that all threads of a run share.
#[derive(Clone)]
pub struct Progress {
    listener: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Progress {
    /// Tells `listener`, from whichever thread.
    pub fn new(listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self { listener: Arc::new(listener) }
    }

    /// Tells nobody.
    pub fn silent() -> Self {
        Self::new(|_| {})
    }

    /// A stage begins.
    pub fn begin(&self, stage: Stage, bytes: Option<u64>) {
        (self.listener)(Event::Begin(stage, bytes));
    }

    /// Bytes done in a stage.
    pub fn bytes(&self, stage: Stage, bytes: u64) {
        (self.listener)(Event::Bytes(stage, bytes));
    }

    /// A stage is over.
    pub fn end(&self, stage: Stage) {
        (self.listener)(Event::End(stage));
    }

    /// Something a person should see now.
    pub fn note(&self, text: impl Into<String>) {
        (self.listener)(Event::Note(text.into()));
    }
}
