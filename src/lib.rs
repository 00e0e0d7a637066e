//! `offsite`: an encrypted offsite backup agent for the few megabytes that
//! cannot be lost. This page is the map of the crate.
//!
//! ```text
//! select -> archive -> seal -> transfer -> destination        (backup)
//! unpack <- archive <- open <- transfer <- destination        (restore)
//! ```
//!
//! A backup walks the tier-1 paths ([`pipeline::select`]), reads them without
//! tearing ([`sources`]), packs them into a pax tar ([`pipeline::archive`]),
//! seals it in Fernet tokens ([`pipeline::seal`]) and stores one object
//! ([`pipeline::transfer`], [`destination`]). A restore checks every byte
//! ([`pipeline::unpack`]) in a folder beside the target ([`pipeline::staging`])
//! before it touches the target ([`pipeline::commit`]).
//!
//! What it promises:
//! 1. Nothing leaves the machine unsealed; no secret is printed or logged.
//! 2. A snapshot is either completely there or not listed as a snapshot.
//! 3. A stored object is never overwritten.
//! 4. A run that lacks something required is *degraded* and says so everywhere.
//! 5. A restore touches the target only after everything has been checked.
//!
//! Imports point one way: [`cli`], [`commands`], [`pipeline`] and [`sources`],
//! [`repository`], [`destination`]. [`config`], [`key`], [`secret`] and
//! [`error`] are leaves. A test holds the crate to it.
//!
//! A key's id, which may be known, is derived from the key, which may not:
//!
//! ```
//! let key: offsite::key::MasterKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse()?;
//! assert_eq!(key.id().to_string(), "4405f0eb");
//! # Ok::<(), offsite::error::Error>(())
//! ```

pub mod cli;
pub mod commands;
pub mod config;
pub mod destination;
pub mod error;
pub mod gzip;
pub mod key;
pub mod pipeline;
pub mod progress;
pub mod repository;
pub mod scratch;
pub mod secret;
pub mod sources;
pub mod stop;
pub mod workers;
