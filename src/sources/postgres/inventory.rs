//! Asks a cluster what it holds.

use serde::Deserialize;

use super::client::{Client, installed};
use super::connection::Connection;
use super::query::ask;
use crate::error::{Error, Result};
use crate::repository::inventory::{Database, Inventory};
use crate::stop::Stop;

/// One JSON object, so that names with quotes and line breaks survive. The
/// size of a database that the role may not connect to is an error when asked
/// for, hence 0. A `datconnlimit` of -2 marks a half-dropped database, which
/// `pg_dumpall` leaves out like one without connections. Role 10 is the one that
/// `initdb` makes; memberships among PostgreSQL's own roles are not dumped.
const QUESTION: &str = r#"
SELECT pg_catalog.json_build_object(
  'version', pg_catalog.current_setting('server_version'),
  'version_num', pg_catalog.current_setting('server_version_num')::int,
  'user', session_user,
  'superuser', (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
  'databases', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', d.datname,
      'owner', coalesce(r.rolname, ''),
      'encoding', pg_catalog.pg_encoding_to_char(d.encoding),
      'size_bytes', CASE WHEN pg_catalog.has_database_privilege(d.oid, 'CONNECT')
                         THEN coalesce(pg_catalog.pg_database_size(d.oid), 0) ELSE 0 END,
      'connectable', d.datallowconn AND d.datconnlimit <> -2)
      ORDER BY d.datname)
    FROM pg_catalog.pg_database d LEFT JOIN pg_catalog.pg_roles r ON r.oid = d.datdba
    WHERE d.datname <> 'template0'),
  'roles', (SELECT pg_catalog.json_agg(rolname ORDER BY rolname)
    FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_'),
  'bootstrap_role', (SELECT rolname FROM pg_catalog.pg_roles WHERE oid = 10),
  'bootstrap_grants', EXISTS (SELECT FROM pg_catalog.pg_auth_members m
    JOIN pg_catalog.pg_roles r ON r.oid = m.member WHERE m.grantor = 10 AND r.rolname !~ '^pg_'));
"#;

/// What a cluster answered: its inventory, and who we are to it.
pub(super) struct Answer {
    pub(super) inventory: Inventory,
    /// The role that the connection logs in as.
    pub(super) user: String,
    pub(super) superuser: bool,
}

#[derive(Deserialize)]
struct Row {
    version: String,
    version_num: u32,
    user: String,
    superuser: Option<bool>,
    databases: Option<Vec<Database>>,
    roles: Option<Vec<String>>,
    bootstrap_role: Option<String>,
    bootstrap_grants: bool,
}

/// What the cluster holds, in one query by the newest `psql` there is. Fails
/// when there is none, or the cluster cannot be reached.
pub fn read(connection: &Connection, stop: &Stop) -> Result<Inventory> {
    let clients = installed();
    read_with(newest(&clients)?, connection, stop).map(|answer| answer.inventory)
}

/// The newest `psql` speaks to every server.
pub(super) fn newest(clients: &[Client]) -> Result<&Client> {
    clients.last().ok_or_else(|| {
        Error::failed("no psql and pg_dumpall are installed").hint("apt-get install postgresql-client")
    })
}

pub(super) fn read_with(psql: &Client, connection: &Connection, stop: &Stop) -> Result<Answer> {
    let json = ask(psql, connection, QUESTION, stop)?;
    // Names in a SQL_ASCII cluster may be in any encoding.
    let row: Row = serde_json::from_str(&String::from_utf8_lossy(&json))
        .map_err(|e| Error::failed(format!("cannot read the inventory of {}: {e}", connection.shown())))?;
    Ok(Answer {
        inventory: Inventory {
            server_version: row.version,
            server_major: row.version_num / 10_000,
            databases: row.databases.unwrap_or_default(),
            roles: row.roles.unwrap_or_default(),
            bootstrap_role: row.bootstrap_role.unwrap_or_default(),
            bootstrap_grants: row.bootstrap_grants,
        },
        user: row.user,
        superuser: row.superuser.unwrap_or(false),
    })
}
