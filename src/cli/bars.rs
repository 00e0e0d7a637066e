//! Progress: bars on a terminal, plain lines elsewhere when asked for.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::progress::{Event, Progress, Stage};

/// A listener that fits where stderr goes.
pub(super) fn progress(quiet: bool, verbose: bool, terminal: bool) -> Progress {
    if quiet {
        Progress::silent()
    } else if terminal {
        bars()
    } else if verbose {
        lines()
    } else {
        notes()
    }
}

fn bars() -> Progress {
    let multi = MultiProgress::new();
    let shown: Mutex<HashMap<&'static str, ProgressBar>> = Mutex::new(HashMap::new());
    Progress::new(move |event| {
        let Ok(mut shown) = shown.lock() else { return };
        match event {
            Event::Begin(stage, size) => {
                let bar = multi.add(match size {
                    Some(size) => ProgressBar::new(size)
                        .with_style(style("{prefix:9} {wide_bar} {bytes}/{total_bytes} {eta}")),
                    None => {
                        ProgressBar::new_spinner().with_style(style("{prefix:9} {spinner} {bytes} {elapsed}"))
                    }
                });
                bar.set_prefix(stage.as_str());
                bar.enable_steady_tick(Duration::from_millis(120));
                shown.insert(stage.as_str(), bar);
            }
            Event::Bytes(stage, bytes) => {
                if let Some(bar) = shown.get(stage.as_str()) {
                    bar.inc(bytes);
                }
            }
            Event::End(stage) => {
                if let Some(bar) = shown.remove(stage.as_str()) {
                    bar.finish_and_clear();
                }
            }
            Event::Note(text) => {
                let _ = multi.println(text);
            }
        }
    })
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn lines() -> Progress {
    let begun: Mutex<HashMap<&'static str, (Instant, u64)>> = Mutex::new(HashMap::new());
    Progress::new(move |event| {
        let Ok(mut begun) = begun.lock() else { return };
        match event {
            Event::Begin(stage, _) => {
                begun.insert(stage.as_str(), (Instant::now(), 0));
                say(&format!("{} begins", stage.as_str()));
            }
            Event::Bytes(stage, bytes) => {
                if let Some((_, sum)) = begun.get_mut(stage.as_str()) {
                    *sum += bytes;
                }
            }
            Event::End(stage) => ended(stage, begun.remove(stage.as_str())),
            Event::Note(text) => say(&text),
        }
    })
}

fn ended(stage: Stage, begun: Option<(Instant, u64)>) {
    if let Some((since, bytes)) = begun {
        say(&format!("{} done: {bytes} bytes in {:.1} s", stage.as_str(), since.elapsed().as_secs_f64()));
    }
}

fn notes() -> Progress {
    Progress::new(|event| {
        if let Event::Note(text) = event {
            say(&text);
        }
    })
}

fn say(text: &str) {
    // A closed stderr is no reason to stop a backup.
    let _ = writeln!(std::io::stderr(), "{text}");
}
