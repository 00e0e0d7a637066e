//! The README and the runbook are true: their commands run as they are written,
//! and every command, option, key, variable and exit code of the program is
//! named in them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

#[path = "docs/commands.rs"]
mod commands;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use support::World;

/// The text of a file of this repository.
fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What is between the heading `heading` and the next one of its level or above.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no `{heading}`")) + 1;
    let rest = &text[start + heading.len()..];
    // A single `#` may be a comment in a block.
    let level = heading.split(' ').next().unwrap().len();
    let ends = (2..=level).filter_map(|depth| rest.find(&format!("\n{} ", "#".repeat(depth))));
    &rest[..ends.min().unwrap_or(rest.len())]
}

/// The contents of the blocks of one language, in order, without indentation.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(String, usize)> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match &mut open {
            Some((block, depth)) if line.trim() == "```" && indent == *depth => {
                found.push(std::mem::take(block));
                open = None;
            }
            Some((block, depth)) => {
                block.push_str(line.get(*depth..).unwrap_or(""));
                block.push('\n');
            }
            None if line.trim() == format!("```{language}") => open = Some((String::new(), indent)),
            None => {}
        }
    }
    assert!(open.is_none(), "a block does not end");
    found
}

/// The first cells of a table's rows: what is in back quotes there.
fn first_cells(text: &str) -> Vec<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| row.split(" | ").next()).filter(|cell| cell.starts_with('`'));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned)).collect()
}

/// The dotted keys of the config, from the structs that read it.
fn config_keys(source: &str) -> BTreeSet<String> {
    let mut structs: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut current = None;
    for line in source.lines() {
        if let Some((_, rest)) = line.split_once("struct ") {
            current = rest.strip_suffix(" {").map(str::to_owned);
        } else if line == "}" {
            current = None;
        } else if let (Some(name), Some((field, kind))) = (&current, line.trim().split_once(": ")) {
            let fields = structs.entry(name.clone()).or_default();
            fields.push((field.to_owned(), kind.trim_end_matches(',').to_owned()));
        }
    }
    let mut keys = BTreeSet::new();
    for (field, kind) in &structs["File"] {
        let section = kind.strip_prefix("BTreeMap<String, ").map(|k| k.trim_end_matches('>'));
        match structs.get(section.unwrap_or(kind)) {
            None => drop(keys.insert(field.clone())),
            Some(fields) => {
                let prefix = if section.is_some() { format!("{field}.NAME") } else { field.clone() };
                keys.extend(fields.iter().map(|(name, _)| format!("{prefix}.{name}")));
            }
        }
    }
    keys
}

#[test]
fn the_readme_lists_exactly_the_keys_of_the_config() {
    let keys = config_keys(&text("src/config/file.rs"));
    for known in ["system", "github.allow_public", "tier1.NAME.exclude", "deadlines.upload"] {
        assert!(keys.contains(known), "the source was not understood: {keys:?}");
    }
    let readme = text("README.md");
    let table = section(&readme, "## Config").split("\n\n").find(|part| part.starts_with("| key ")).unwrap();
    let rows = table.lines().skip(2).map(|row| row.split('`').nth(1).unwrap().to_owned());
    assert_eq!(rows.collect::<BTreeSet<_>>(), keys);
}

/// Quoted text in the source that is named as variables are, and is no variable
/// of somebody else's.
fn variables() -> BTreeSet<String> {
    let mut found = BTreeSet::from(["TMPDIR".to_owned()]);
    for entry in walkdir::WalkDir::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let path = entry.unwrap().into_path();
        let is_test = path.to_string_lossy().ends_with("tests.rs");
        if is_test || path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        let named = |word: &&str| {
            word.contains('_')
                && word.starts_with(|c: char| c.is_ascii_uppercase())
                && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        };
        found.extend(source.split('"').filter(named).map(str::to_owned));
    }
    // Set for PostgreSQL's programs, by the compiler, and by the demo for itself.
    let foreign = ["LC_ALL", "CARGO_PKG_VERSION", "DEMO_DATABASE_URL"];
    found.retain(|name| !name.starts_with("PG") && !foreign.contains(&name.as_str()));
    found
}

#[test]
fn the_readme_names_every_variable_and_none_that_is_not_there() {
    let found = variables();
    for known in ["AITHER_MASTER_KEY", "GITHUB_TOKEN", "OFFSITE_CONFIG", "STATE_DIRECTORY"] {
        assert!(found.contains(known), "the source was not understood: {found:?}");
    }
    let readme = text("README.md");
    let listed: BTreeSet<String> = first_cells(section(&readme, "### Environment")).into_iter().collect();
    let missing: Vec<_> = found.difference(&listed).collect();
    assert!(missing.is_empty(), "not in the README: {missing:?}");
    let sources = text("src/sources/postgres/child.rs") + &found.into_iter().collect::<String>();
    let stale: Vec<_> = listed.iter().filter(|name| !sources.contains(name.as_str())).collect();
    assert!(stale.is_empty(), "not in the program: {stale:?}");
}

