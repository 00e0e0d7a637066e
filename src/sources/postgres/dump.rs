//! Dumps a whole cluster, and believes the dump only when everything agrees:
//! the client's exit status, the end marker, and the inventory.
//!
//! The SQL passes through memory in small pieces and is stored compressed in a
//! file without a name, so a killed run leaves no plaintext behind.

use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::path::Path;

use ring::digest::{Context, Digest, SHA256};

use super::child::{Child, Pipes};
use super::client::{Client, for_server, installed, needed_psql};
use super::complaint::explain;
use super::connection::Connection;
use super::inventory::{newest, read_with};
use super::scan::{Found, Scan};
use super::stderr::Stderr;
use crate::error::{Error, Result};
use crate::gzip::{GzipWriter, Level};
use crate::repository::inventory::{Inventory, PsqlVersion};
use crate::stop::Stop;
use crate::workers::Workers;

/// A complete dump of one cluster.
#[derive(Debug)]
pub struct Dump {
    /// What the config calls the cluster.
    pub label: String,
    /// The SQL as gzip, at its start, in a file that has no name any more.
    pub gzip: File,
    /// The length of `gzip` in bytes.
    pub gzip_bytes: u64,
    /// The length of the SQL in bytes.
    pub bytes: u64,
    /// SHA-256 of the SQL.
    pub sha256: Digest,
    /// What the cluster held, and the dump therefore holds. Databases that
    /// accept no connections are listed, marked, and not in the dump.
    pub inventory: Inventory,
    /// The words of the client that wrote it.
    pub client_version: String,
    /// Its major version: a server that loads the dump must not be older.
    pub client_major: u32,
    /// The oldest `psql` that reads the dump.
    pub needs_psql: PsqlVersion,
}

/// Where a dump is kept until it is packed, and how.
#[derive(Clone, Copy)]
pub struct Spool<'a> {
    /// A directory for a nameless file.
    pub folder: &'a Path,
    /// How hard to compress.
    pub level: Level,
    /// Who compresses.
    pub workers: &'a Workers,
}

/// Dumps the cluster behind `connection` with the installed client that fits
/// it, into `spool`; `on_bytes` is told how many more bytes of SQL have passed. Fails when the cluster cannot be
/// reached or not be read completely, when no client fits, and when `stop`
/// says so; the client and all its children are gone then.
pub fn dump(
    label: &str,
    connection: &Connection,
    spool: Spool<'_>,
    stop: &Stop,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Dump> {
    let clients = installed();
    let psql = newest(&clients)?;
    let inventory = read_with(psql, connection, stop)?.inventory;
    let client = for_server(&clients, inventory.server_major)?;
    let job = Job { label, connection, client, spool };
    job.run(inventory, stop, on_bytes, &|| Ok(read_with(psql, connection, stop)?.inventory))
}

/// One dump by one client.
struct Job<'a> {
    label: &'a str,
    connection: &'a Connection,
    client: &'a Client,
    spool: Spool<'a>,
}

