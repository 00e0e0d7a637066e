//! The sample's PostgreSQL cluster, and a fingerprint of everything in one.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Result;
use crate::sources::postgres::Cluster;
use crate::stop::Stop;

const ROLES: &str = "CREATE ROLE tenant_owner LOGIN PASSWORD 'demo';
CREATE ROLE auditor NOLOGIN;
CREATE ROLE reader NOLOGIN IN ROLE auditor;
CREATE DATABASE tenants OWNER tenant_owner;
CREATE DATABASE rbac;";

const TENANTS: &str = "CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL, plan text);
INSERT INTO tenants SELECT g, 'tenant ' || g, (ARRAY['free','team','whole'])[g % 3 + 1] FROM generate_series(1, 1200) g;
CREATE TABLE events (id bigserial PRIMARY KEY, tenant int REFERENCES tenants, note text);
INSERT INTO events (tenant, note) SELECT g % 1200 + 1, E'odd \\\\ chars \\t and ''quotes'' ' || md5(g::text) FROM generate_series(1, 3000) g;
GRANT SELECT ON tenants TO reader;";

const RBAC: &str = "CREATE TABLE grants (subject text, action text, allowed boolean);
INSERT INTO grants SELECT 'agent-' || g, 'read', g % 7 <> 0 FROM generate_series(1, 800) g;";

/// Tables of one database with their row count and a hash over all rows.
const TABLES: &str = "SELECT schemaname || '.' || tablename || ' ' ||
  (xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM %I.%I', schemaname, tablename), false, true, '')))[1]::text || ' ' ||
  coalesce((xpath('/row/h/text()', query_to_xml(format('SELECT md5(string_agg(t::text, E''\\n'' ORDER BY t::text)) AS h FROM %I.%I t', schemaname, tablename), false, true, '')))[1]::text, '-')
FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1;";

const ALL_ROLES: &str =
    "SELECT rolname || ' ' || rolcanlogin || ' ' || coalesce(md5(rolpassword), '-') FROM pg_authid
WHERE rolname !~ '^pg_' ORDER BY 1;";

/// A throwaway cluster of the story.
pub(super) struct Database {
    cluster: Cluster,
}

/// What a cluster holds: a line for each role, and for each table with its rows.
pub(super) struct Fingerprint {
    lines: BTreeMap<String, String>,
    pub(super) rows: u64,
}

impl Database {
    /// A cluster with two databases, three roles and a few thousand rows.
    pub(super) fn filled(scratch: &Path, stop: &Stop) -> Result<Self> {
        let database = Self::empty(scratch, stop)?;
        for (name, sql) in [("postgres", ROLES), ("tenants", TENANTS), ("rbac", RBAC)] {
            database.cluster.sql(name, sql, stop)?;
        }
        Ok(database)
    }

    /// A cluster with nothing in it.
    pub(super) fn empty(scratch: &Path, stop: &Stop) -> Result<Self> {
        Ok(Self { cluster: Cluster::start(scratch, "postgres", stop)? })
    }

    pub(super) fn url(&self) -> String {
        self.cluster.url()
    }

    /// Everything in it. A database that is missing is an error.
    pub(super) fn fingerprint(&self, stop: &Stop) -> Result<Fingerprint> {
        let mut lines = BTreeMap::new();
        let mut rows = 0;
        for role in self.cluster.sql("postgres", ALL_ROLES, stop)?.lines() {
            let (name, rest) = role.split_once(' ').unwrap_or((role, ""));
            lines.insert(format!("role {name}"), rest.to_owned());
        }
        for database in ["tenants", "rbac"] {
            for table in self.cluster.sql(database, TABLES, stop)?.lines() {
                let mut words = table.split(' ');
                let name = words.next().unwrap_or_default();
                let rest: Vec<&str> = words.collect();
                rows += rest.first().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
                lines.insert(format!("table {database}.{name}"), rest.join(" "));
            }
        }
        Ok(Fingerprint { lines, rows })
    }
}

impl Fingerprint {
    /// A sentence for everything that is not the same in `after`.
    pub(super) fn differences(&self, after: &Self) -> Vec<String> {
        let keys = self.lines.keys().chain(after.lines.keys());
        let mut found: Vec<String> = keys
            .filter(|key| self.lines.get(*key) != after.lines.get(*key))
            .map(|key| format!("{key}: {:?}, was {:?}", after.lines.get(key), self.lines.get(key)))
            .collect();
        found.dedup();
        found
    }
}
