//! `RESTORE.md`: how to get everything back without this program.
//!
//! One goes into every snapshot, with its own name in the commands; one lies in
//! clear at the destination. A test runs their commands as written.

use std::fmt::Write;

use super::manifest::Manifest;
use crate::key::{DEFAULT_VARIABLE, KeyId};

/// Its name at the root of a destination.
pub const OBJECT: &str = "RESTORE.md";

/// Before the key id in the destination's notes; `init` looks for it.
const KEY_ID_LINE: &str = "Key id: ";

/// Opens every token of `$1` into `$2`: the key comes from the environment, so
/// that it is in no process list.
const OPEN_PY: &str = r#"cat > open.py <<'PYTHON'
import os, sys
from cryptography.fernet import Fernet
fernet = Fernet(os.environ["AITHER_MASTER_KEY"])
with open(sys.argv[1], "rb") as tokens, open(sys.argv[2], "wb") as out:
    for token in tokens:
        out.write(fernet.decrypt(token.strip()))
PYTHON
"#;

/// The notes inside a snapshot.
pub fn for_snapshot(manifest: &Manifest) -> String {
    let object = manifest.snapshot.rsplit('/').next().unwrap_or_default();
    let mut text = format!(
        "# How to restore this snapshot\n\n\
         Snapshot `{}`, taken {} of the system `{}`.\n\
         It is sealed with the key whose id is `{}`.\n\n",
        manifest.snapshot,
        manifest.started_at.format("%Y-%m-%d %H:%M:%S UTC"),
        manifest.system,
        manifest.key_id
    );
    if manifest.degraded {
        text.push_str("**This snapshot is degraded: something required is missing.**\n\n");
        for problem in &manifest.problems {
            let _ = writeln!(text, "- {problem}");
        }
        text.push('\n');
    }
    text.push_str(
        "With `offsite`, in an empty folder:\n\n```sh\n\
         offsite restore --from DESTINATION --target restored ",
    );
    let _ = write!(text, "{}\n```\n\n", manifest.id);
    text.push_str(&by_hand(object, manifest.postgres.iter().map(|c| c.file.as_str())));
    if let Some(psql) = manifest.needs.psql {
        let _ = writeln!(text, "\nThe dumps need `psql` {psql} or newer.");
    }
    if !manifest.regenerable.is_empty() {
        text.push_str("\n## What is not in here, and how it comes back\n\n");
        for item in &manifest.regenerable {
            let takes = item.takes.as_ref().map(|t| format!(" (about {t})")).unwrap_or_default();
            let _ = writeln!(text, "- {}: {}{takes}\n\n      {}", item.name, item.paths.join(", "), item.how);
        }
    }
    text
}

fn by_hand<'a>(object: &str, dumps: impl Iterator<Item = &'a str>) -> String {
    let mut text = format!(
        "## By hand\n\n\
         With Python's `cryptography`, `tar`, `sha256sum` and `psql`, in an empty folder that\n\
         holds the file `{object}`.\n\n\
         1. If it was stored in parts, put them together first:\n\n\
         ```sh\nls {object} || cat {object}.*-of-* > {object}\n```\n\n\
         2. Put the master key into the environment, without it getting into the history:\n\n\
         ```sh\ntest -n \"${{{DEFAULT_VARIABLE}:-}}\" || {{ read -rs {DEFAULT_VARIABLE}; export {DEFAULT_VARIABLE}; }}\n```\n\n\
         3. Open it. Python says `InvalidToken` when the key is wrong or the file damaged:\n\n\
         ```sh\n{OPEN_PY}python3 open.py {object} snapshot.tar.gz\n```\n\n\
         4. Unpack it (as root, to get the owners back) and check every file. The last\n   \
         entry is `manifest.json`: if it is missing, the snapshot was cut short.\n\n\
         ```sh\ntar --xattrs --xattrs-include='*' -xpzf snapshot.tar.gz\nsha256sum --quiet -c SHA256SUMS\ntest -s manifest.json\n```\n\n\
         5. Everything under `files/` belongs at `/`. Look before you copy:\n\n\
         ```sh\nls files\n```\n"
    );
    let dumps: Vec<&str> = dumps.collect();
    if !dumps.is_empty() {
        text.push_str(
            "\n6. Load each dump into an empty cluster, as its superuser, over the local socket (a dump\n   \
             sets the superuser's old password, and a connection with a password breaks off there).\n   \
             From PostgreSQL 16 on that superuser must have the name that it had: `initdb -U NAME`.\n   \
             `role \"postgres\" already exists` is harmless:\n\n```sh\n",
        );
        for dump in dumps {
            let _ = writeln!(text, "psql -X -d postgres -f {dump}");
        }
        text.push_str("```\n");
    }
    text
}

/// The notes at a destination. No secret, no host and no file name is in them.
pub fn for_destination(key: &KeyId) -> String {
    format!(
        "# Encrypted backups\n\n\
         This place holds encrypted snapshots that `offsite` made: one object each, at\n\
         `SYSTEM/YEAR/MONTH/TIME-ID.tar.gz.fernet`, or in parts that end in `.1-of-3`.\n\
         Without the master key they cannot be read.\n\n\
         {KEY_ID_LINE}`{key}` (of the key that was in use when this file was written)\n\n\
         ## What you need\n\n\
         - the master key, 44 characters; `offsite key id` says whether it is the right one\n\
         - access to this place; for GitHub, a token that may read the repository\n\
         - the program `offsite`, or Python's `cryptography` with `tar`, `sha256sum` and `psql`\n\n\
         ## With offsite\n\n\
         ```sh\n\
         export {DEFAULT_VARIABLE}=…   # the key from the safe\n\
         export GITHUB_TOKEN=…        # for GitHub\n\
         offsite list --from github://OWNER/REPO\n\
         offsite restore --from github://OWNER/REPO --target restored\n\
         ```\n\n\
         ## Without it\n\n\
         Fetch the newest object (on GitHub: clone the repository, or download the file), or all\n\
         of its parts, into an empty folder; then, with its name for `OBJECT`:\n\n\
         ```sh\n\
         ls OBJECT || cat OBJECT.*-of-* > OBJECT\n\
         {OPEN_PY}python3 open.py OBJECT snapshot.tar.gz\n\
         tar --xattrs --xattrs-include='*' -xpzf snapshot.tar.gz\n\
         sha256sum --quiet -c SHA256SUMS\n\
         ```\n\n\
         The snapshot's own `RESTORE.md` goes on from there.\n"
    )
}

/// The key id in a destination's notes.
pub fn key_id(notes: &str) -> Option<&str> {
    let rest = &notes[notes.find(KEY_ID_LINE)? + KEY_ID_LINE.len()..];
    rest.strip_prefix('`')?.split('`').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::MasterKey;

    #[test]
    fn the_key_id_can_be_read_back_and_nothing_secret_is_there() {
        let key = MasterKey::generate().unwrap();
        let notes = for_destination(&key.id());
        assert_eq!(key_id(&notes), Some(key.id().to_string().as_str()));
        assert!(!notes.contains(key.text().as_str()));
        assert_eq!(key_id("something else"), None);
    }
}
