//! Transformations and planning of Strata.
