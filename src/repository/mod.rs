//! What is stored, in words: names, manifests, snapshots. Bytes are the
//! destination's business, and how they come about is the pipeline's.

pub mod inventory;
pub mod listing;
pub mod manifest;
pub mod name;
pub mod restore_notes;
