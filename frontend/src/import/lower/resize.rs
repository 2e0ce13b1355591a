//! `Resize` and `Upsample`, in the coordinate modes that TOSA's RESIZE can express exactly: positions are rational
//! numbers `(oy * denominator + offset) / numerator`.

use strata_ir::attr::ResizeMode;
use tract_onnx::pb::tensor_proto::DataType;

use super::{Lowering, single};
use crate::import::emit::ResizeAxis;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;
use crate::import::layout::Value;

/// TOSA's bound of a scale's numerator.
const MAX_NUMERATOR: i64 = 1 << 11;

/// How a nearest neighbour is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounding {
    HalfDown,
    HalfUp,
    Floor,
    Ceil,
}

/// Output extent and the factor between the coordinates, as a fraction.
#[derive(Clone, Copy, Debug)]
struct AxisScale {
    n_in: i64,
    n_out: i64,
    numerator: i64,
    denominator: i64,
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The fraction of least denominator within float precision of `scale`.
fn as_fraction(scale: f32) -> Option<(i64, i64)> {
    (1..=MAX_NUMERATOR).find_map(|d| {
        let n = (f64::from(scale) * d as f64).round();
        let near = (n / d as f64 - f64::from(scale)).abs() <= 1e-7 * f64::from(scale);
        (near && n >= 1.0).then_some((n as i64, d))
    })
}

/// Scales of all axes, from `scales` or `sizes`.
fn axis_scales(
    node: &Node<'_>,
    shape: &[usize],
    scales: Option<&[f32]>,
    sizes: Option<&[i64]>,
) -> Lowered<Vec<AxisScale>> {
    let rank = shape.len();
    let axes = match node.ints("axes")? {
        Some(axes) => {
            axes.iter().map(|&a| crate::import::graph::resolve_axis(a, rank)).collect::<Lowered<Vec<_>>>()?
        }
        None => (0..rank).collect(),
    };
    let mut out: Vec<_> = shape
        .iter()
        .map(|&n| AxisScale { n_in: n as i64, n_out: n as i64, numerator: 1, denominator: 1 })
        .collect();
    let n_given = scales.map_or(sizes.map_or(0, <[i64]>::len), <[f32]>::len);
    if n_given != axes.len() {
        invalid!("{n_given} scales or sizes for {} axes", axes.len());
    }
    for (place, &axis) in axes.iter().enumerate() {
        let entry = &mut out[axis];
        if let Some(scales) = scales {
            let scale = scales[place];
            if !(scale > 0.0 && scale < 65536.0) {
                invalid!("scale {scale}");
            }
            let Some((numerator, denominator)) = as_fraction(scale) else { unsupported!("scale {scale}") };
            entry.n_out = (entry.n_in as f32 * scale).floor() as i64;
            (entry.numerator, entry.denominator) = (numerator, denominator);
        } else if let Some(sizes) = sizes {
            entry.n_out = sizes[place];
            let common = gcd(entry.n_out.max(1), entry.n_in);
            (entry.numerator, entry.denominator) = (entry.n_out / common, entry.n_in / common);
        }
        if !(1..=1 << 20).contains(&entry.n_out) {
            invalid!("an axis of extent {} resized to {}", entry.n_in, entry.n_out);
        }
    }
    Ok(out)
}

/// TOSA's parameters for one axis.
fn resize_axis(s: AxisScale, coordinates: &str, rounding: Option<Rounding>) -> Lowered<ResizeAxis> {
    // Position of output o: (o * d + p) / n.
    let (n, d, p) = match coordinates {
        "asymmetric" => (s.numerator, s.denominator, 0),
        "half_pixel" | "pytorch_half_pixel" if s.n_out == 1 && coordinates == "pytorch_half_pixel" => {
            (1, 1, 0)
        }
        "half_pixel" | "pytorch_half_pixel" => {
            (2 * s.numerator, 2 * s.denominator, s.denominator - s.numerator)
        }
        "half_pixel_symmetric" if s.n_out * s.denominator == s.n_in * s.numerator => {
            (2 * s.numerator, 2 * s.denominator, s.denominator - s.numerator)
        }
        "align_corners" if s.n_out * s.denominator != s.n_in * s.numerator => {
            // ONNX's reference takes the fractional extent here, onnxruntime the whole one.
            unsupported!("align_corners with a scale that does not divide the extent")
        }
        "align_corners" if s.n_out == 1 => (1, 1, 0),
        "align_corners" => {
            let common = gcd(s.n_out - 1, s.n_in - 1).max(1);
            ((s.n_out - 1) / common, (s.n_in - 1) / common, 0)
        }
        "tf_half_pixel_for_nn" => (2 * s.numerator, 2 * s.denominator, s.denominator),
        other => unsupported!("coordinate_transformation_mode `{other}`"),
    };
    if d == 0 {
        // One input sample is spread over the whole output.
        return axis_within_bounds(ResizeAxis {
            numerator: s.n_out.max(1),
            denominator: 1,
            offset: 0,
            border: s.n_out - 1,
            n_out: s.n_out as usize,
        });
    }
    // TOSA rounds a half up. Other roundings are that one of shifted positions, in steps of half a unit.
    let (n, d, p) = match rounding {
        None | Some(Rounding::HalfUp) => (n, d, p),
        Some(Rounding::HalfDown) => (2 * n, 2 * d, 2 * p - 1),
        Some(Rounding::Floor) => (2 * n, 2 * d, 2 * p - n),
        Some(Rounding::Ceil) => (2 * n, 2 * d, 2 * p + n - 2),
    };
    let common = gcd(gcd(n, d), p.abs());
    let (n, d, p) = (n / common, d / common, p / common);
    let border = (s.n_out - 1) * d - (s.n_in - 1) * n + p;
    axis_within_bounds(ResizeAxis {
        numerator: n,
        denominator: d,
        offset: p,
        border,
        n_out: s.n_out as usize,
    })
}

/// TOSA's bounds of scale, offset and border.
fn axis_within_bounds(axis: ResizeAxis) -> Lowered<ResizeAxis> {
    let ResizeAxis { numerator: n, denominator: d, offset, border, .. } = axis;
    let fits =
        n <= MAX_NUMERATOR && d < 16 * n && (-n..16 * n).contains(&offset) && (-16 * n..n).contains(&border);
    if !fits {
        unsupported!("a scale of {n}/{d} with offset {offset} and border {border}, beyond TOSA's RESIZE");
    }
    Ok(axis)
}

/// `Resize`.
pub(super) fn resize(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let first = if node.opset < 11 { 1 } else { 2 };
    let optional = |index: usize, what: &str| -> Lowered<Option<&crate::import::array::Array>> {
        // An empty tensor stands for an operand that is left out.
        Ok(node.optional_constant(index, what)?.filter(|array| array.len() > 0))
    };
    let scales = optional(first, "the scales")?.map(|a| a.as_floats()).transpose()?;
    let sizes = match node.opset {
        ..11 => None,
        _ => optional(3, "the sizes")?.map(|a| a.as_ints()).transpose()?,
    };
    if node.string("keep_aspect_ratio_policy", "stretch")? != "stretch" {
        unsupported!("keep_aspect_ratio_policy");
    }
    if node.flag("antialias", false)? {
        unsupported!("antialias");
    }
    if scales.is_none() && sizes.is_none() {
        invalid!("neither scales nor sizes are given");
    }
    // Operator set 10 had one coordinate mode.
    let coordinates = if node.opset < 11 { "asymmetric" } else { "half_pixel" };
    let coordinates = node.string("coordinate_transformation_mode", coordinates)?;
    let nearest =
        node.string("nearest_mode", if node.opset < 11 { "floor" } else { "round_prefer_floor" })?;
    interpolate(lo, node, scales, sizes, &coordinates, &nearest)
}

/// `Upsample`, which older exporters wrote.
pub(super) fn upsample(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let scales = match node.floats("scales")? {
        Some(scales) => scales,
        None => node.constant(1, "the scales")?.as_floats()?,
    };
    interpolate(lo, node, Some(scales), None, "asymmetric", "floor")
}

fn interpolate(
    lo: &mut Lowering,
    node: &Node<'_>,
    scales: Option<&[f32]>,
    sizes: Option<&[i64]>,
    coordinates: &str,
    nearest: &str,
) -> Lowered<Vec<Value>> {
    let input = node.input(0)?;
    let rank = input.shape().len();
    if !(3..=4).contains(&rank) || input.dtype() != DataType::Float {
        unsupported!("on rank {rank} and {:?}", input.dtype());
    }
    let axes = axis_scales(node, input.shape(), scales, sizes)?;
    let is_kept = |s: &AxisScale| s.n_in == s.n_out && s.numerator == s.denominator;
    if axes.iter().all(is_kept) {
        return single(input.clone());
    }
    let (mode, rounding) = match node.string("mode", "nearest")?.as_str() {
        "nearest" => {
            let rounding = match nearest {
                "round_prefer_floor" => Rounding::HalfDown,
                "round_prefer_ceil" => Rounding::HalfUp,
                "floor" => Rounding::Floor,
                "ceil" => Rounding::Ceil,
                other => invalid!("nearest_mode `{other}`"),
            };
            (ResizeMode::NearestNeighbor, Some(rounding))
        }
        "linear" | "bilinear" => (ResizeMode::Bilinear, None),
        other => unsupported!("mode `{other}`"),
    };
    // NHWC models resize axes 1 and 2; what matters is that two axes at most change.
    let view = lo.view(input)?;
    let changed: Vec<_> = (0..rank).filter(|&axis| !is_kept(&axes[axis])).collect();
    let perm = match (rank, &changed[..]) {
        (3, [axis]) => {
            vec![(0..3).find(|a| a != axis).unwrap_or(0), *axis, (0..3).rfind(|a| a != axis).unwrap_or(0)]
        }
        (4, _) if changed.iter().all(|a| [2, 3].contains(a)) => vec![0, 2, 3, 1],
        (4, _) if changed.iter().all(|a| [1, 2].contains(a)) => vec![0, 1, 2, 3],
        _ => unsupported!("axes {changed:?} of rank {rank} at once"),
    };
    let kept = ResizeAxis { numerator: 1, denominator: 1, offset: 0, border: 0, n_out: 1 };
    let parameters = |axis: usize| {
        if is_kept(&axes[axis]) {
            Ok(ResizeAxis { n_out: axes[axis].n_out as usize, ..kept })
        } else {
            resize_axis(axes[axis], coordinates, rounding)
        }
    };
    let shape = view.permuted_shape(&perm);
    let (ir_shape, both) = match shape[..] {
        [n, w, c] => ([n, 1, w, c], [kept, parameters(perm[1])?]),
        [n, h, w, c] => ([n, h, w, c], [parameters(perm[1])?, parameters(perm[2])?]),
        _ => unsupported!("rank {rank}"),
    };
    let x = lo.in_order_as(&view, &perm, &ir_shape);
    let out = lo.em.resize(x, both, mode);
    let shape = axes.iter().map(|s| s.n_out as usize).collect();
    single(crate::import::layout::View::plain(out, shape, &perm, DataType::Float))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TOSA's nearest sample of output `o`, clamped to the input.
    fn sample(axis: ResizeAxis, o: i64, n_in: i64) -> i64 {
        let position = o * axis.denominator + axis.offset;
        let (whole, rest) = (position.div_euclid(axis.numerator), position.rem_euclid(axis.numerator));
        (whole + i64::from(2 * rest >= axis.numerator)).clamp(0, n_in - 1)
    }

    #[test]
    fn nearest_roundings_are_exact() {
        for (n_in, n_out) in [(4, 8), (8, 4), (5, 7), (7, 5), (3, 9), (6, 4)] {
            let common = gcd(n_out, n_in);
            let s = AxisScale { n_in, n_out, numerator: n_out / common, denominator: n_in / common };
            for o in 0..n_out {
                // Half-pixel position times 2 * n_out, an integer.
                let twice = (2 * o + 1) * n_in - n_out;
                let unit = 2 * n_out;
                let (floor, rest) = (twice.div_euclid(unit), twice.rem_euclid(unit));
                let expected = [
                    (Rounding::Floor, floor),
                    (Rounding::Ceil, floor + i64::from(rest > 0)),
                    (Rounding::HalfUp, floor + i64::from(2 * rest >= unit)),
                    (Rounding::HalfDown, floor + i64::from(2 * rest > unit)),
                ];
                for (rounding, want) in expected {
                    if let Ok(axis) = resize_axis(s, "half_pixel", Some(rounding)) {
                        assert_eq!(
                            sample(axis, o, n_in),
                            want.clamp(0, n_in - 1),
                            "{s:?} {rounding:?} at {o}"
                        );
                    }
                }
            }
        }
    }
}
