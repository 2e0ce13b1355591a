//! Where an output takes its inputs from: the taps of a window, the neighbours of a resize.

/// The input coordinate of a tap, if it lies inside.
pub(super) fn tap(out: u32, k: u32, stride: u32, dilation: u32, pad: u32, extent: u32) -> Option<u32> {
    let at = i64::from(out) * i64::from(stride) + i64::from(k) * i64::from(dilation) - i64::from(pad);
    (0..i64::from(extent)).contains(&at).then_some(at as u32)
}

/// The input coordinate that reaches output `out` of a transposed convolution through tap `k`, if any.
pub(super) fn tap_transposed(out: u32, k: u32, pad: i32, step: u32, extent: u32) -> Option<u32> {
    let at = i64::from(out) - i64::from(pad) - i64::from(k);
    let inside = at >= 0 && at % i64::from(step) == 0 && at / i64::from(step) < i64::from(extent);
    inside.then(|| (at / i64::from(step)) as u32)
}

/// Both neighbours of an output coordinate of a resize, and the distance from the first, in units of `1/n`.
pub(super) fn sample(out: i64, d: i32, n: i32, offset: i32, extent: u32) -> (usize, usize, i32) {
    let position = out * i64::from(d) + i64::from(offset);
    let at = position.div_euclid(i64::from(n));
    let rest = position.rem_euclid(i64::from(n)) as i32;
    let clamp = |v: i64| v.clamp(0, i64::from(extent) - 1) as usize;
    (clamp(at), clamp(at + 1), rest)
}
