//! Sets of stages, evaluated as phases.
//!
//! | module | what it holds |
//! |---|---|
//! | [`candidate`] | a set of stages, evaluated as a phase |
//! | [`pool`] | the sets that may be chosen, evaluated when they are asked for |
//! | [`shapes`] | sets that cost the same |
//! | [`interchangeable`] | stages whose order makes no difference |
//! | [`partition`] | division of the array among stages |
//! | [`in_place`] | which tensors may be written in the very bytes of others |

pub mod candidate;
pub mod in_place;
pub mod interchangeable;
pub mod partition;
pub mod pool;
pub mod shapes;
