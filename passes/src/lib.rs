//! Transformations and planning of Strata.
pub mod allocate;
pub mod canonicalise;
pub mod manager;

pub mod plan;
pub mod quantise;
pub mod schedule;
pub mod stages;
