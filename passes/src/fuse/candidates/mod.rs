//! Sets of stages, evaluated as phases.
//!
//! | module | what it holds |
//! |---|---|
//! | [`columns`] | sets of stages evaluated as phases |
//! | [`offered`] | sets as columns, evaluated when they are asked for |
//! | [`shapes`] | sets that cost the same |
//! | [`twins`] | stages whose order makes no difference |
//! | [`partition`] | division of the array among stages |
//! | [`in_place`] | which tensors may be written in the very bytes of others |

pub mod columns;
pub mod in_place;
pub mod offered;
pub mod partition;
pub mod shapes;
pub mod twins;
