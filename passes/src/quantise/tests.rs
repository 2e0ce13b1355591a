//! Quantised networks against the f32 ones they came from.
