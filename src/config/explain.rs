//! Turns a TOML error into one that says where and what was probably meant.
//!
//! The config's text is never quoted: a key pasted into it by mistake would
//! come out in the error.

use std::path::Path;

use crate::error::Error;

/// The error for a config whose text does not fit.
pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let place = match error.span() {
        Some(span) => {
            let (line, column) = position(text, span.start);
            format!("{}:{line}:{column}", path.display())
        }
        None => path.display().to_string(),
    };
    let message = error.message().lines().next().unwrap_or("not valid TOML");
    match unknown_field(message) {
        Some((unknown, known)) => {
            let error = Error::usage(format!("{place}: unknown key `{unknown}`"));
            match nearest(unknown, &known) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("the keys here are {}", known.join(", "))),
            }
        }
        None => {
            // What serde quotes is the value, which may be a secret.
            let quotes = ["invalid type", "invalid value", "unknown variant"];
            let message = if quotes.iter().any(|start| message.starts_with(start)) {
                match message.split_once("expected ") {
                    Some((_, expected)) => format!("this value is not {expected}"),
                    None => "this value is of the wrong type".to_owned(),
                }
            } else {
                message.to_owned()
            };
            Error::usage(format!("{place}: {message}"))
                .hint("the README lists every key; `offsite init` writes an example")
        }
    }
}

/// Line and column, both from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    (line, column)
}

/// Takes serde's "unknown field `x`, expected one of `a`, `b`" apart.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field ")?;
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    Some((unknown, quoted.collect()))
}

fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let (near, distance) =
        known.iter().map(|k| (*k, strsim::damerau_levenshtein(word, k))).min_by_key(|(_, d)| *d)?;
    (distance <= (word.len().max(near.len()) / 2).max(1)).then_some(near)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::path::Path;

    const GOOD: &str =
        "system = \"s\"\ndestination = \"file:///d\"\nkey = [\"env:K\"]\n[tier1.a]\npaths = [\"x\"]\n";

    fn error(text: &str) -> String {
        let error = Config::parse(text, Path::new("/c/backup-paths.toml")).err().expect("refused");
        assert_eq!(error.kind().exit_code(), 2);
        format!("{error} | {}", error.next_step().unwrap_or(""))
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_place_and_the_nearest_known_one() {
        let text = error(&format!("{GOOD}exclud = []\n"));
        assert_eq!(text, "/c/backup-paths.toml:6:1: unknown key `exclud` | did you mean `exclude`?");
        assert!(error(&format!("scheduel = \"x\"\n{GOOD}")).contains("did you mean `schedule`?"));
        assert!(error(&format!("{GOOD}zzz = 1\n")).contains("the keys here are paths, exclude, optional"));
    }

    #[test]
    fn a_secret_in_the_text_does_not_come_out() {
        assert!(error(&format!("compression = \"tiny\"\n{GOOD}")).contains("`default` or `fast`"));
        for text in [
            format!("compression = \"s3cr3t\"\n{GOOD}"),
            format!("{GOOD}key2 = \"s3cr3t"),
            GOOD.replace("[\"env:K\"]", "\"s3cr3t\""),
            GOOD.replace("env:K", "s3cr3t"),
            GOOD.replace("\"s\"", "[\"s3cr3t\"]"),
        ] {
            assert!(!error(&text).contains("s3cr3t"), "{}", error(&text));
        }
    }

    #[test]
    fn what_is_missing_or_impossible_is_refused() {
        assert!(error(&GOOD.replace("system = \"s\"\n", "")).contains("missing field `system`"));
        assert!(
            error("system = \"s\"\ndestination = \"file:///d\"\nkey = [\"env:K\"]\n")
                .contains("nothing to back up")
        );
        assert!(error(&format!("schedule = \"0 */6 * * *\"\n{GOOD}")).contains("six fields"));
        assert!(error(&format!("schedule = \"0 0 0 30 2 *\"\n{GOOD}")).contains("never"));
        assert!(error(&GOOD.replace("\"s\"", "\"a/b\"")).contains("cannot be the name of a system"));
        assert!(error(&format!("{GOOD}[deadlines]\ndump = \"0s\"\n")).contains("not a time"));
    }

    #[test]
    fn relative_paths_count_from_the_config() {
        let config =
            Config::parse(&GOOD.replace("\"x\"", "\"x\", \"../y/./z/\", \"/abs\""), Path::new("/c/d/e.toml"))
                .unwrap();
        let paths: Vec<_> = config.tier1["a"].paths.iter().map(|p| p.to_str().unwrap()).collect();
        assert_eq!(paths, ["/c/d/x", "/c/y/z", "/abs"]);
    }
}
