//! What differs between two compiles, plans or dumps: the data behind `strata diff`.
//!
//! | module | what it does |
//! |---|---|
//! | [`view`] | reads a plan off whatever says something of one: programs, plans in the IR, statistics |
//! | [`figures`] | the figures of a plan, under stable keys |
//! | [`plans`] | two plans: figures, phases, stages, streams, weights |
//! | [`ops`] | two modules: ops that were added, removed, changed and moved |
//! | [`text`] | two texts of a module, line by line |
//!
//! Two plans number their phases each in its own way, so phases are matched first, one to one, those that
//! have most stages in common before others. A stage has moved if it is in phases that are not the same.

pub mod figures;
pub mod ops;
pub mod plans;
pub mod text;
pub mod view;
