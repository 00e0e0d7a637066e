//! One script to `psql`, whole or not at all.

use super::child::{Child, Pipes};
use super::client::Client;
use super::complaint::explain;
use super::connection::Connection;
use super::stderr::Stderr;
use crate::error::Result;
use crate::stop::Stop;

/// The longest answer, in bytes: about 100,000 databases.
const ANSWER_MAX: usize = 32 * 1024 * 1024;

/// What `sql` answers, in UTF-8, unaligned and without headings. It goes in
/// through stdin because it may hold a password's hash, and it stops at the
/// first error.
pub(super) fn ask(client: &Client, connection: &Connection, sql: &str, stop: &Stop) -> Result<Vec<u8>> {
    let mut command = client.command("psql", connection);
    command.env("PGCLIENTENCODING", "UTF8");
    command.args(["-X", "-q", "-w", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
    let stderr = Stderr::default();
    let record = stderr.clone();
    let mut child =
        Child::spawn(command, Pipes { stdin: true, stdout: true }, move |bytes| record.push(bytes))?;
    // When psql is gone already, its status says why.
    let _ = child.feed(sql.as_bytes().to_vec(), stop)?;
    child.close_stdin();
    let answer = child.read_all(ANSWER_MAX, stop)?;
    let status = child.wait(stop)?;
    match status.success() {
        true => Ok(answer),
        false => Err(explain(child.program(), status, &stderr.text(), connection)),
    }
}