/// The names under `Commands:` in a help text.
fn commands_of(help: &str) -> Vec<String> {
    let list = help.split("\nCommands:\n").nth(1).unwrap_or_default().split("\n\n").next().unwrap();
    list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_readme_names_every_command_and_option() {
    let world = World::empty();
    let help = |args: &[&str]| world.run(&[args, &["--help"]].concat()).expect(0).stdout;
    let readme = text("README.md");
    let table =
        section(&readme, "## Commands").split("\n\n").find(|part| part.starts_with("| command ")).unwrap();
    let rows = table.lines().skip(2).map(|row| row.split(['`', ' ']).nth(2).unwrap().to_owned());
    let names = commands_of(&help(&[]));
    assert!(names.len() > 10, "the help was not understood: {names:?}");
    assert_eq!(rows.collect::<BTreeSet<_>>(), names.iter().cloned().collect());

    let mut helps = vec![help(&[])];
    for name in names.iter().filter(|name| *name != "help") {
        helps.push(help(&[name]));
        for inner in commands_of(&helps[helps.len() - 1]).iter().filter(|inner| *inner != "help") {
            assert!(readme.contains(&format!("`{name} {inner}`")), "{name} {inner}");
            helps.push(help(&[name, inner]));
        }
    }
    let lines = helps.iter().flat_map(|help| help.lines()).map(str::trim_start);
    let long = lines.filter(|line| line.starts_with('-')).filter_map(|line| line.split_once("--"));
    let options: BTreeSet<&str> = long.map(|(_, rest)| rest.split([' ', '.']).next().unwrap()).collect();
    assert!(options.contains("dry-run") && options.contains("json"), "{options:?}");
    // -v and -q are listed by their short names; --help and --version are everywhere.
    for option in options.iter().filter(|o| !["verbose", "quiet", "help", "version"].contains(*o)) {
        assert!(readme.contains(&format!("--{option}")), "--{option} is not in the README");
    }
}

#[test]
fn the_readme_lists_exactly_the_exit_codes_of_the_help() {
    let help = World::empty().run(&["--help"]).expect(0).stdout;
    let said = help.split("Exit codes: ").nth(1).unwrap();
    let codes: BTreeSet<String> = said
        .split_whitespace()
        .filter(|word| word.chars().all(|c| c.is_ascii_digit()))
        .map(str::to_owned)
        .collect();
    assert!(codes.len() >= 6, "{said}");
    let readme = text("README.md");
    assert_eq!(first_cells(section(&readme, "### Exit codes")).into_iter().collect::<BTreeSet<_>>(), codes);
}

/// The address that GitHub gives a heading.
fn slug(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// The headings of a page; a `#` in a block is a comment.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut in_block = false;
    let mut found = BTreeSet::new();
    for line in page.lines() {
        in_block ^= line.trim_start().starts_with("```");
        if !in_block && line.starts_with('#') {
            found.insert(slug(line));
        }
    }
    found
}

#[test]
fn links_lead_to_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![PathBuf::from("README.md"), "CONTRIBUTING.md".into()];
    for folder in ["runbook", "docs"] {
        let walk = walkdir::WalkDir::new(root.join(folder)).into_iter().flatten();
        let files = walk.filter(|entry| entry.path().extension().is_some_and(|e| e == "md"));
        pages.extend(files.map(|entry| entry.path().strip_prefix(root).unwrap().to_owned()));
    }
    let mut checked = 0;
    for page in &pages {
        let contents = text(page.to_str().unwrap());
        for link in contents.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').map_or((link, None), |(p, a)| (p, Some(a)));
            let target = root.join(page).parent().unwrap().join(path);
            let target = if path.is_empty() { root.join(page) } else { target };
            assert!(target.exists(), "{}: {link}", page.display());
            if let Some(anchor) = anchor {
                let found = anchors(&fs::read_to_string(&target).unwrap());
                assert!(found.contains(anchor), "{}: {link} is none of {found:?}", page.display());
            }
            checked += 1;
        }
    }
    assert!(checked >= 10, "{checked} links");
}

#[test]
fn every_test_file_that_the_readme_names_exists() {
    let readme = text("README.md");
    let promises = section(&readme, "## What it promises");
    let named: BTreeSet<String> = promises
        .split('`')
        .filter(|word| word.starts_with("tests/") && word.ends_with(".rs"))
        .map(str::to_owned)
        .collect();
    assert!(named.len() > 5);
    let missing: Vec<_> =
        named.iter().filter(|file| !Path::new(env!("CARGO_MANIFEST_DIR")).join(file).is_file()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
