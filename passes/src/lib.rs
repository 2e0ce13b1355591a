//! The passes that decide: how a network is quantised, which ops compute it, and which layers run together.
//!
//! | module | what it holds | takes → gives |
//! |---|---|---|
//! | [`canonicalise`] | constants folded, what changes nothing removed | import, quant |
//! | [`equalise`] | channels scaled so that they quantise better | import |
//! | [`quantise`] | calibration and exact integer arithmetic | import → quant |
//! | [`rewrite`] | integer-exact rewrites by equality saturation | quant |
//! | [`fuse`] | which stages run together, on which clusters, what stays on chip | stages → phases |
//!
//! [`testing`] runs files that test passes, and is for passes of others too.
//!
//! Passes do no IO and hold no state. What the machine can run, at what cost and at which addresses, the
//! [backend](strata_backend) tells.

pub mod canonicalise;
pub mod equalise;
pub mod fuse;
pub mod quantise;
pub mod rewrite;
pub mod testing;

#[cfg(test)]
mod tests;

use strata_ir::pass::{PassInfo, Registry};

/// The passes of this crate.
pub static PASSES: &[&PassInfo] = &[
    &canonicalise::CANONICALISE,
    &equalise::EQUALISE,
    &quantise::QUANTISE,
    &rewrite::REWRITE_TOSA,
    &fuse::FUSE_LAYERS,
];

/// All passes of Strata, those of the backend too. Passes of your own come [with](Registry::with) them.
pub fn registry() -> Registry {
    Registry::new(PASSES.iter().chain(strata_backend::PASSES).copied())
}
