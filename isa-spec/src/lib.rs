//! The virtual machine of Strata.