impl Job<'_> {
    /// `inventory` is what the cluster held before, `reread` asks it again.
    fn run(
        &self,
        mut inventory: Inventory,
        stop: &Stop,
        on_bytes: &mut dyn FnMut(u64),
        reread: &dyn Fn() -> Result<Inventory>,
    ) -> Result<Dump> {
        refuse_line_breaks(&inventory)?;
        let stream = self.stream(stop, on_bytes)?;
        if !stream.found.complete {
            return Err(Error::failed(format!(
                "the dump of {} was cut short: pg_dumpall ended without an error after {} bytes, and without its \
                 end marker",
                self.connection.shown(),
                stream.bytes
            ))
            .hint("run it again; if it stays so, run pg_dumpall by hand and look at its last lines"));
        }
        if !missing(&stream.found, &inventory).is_empty() {
            self.forgive_dropped(&stream.found, &mut inventory, &reread()?)?;
        }
        Ok(Dump {
            label: self.label.to_owned(),
            gzip: stream.gzip,
            gzip_bytes: stream.gzip_bytes,
            bytes: stream.bytes,
            sha256: stream.sha256,
            inventory,
            client_version: self.client.version.clone(),
            client_major: self.client.major,
            needs_psql: needed_psql(self.client.major, stream.found.restricts),
        })
    }

    fn stream(&self, stop: &Stop, on_bytes: &mut dyn FnMut(u64)) -> Result<Stream> {
        let broken =
            |e| Error::from_io(&format!("cannot write the dump under {}", self.spool.folder.display()), e);
        let file = tempfile::tempfile_in(self.spool.folder).map_err(broken)?;
        let mut gzip = GzipWriter::new(BufWriter::new(file), self.spool.level, self.spool.workers);
        let (mut sha256, mut scan, mut bytes) = (Context::new(&SHA256), Scan::default(), 0);

        let mut command = self.client.command("pg_dumpall", self.connection);
        command.arg("-w");
        let stderr = Stderr::default();
        let record = stderr.clone();
        let pipes = Pipes { stdin: false, stdout: true };
        let mut child = Child::spawn(command, pipes, move |bytes| record.push(bytes))?;
        while let Some(piece) = child.read(stop)? {
            sha256.update(&piece);
            scan.push(&piece);
            gzip.write_all(&piece).map_err(broken)?;
            bytes += piece.len() as u64;
            on_bytes(piece.len() as u64);
        }
        let status = child.wait(stop)?;
        if !status.success() {
            return Err(explain(child.program(), status, &stderr.text(), self.connection));
        }

        let mut file = gzip.finish().and_then(|buffer| Ok(buffer.into_inner()?)).map_err(broken)?;
        let gzip_bytes = file.stream_position().map_err(broken)?;
        file.rewind().map_err(broken)?;
        Ok(Stream { gzip: file, gzip_bytes, bytes, sha256: sha256.finish(), found: scan.finish() })
    }

    /// What is not in the dump may have been dropped while it ran. It leaves
    /// the inventory then; what still exists makes the dump a failure.
    fn forgive_dropped(&self, found: &Found, inventory: &mut Inventory, now: &Inventory) -> Result<()> {
        inventory.databases.retain(|before| {
            found.databases.contains(&before.name)
                || now.databases.iter().any(|after| after.name == before.name)
        });
        inventory.roles.retain(|before| found.roles.contains(before) || now.roles.contains(before));
        let missing = missing(found, inventory);
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Error::failed(format!(
                "the dump of {} is incomplete: {} exists but is not in it",
                self.connection.shown(),
                missing.join(", ")
            ))
            .hint("run it again; if it stays so, run pg_dumpall by hand and look at its output")),
        }
    }
}

/// What came out of one run of the client.
struct Stream {
    gzip: File,
    gzip_bytes: u64,
    bytes: u64,
    sha256: Digest,
    found: Found,
}

fn missing(found: &Found, inventory: &Inventory) -> Vec<String> {
    let databases = inventory.dumped().map(|database| ("database", &database.name));
    let databases = databases.filter(|(_, name)| !found.databases.contains(name));
    let roles = inventory.roles.iter().filter(|name| !found.roles.contains(name)).map(|name| ("role", name));
    databases.chain(roles).map(|(kind, name)| format!("{kind} {name:?}")).collect()
}

/// `pg_dumpall` gives up half-way at such a name, with words that do not help.
fn refuse_line_breaks(inventory: &Inventory) -> Result<()> {
    match inventory.dumped().find(|database| database.name.contains(['\n', '\r'])) {
        None => Ok(()),
        Some(database) => Err(Error::failed(format!(
            "the name of database {:?} has a line break, and pg_dumpall cannot dump such a database",
            database.name
        ))
        .hint("give it another name: ALTER DATABASE … RENAME TO …")),
    }
}

#[cfg(test)]
#[path = "dump_tests.rs"]
mod tests;
