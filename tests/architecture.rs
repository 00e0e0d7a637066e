//! How the code may depend on itself, read from its text.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Who may import what: a module, or a folder of them, and all that it may name
/// of the rest of the crate besides `error`. The longest entry that fits a file
/// is the one that counts. What a file imports from its own entry is its own
/// affair. The table is as narrow as the truth: an entry that nobody uses fails.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // The edge: arguments in, reports out.
    ("cli", &["commands", "config", "key", "progress", "repository::manifest", "stop"]),
    // Verbs put everything together.
    (
        "commands",
        &[
            "config",
            "destination",
            "key",
            "pipeline",
            "progress",
            "repository",
            "scratch",
            "secret",
            "sources::metadata",
            "sources::postgres",
            "stop",
            "workers",
        ],
    ),
    // Stages. Each names what it turns into what; only transfer meets a destination.
    ("pipeline::select", &["config", "repository::manifest", "sources::file"]),
    (
        "pipeline::pack",
        &[
            "gzip",
            "key",
            "pipeline",
            "progress",
            "repository::manifest",
            "repository::name",
            "repository::restore_notes",
            "sources",
            "stop",
            "workers",
        ],
    ),
    ("pipeline::archive", &["gzip", "repository::manifest", "sources::file", "sources::metadata", "workers"]),
    ("pipeline::seal", &["key", "workers"]),
    (
        "pipeline::transfer",
        &["destination", "pipeline::seal", "progress", "repository::listing", "repository::name"],
    ),
    ("pipeline::unpack", &["gzip", "key", "pipeline", "repository::manifest", "repository::name", "workers"]),
    ("pipeline::staging", &["scratch", "sources::metadata", "workers"]),
    ("pipeline::commit", &["pipeline::staging", "sources::metadata"]),
    // Sources know files, databases and processes, and nothing of snapshots.
    ("sources::file", &[]),
    ("sources::metadata", &[]),
    ("sources::sqlite", &["scratch", "sources::file"]),
    ("sources::postgres", &["gzip", "repository::inventory", "stop", "workers"]),
    // What is stored, in words.
    ("repository::inventory", &[]),
    ("repository::name", &[]),
    ("repository::manifest", &["repository::inventory"]),
    ("repository::listing", &["destination", "repository::name"]),
    ("repository::restore_notes", &["key", "repository::manifest"]),
    // A destination knows bytes and names, never snapshots.
    ("destination", &["config", "secret"]),
    // Leaves.
    ("config", &["gzip", "key", "repository::name", "secret"]),
    ("error", &[]),
    ("gzip", &["workers"]),
    ("key", &[]),
    ("progress", &[]),
    ("scratch", &[]),
    ("secret", &[]),
    ("stop", &[]),
    ("workers", &[]),
];

/// Words that only these files may name.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("octocrab", &["destination/github/"]),
    // The demo makes a database to save.
    ("rusqlite", &["sources/sqlite", "commands/demo/"]),
    ("fernet::", &["pipeline/seal.rs", "key.rs"]),
    ("tokio_cron_scheduler", &["commands/daemon.rs"]),
    ("ureq", &["secret.rs"]),
    ("uzers", &["sources/metadata.rs", "sources/postgres/cluster.rs"]),
    ("tar::", &["pipeline/archive/"]),
    ("flate2", &["gzip.rs"]),
    ("libdeflater", &["gzip.rs"]),
    ("rayon", &["workers.rs"]),
    ("clap", &["cli/"]),
    ("indicatif", &["cli/"]),
    // The demo runs the program itself.
    ("Command::new", &["secret.rs", "sources/postgres/c", "commands/demo/"]),
    // Reports are returned; only these print.
    ("println!", &[]),
    ("eprintln!", &[]),
    ("print!", &[]),
    ("stdout()", &["cli/", "main.rs"]),
    ("stderr()", &["cli/", "main.rs"]),
];

const LINES_MAX: usize = 400;

/// A source file without its tests and without comments.
struct Source {
    /// Below `src/`, such as `sources/postgres/child.rs`.
    path: String,
    /// As a module, such as `sources::postgres::child`.
    module: String,
    /// Line numbers from 1, and code.
    code: Vec<(usize, String)>,
    lines: usize,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = walkdir::WalkDir::new(&root).sort_by_file_name().into_iter().map(Result::unwrap);
    let sources: Vec<Source> = files
        .filter(|e| e.path().extension().is_some_and(|x| x == "rs"))
        .map(|e| {
            let path = e.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(e.path()).unwrap();
            let module = path.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
            let code = if is_test_file(&path) { Vec::new() } else { code(&text) };
            Source { path, module, code, lines: text.lines().count() }
        })
        .collect();
    assert!(sources.len() > 40, "the test has lost sight of the code");
    sources
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("tests.rs") || path.ends_with("testing.rs")
}

/// The lines that are code, up to the tests at the end of a file.
fn code(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|w| w[0] == "#[cfg(test)]" && w[1].starts_with("mod tests"));
    let lines = &lines[..tests.unwrap_or(lines.len())];
    let is_code = |l: &&(usize, &str)| !l.1.trim_start().starts_with("//");
    let numbered: Vec<(usize, &str)> = lines.iter().enumerate().map(|(at, l)| (at + 1, *l)).collect();
    numbered.iter().filter(is_code).map(|(at, l)| (*at, (*l).to_owned())).collect()
}

