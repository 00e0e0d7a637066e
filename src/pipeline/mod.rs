//! The stages of a backup and, read from bottom to top, of a restore:
//!
//! ```text
//! select -> archive -> seal -> transfer -> destination        (backup)
//! unpack <- archive <- open <- transfer <- destination        (restore)
//! ```
//!
//! Each stage is blocking code that reads and writes streams; only `transfer`
//! meets the network.

pub mod archive;
pub mod commit;
pub mod pack;
pub mod seal;
pub mod select;
pub mod staging;
pub mod transfer;
pub mod unpack;
