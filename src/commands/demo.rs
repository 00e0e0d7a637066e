//! `demo`
use crate::commands::Run;
use crate::error::Result;
use serde::Serialize;
/// Report
#[derive(Serialize)]
pub struct Report {
    /// x
    pub identical: bool,
    /// x
    pub entries: u64,
    /// x
    pub rows: u64,
    /// x
    pub steps: Vec<Step>,
    /// x
    pub notes: Vec<String>,
    /// x
    pub differences: Vec<String>,
}
/// Step
#[derive(Serialize)]
pub struct Step {
    /// x
    pub what: String,
    /// x
    pub seconds: f64,
}
/// Demo
pub async fn demo(_to: Option<&str>, _run: &Run) -> Result<Report> {
    Ok(Report { identical: false, entries: 0, rows: 0, steps: vec![], notes: vec![], differences: vec![] })
}
