//! What goes into a snapshot, and how each kind is read without being torn:
//! plain files, SQLite databases, PostgreSQL clusters.

pub mod file;
pub mod metadata;
pub mod postgres;
pub mod sqlite;
