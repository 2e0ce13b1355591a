//! Transformations and planning of Strata.
pub mod allocate;
pub mod manager;

pub mod plan;
pub mod quantise;
pub mod stages;
