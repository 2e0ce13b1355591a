//! Code generation of Strata.
