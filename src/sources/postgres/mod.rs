//! PostgreSQL clusters: what is in one, dumping it, loading the dump, and a
//! throwaway cluster to prove that it loads.
//!
//! Everything goes through PostgreSQL's own client programs, because what they
//! write is what they can read without us. They are run by one file
//! (`child.rs`), get their connection only through their environment
//! (`connection.rs`), and are believed only after their exit status, the dump's
//! end marker and the inventory agree.
//!
//! ```text
//! dump: pg_dumpall -> scan, hash, gzip -> unlinked temporary file
//! load: dump -> hold back our own role -> psql -> sort its complaints -> compare inventories
//! ```

mod child;
pub mod client;
pub mod cluster;
mod complaint;
pub mod connection;
pub mod dump;
mod globals;
pub mod inventory;
pub mod load;
mod psql_errors;
mod query;
mod scan;
mod stderr;
#[cfg(test)]
mod testing;

pub use client::{Client, for_server, installed, psql_at_least};
pub use cluster::{Cluster, server_installed};
pub use connection::Connection;
pub use dump::{Dump, dump};
pub use inventory::read;
pub use load::{Expected, Loaded, check_target, load};
