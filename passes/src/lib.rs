//! Transformations and planning of Strata.

pub mod manager;
