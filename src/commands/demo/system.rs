//! The sample system: the shape of a small team's machine, 635 files and 10 MB,
//! with the names and modes that backups stumble over.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::{make_folder, write_file};
use crate::error::{Error, Result};

/// The live SQLite database, which is compared by its rows: its file on disk is
/// never the same as a consistent copy.
pub(super) const MEMORY: &str = "data/memory/memory.db";

/// The config for the sample system, in its own folder.
pub(super) fn config(system: &str, destination: &str) -> String {
    format!(
        r#"system = "{system}"
destination = "{destination}"
key = ["env:AITHER_MASTER_KEY"]

[github]
token = ["env:GITHUB_TOKEN", "file:/run/secrets/github_token"]

[tier1.secrets]
paths = ["data/vault", "data/signing", "data/ca"]
[tier1.identity]
paths = ["data/identity", "data/personas"]
[tier1.memory]
paths = ["data/memory"]
exclude = ["**/*.tmp"]
[tier1.configuration]
paths = ["config", ".env", "backup-paths.toml"]
[tier1.odd]
paths = ["data/odd"]

[regenerable.models]
paths = ["models"]
how = "huggingface-cli download acme/small-model --local-dir models"
takes = "90 min"
"#
    )
}

/// Builds the sample below `root`.
pub(super) fn build(root: &Path) -> Result<()> {
    let mut random = Random::new()?;
    let data = root.join("data");
    write_file(&data.join("vault/vault.enc"), &random.bytes(2_600_000), 0o600)?;
    for i in 0..12 {
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", random.hex(1200));
        write_file(&data.join(format!("signing/key-{i:02}.pem")), pem.as_bytes(), 0o400)?;
        write_file(&data.join(format!("ca/cert-{i:02}.crt")), random.hex(900).as_bytes(), 0o644)?;
    }
    for i in 0..240 {
        let json = format!(
            "{{\"id\": {i}, \"name\": \"agent-{i}\", \"roles\": [\"reader\"], \"bio\": \"{}\"}}\n",
            random.words(60)
        );
        write_file(&data.join(format!("identity/{}/agent-{i}.json", i % 8)), json.as_bytes(), 0o640)?;
    }
    for i in 0..200 {
        write_file(&data.join(format!("personas/persona-{i:03}.md")), random.words(3_400).as_bytes(), 0o644)?;
    }
    for i in 0..150 {
        let yaml = format!("service: svc-{i}\nport: {}\nnotes: {}\n", 8000 + i, random.words(500));
        write_file(&root.join(format!("config/services/{i:03}/service.yaml")), yaml.as_bytes(), 0o644)?;
    }
    let env = format!("DATABASE_PASSWORD={}\nAPI_KEY={}\n", random.hex(24), random.hex(32));
    write_file(&root.join(".env"), env.as_bytes(), 0o600)?;
    // Regenerable: not in the snapshot. What is in it must not come back.
    write_file(&data.join("memory/scratch.tmp"), b"left out", 0o644)?;
    odd(&data.join("odd"))
}