/// What follows each `marker` in a line, as long as it is a path.
fn paths_after<'a>(line: &'a str, marker: &str) -> Vec<&'a str> {
    let rests = line.match_indices(marker).filter(|(at, _)| {
        // `crate::` must not be the end of another word.
        !line[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
    });
    rests
        .map(|(at, _)| {
            let rest = &line[at + marker.len()..];
            rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
                .next()
                .unwrap_or("")
                .trim_end_matches(':')
        })
        .collect()
}

/// Whether `word` is in the line, and not only the end of a longer one.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Every path of the crate that a file names, `super::` resolved.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, line) in &source.code {
        assert!(!line.contains("crate::{"), "{}:{at}: name each module in a `use` of its own", source.path);
        found.extend(paths_after(line, "crate::").into_iter().map(|path| (*at, path.to_owned())));
        let parent = source.module.rsplit_once("::").map_or("", |(parent, _)| parent);
        for path in paths_after(line, "super::") {
            assert!(!path.starts_with("super"), "{}:{at}: start from `crate::`", source.path);
            found.push((*at, format!("{parent}::{path}").trim_start_matches(':').to_owned()));
        }
    }
    found
}

fn covers(entry: &str, path: &str) -> bool {
    path == entry || path.strip_prefix(entry).is_some_and(|rest| rest.starts_with("::"))
}

#[test]
fn imports_go_one_way() {
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| !["main.rs", "lib.rs"].contains(&s.path.as_str())) {
        let fits = MAY_IMPORT.iter().filter(|(entry, _)| covers(entry, &source.module));
        let Some((own, allowed)) = fits.max_by_key(|(entry, _)| entry.len()) else {
            // A folder's own file only says what is in it.
            assert!(imports(source).is_empty(), "{} is in no line of the table", source.path);
            continue;
        };
        for (at, path) in imports(source) {
            // A path to a folder's own items, such as a function of `commands`.
            let inside =
                covers(own, &path) || !path.contains("::") && !path.starts_with(|c: char| c.is_lowercase());
            if inside || covers("error", &path) {
                continue;
            }
            match allowed.iter().find(|entry| covers(entry, &path)) {
                Some(entry) => {
                    used.insert((*own, *entry));
                }
                None => wrong.push(format!("src/{}:{at}: {own} may not import {path}", source.path)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let table = MAY_IMPORT.iter().flat_map(|(own, allowed)| allowed.iter().map(move |entry| (*own, *entry)));
    let idle: Vec<_> = table.filter(|line| !used.contains(line)).collect();
    assert!(idle.is_empty(), "the table allows what nobody does: {idle:?}");
}

#[test]
fn one_file_knows_each_foreign_thing() {
    let sources = sources();
    for (word, homes) in ONLY_IN {
        let mut seen = false;
        for source in &sources {
            for (at, line) in source.code.iter().filter(|(_, line)| names(line, word)) {
                seen = true;
                let at_home = homes.iter().any(|home| source.path.starts_with(home));
                assert!(
                    at_home,
                    "src/{}:{at}: `{word}` belongs into {homes:?}: {}",
                    source.path,
                    line.trim()
                );
            }
        }
        assert!(seen || homes.is_empty(), "`{word}` is named nowhere: the table is out of date");
    }
}

#[test]
fn nothing_outside_of_tests_can_panic_by_intent() {
    let words = [
        ".unwrap()",
        ".expect(",
        "panic!(",
        "todo!(",
        "unimplemented!(",
        "unreachable!(",
        "dbg!(",
        "unsafe ",
    ];
    for source in &sources() {
        for (at, line) in &source.code {
            let word = words.iter().find(|word| line.contains(**word));
            assert!(word.is_none(), "src/{}:{at}: {}", source.path, line.trim());
        }
    }
}

#[test]
fn files_are_short_and_named_for_what_they_hold() {
    for source in &sources() {
        assert!(
            source.lines <= LINES_MAX,
            "src/{} has {} lines, more than {LINES_MAX}",
            source.path,
            source.lines
        );
        for part in source.path.trim_end_matches(".rs").split('/') {
            assert!(
                !["utils", "util", "misc", "common", "helpers", "helper"].contains(&part),
                "src/{}",
                source.path
            );
        }
    }
}

#[test]
fn errors_and_hints_begin_as_they_are_printed_in_lower_case() {
    let markers =
        ["Error::failed(", "Error::usage(", "Error::integrity(", "Error::from_io(", "Error::io(", ".hint("];
    let mut seen = 0;
    for source in &sources() {
        let text = source.code.iter().map(|(_, line)| line.trim()).collect::<Vec<_>>().join("");
        for marker in markers {
            for (at, _) in text.match_indices(marker) {
                let rest = text[at + marker.len()..].trim_start_matches("format!(");
                let Some(message) = rest.strip_prefix('"') else { continue };
                seen += 1;
                let first = message.split([' ', '{', '"']).next().unwrap_or("");
                // A name is spelt as it is spelt.
                let name = first.starts_with("GitHub")
                    || first.starts_with("SQLite")
                    || first.starts_with("PostgreSQL");
                let upper = first.starts_with(char::is_uppercase) && !name && first != first.to_uppercase();
                let shown: String = message.chars().take(60).collect();
                assert!(!upper, "src/{}: begin in lower case: {shown}", source.path);
            }
        }
    }
    assert!(seen > 100, "the test has lost sight of the errors: {seen}");
}
