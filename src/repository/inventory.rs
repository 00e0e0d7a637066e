//! What a PostgreSQL cluster holds: recorded when it is dumped, compared when
//! it is loaded. Pure data, written into the manifest as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The databases and roles of one cluster at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// The server's own words, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: String,
    /// The server's major version, such as 15.
    pub server_major: u32,
    /// Every database but `template0`, sorted by name.
    pub databases: Vec<Database>,
    /// Every role but PostgreSQL's own (`pg_…`), sorted by name.
    pub roles: Vec<String>,
    /// The superuser that `initdb` made; empty when unknown.
    #[serde(default)]
    pub bootstrap_role: String,
    /// Whether a role's membership in another was granted by the bootstrap
    /// role. Servers from 16 on then load the dump without errors only if their
    /// own bootstrap role has the same name.
    #[serde(default)]
    pub bootstrap_grants: bool,
}

impl Inventory {
    /// The databases that a dump contains: `pg_dumpall` leaves out the ones
    /// that accept no connections.
    pub fn dumped(&self) -> impl Iterator<Item = &Database> {
        self.databases.iter().filter(|database| database.connectable)
    }
}

/// One database of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Database {
    /// Its name, which may hold any character.
    pub name: String,
    /// The role that owns it.
    pub owner: String,
    /// The server's name of its encoding, such as `UTF8`.
    pub encoding: String,
    /// Its size on the server's disk in bytes; 0 when the role that asked may
    /// not know.
    pub size_bytes: u64,
    /// Whether it accepts connections. One that does not is not in any dump.
    pub connectable: bool,
}

/// The version of the `psql` that reads a dump. In the order of releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PsqlVersion {
    /// The major version, such as 15.
    pub major: u32,
    /// The minor version, such as 14.
    pub minor: u32,
}

impl fmt::Display for PsqlVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_any_character_survive_json() {
        let inventory = Inventory {
            server_version: "15.18".into(),
            server_major: 15,
            databases: vec![Database {
                name: "a\n\"b\"".into(),
                owner: "ünï".into(),
                encoding: "UTF8".into(),
                size_bytes: 7,
                connectable: true,
            }],
            roles: vec!["o'dd".into()],
            bootstrap_role: "postgres".into(),
            bootstrap_grants: true,
        };
        let json = serde_json::to_string(&inventory).unwrap();
        assert_eq!(serde_json::from_str::<Inventory>(&json).unwrap(), inventory);
        let first = r#"{"server_version":"15.18","server_major":15,"databases":[],"roles":[]}"#;
        assert!(!serde_json::from_str::<Inventory>(first).unwrap().bootstrap_grants);
    }

    #[test]
    fn versions_sort_like_releases() {
        let version = |major, minor| PsqlVersion { major, minor };
        assert!(version(15, 9) < version(15, 14));
        assert!(version(15, 14) < version(16, 0));
        assert_eq!(version(15, 14).to_string(), "15.14");
    }
}