/// Names, modes and links that go wrong elsewhere.
fn odd(odd: &Path) -> Result<()> {
    make_folder(odd)?;
    let names: [&[u8]; 9] = [
        b"with space",
        b"-dash",
        b"new\nline",
        b"back\\slash",
        b"quote'\"",
        "größe-日本".as_bytes(),
        b"not-\xff-utf8",
        b"*?[glob]",
        b".hidden",
    ];
    for name in names {
        write_file(&odd.join(std::ffi::OsStr::from_bytes(name)), name, 0o644)?;
    }
    for mode in [0o000, 0o111, 0o444, 0o755, 0o777] {
        write_file(
            &odd.join(format!("mode-{mode:03o}")),
            b"mode",
            if is_root() { mode } else { mode | 0o400 },
        )?;
    }
    write_file(&odd.join("empty"), b"", 0o644)?;
    make_folder(&odd.join("empty-folder"))?;
    let long = "n".repeat(250);
    write_file(&odd.join(&long).join(&long).join("deep"), b"deep", 0o644)?;
    let cannot = |path: &Path, e| Error::io("write", path, e);
    for (target, name) in
        [("../vault/vault.enc", "link"), ("nowhere", "dangling"), ("/etc/hostname", "absolute")]
    {
        symlink(target, odd.join(name)).map_err(|e| cannot(&odd.join(name), e))?;
    }
    std::fs::hard_link(odd.join("with space"), odd.join("hard link")).map_err(|e| cannot(odd, e))?;
    let sparse = odd.join("sparse");
    write_file(&sparse, b"start", 0o644)?;
    let file = std::fs::OpenOptions::new().write(true).open(&sparse).map_err(|e| cannot(&sparse, e))?;
    file.set_len(8 << 20).map_err(|e| cannot(&sparse, e))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A SQLite database in WAL mode that is written to until it is stopped.
pub(super) struct LiveMemory {
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
    writer: JoinHandle<rusqlite::Result<()>>,
}

impl LiveMemory {
    pub(super) fn start(root: &Path) -> Result<Self> {
        let path = root.join(MEMORY);
        let connection =
            fill_memory(&path).map_err(|e| Error::failed(format!("cannot make {}: {e}", path.display())))?;
        let (stop, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(FIRST_ROWS)));
        let (stop_writer, counted) = (stop.clone(), committed.clone());
        let writer = std::thread::spawn(move || {
            while !stop_writer.load(Ordering::Relaxed) {
                connection.execute("INSERT INTO memories (text) VALUES (hex(randomblob(200)))", [])?;
                counted.fetch_add(1, Ordering::Release);
                std::thread::sleep(Duration::from_millis(3));
            }
            Ok(())
        });
        Ok(Self { stop, committed, writer })
    }

    /// How many rows have been committed so far.
    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Stops the writer; returns how many rows there are.
    pub(super) fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        match self.writer.join() {
            Ok(Ok(())) => Ok(self.committed.load(Ordering::Acquire)),
            Ok(Err(e)) => Err(Error::failed(format!("the sample's writer failed: {e}"))),
            Err(_) => Err(Error::failed("the sample's writer died")),
        }
    }
}

const FIRST_ROWS: u64 = 2000;

fn fill_memory(path: &PathBuf) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection
        .execute_batch("CREATE TABLE memories (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL)")?;
    let transaction = connection.transaction()?;
    for _ in 0..FIRST_ROWS {
        transaction.execute("INSERT INTO memories (text) VALUES (hex(randomblob(500)))", [])?;
    }
    transaction.commit()?;
    Ok(connection)
}

/// What a look at the restored memory database found.
pub(super) struct MemoryCheck {
    pub(super) rows: u64,
    pub(super) problem: Option<String>,
}

/// The restored database must be sound, have every row that was committed when
/// the backup began, none that was not when it had ended, and no gap.
pub(super) fn check_memory(root: &Path, before: u64, after: u64) -> Result<MemoryCheck> {
    let path = root.join(MEMORY);
    let look = || -> rusqlite::Result<(String, u64, u64)> {
        let connection = Connection::open(&path)?;
        let verdict = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        let numbers =
            connection.query_row("SELECT count(*), coalesce(max(id), 0) FROM memories", [], |row| {
                Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
            })?;
        Ok((verdict, numbers.0, numbers.1))
    };
    let (verdict, rows, last) =
        look().map_err(|e| Error::failed(format!("cannot read the restored {}: {e}", path.display())))?;
    let sound = verdict == "ok" && rows == last && (before..=after).contains(&rows);
    let problem = (!sound).then(|| {
        format!("{MEMORY}: integrity {verdict}, {rows} rows up to number {last}; {before} to {after} were expected")
    });
    Ok(MemoryCheck { rows, problem })
}

/// Cheap random contents: a xorshift generator with a seed from the system.
struct Random(u64);

impl Random {
    fn new() -> Result<Self> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|e| Error::failed(format!("the system gave no random bytes: {e}")))?;
        Ok(Self(u64::from_le_bytes(seed) | 1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }

    fn hex(&mut self, len: usize) -> String {
        hex::encode(self.bytes(len))
    }

    fn words(&mut self, count: usize) -> String {
        const WORDS: [&str; 16] = [
            "vault", "agent", "memory", "ring", "tenant", "policy", "signal", "orbit", "ledger", "north",
            "quiet", "river", "amber", "seven", "under", "light",
        ];
        let mut text = String::with_capacity(count * 7);
        for _ in 0..count {
            text.push_str(WORDS[(self.next() % 16) as usize]);
            text.push(if self.next().is_multiple_of(12) { '\n' } else { ' ' });
        }
        text
    }
}
