//! First rows of tensors that are in SRAM where the rest is not.
//!
//! | module | what it holds |
//! |---|---|
//! | [`prefixes`] | first rows that stay where the rest of a tensor does not |
//! | [`prefetch`] | first rows of what a phase loads, brought by the phase before |

pub mod prefetch;
pub mod prefixes;
