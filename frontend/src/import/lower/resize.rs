//! `Resize` and `Upsample`.
//!
//! What TOSA's RESIZE expresses exactly (the two spatial axes, nearest and linear, scales within its bounds)
//! becomes one. Everything else is a product with a constant matrix along each axis in turn, see
//! [`super::resample`]: a 1x1 convolution over that axis as channels, which is exact in every mode and which
//! the machine has a stage for. A nearest neighbour that copies a few runs of samples is cut and joined
//! instead.

use strata_ir::ElemType;
use strata_ir::attr::ResizeMode;
use tract_onnx::pb::tensor_proto::DataType;

use super::resample::{AxisScale, Coordinates, Kernel, Positions, Rounding, gcd};
use super::{Lowering, single};
use crate::import::array::Array;
use crate::import::emit::ResizeAxis;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::{Node, resolve_axis};
use crate::import::layout::{Value, View};

/// TOSA's bound of a scale's numerator.
const MAX_NUMERATOR: i64 = 1 << 11;
/// Runs of samples up to which copies are cut and joined rather than multiplied.
const MAX_RUNS: usize = 32;

/// The fraction of least denominator within float precision of `scale`.
fn as_fraction(scale: f32) -> Option<(i64, i64)> {
    (1..=MAX_NUMERATOR).find_map(|d| {
        let n = (f64::from(scale) * d as f64).round();
        let near = (n / d as f64 - f64::from(scale)).abs() <= 1e-7 * f64::from(scale);
        (near && n >= 1.0).then_some((n as i64, d))
    })
}

/// Everything that a node says of how to resize.
struct Resize<'a> {
    scales: Option<&'a [f32]>,
    sizes: Option<&'a [i64]>,
    roi: Option<&'a [f32]>,
    coordinates: Coordinates,
    kernel: Kernel,
    /// `stretch`, `not_larger` or `not_smaller`.
    aspect: String,
    antialias: bool,
    exclude_outside: bool,
    extrapolation: f32,
}

impl Resize<'_> {
    /// The axes of the input, those that are not resized among them.
    fn axes(&self, node: &Node<'_>, shape: &[usize]) -> Lowered<Vec<AxisScale>> {
        let rank = shape.len();
        let axes = match node.ints("axes")? {
            Some(axes) => axes.iter().map(|&a| resolve_axis(a, rank)).collect::<Lowered<Vec<_>>>()?,
            None => (0..rank).collect(),
        };
        let mut out: Vec<_> = shape.iter().map(|&n| AxisScale::kept(n)).collect();
        let n_given = self.scales.map_or(self.sizes.map_or(0, <[i64]>::len), <[f32]>::len);
        if n_given != axes.len() {
            invalid!("{n_given} scales or sizes for {} axes", axes.len());
        }
        // Output and input extent of the axis whose scale all axes share, to keep the aspect ratio.
        let mut shared = None;
        if let (Some(sizes), true) = (self.sizes, self.aspect != "stretch") {
            let ratios = axes.iter().zip(sizes).map(|(&axis, &size)| (size, shape[axis] as i64));
            let order = |a: &(i64, i64), b: &(i64, i64)| (a.0 * b.1).cmp(&(b.0 * a.1));
            shared = if self.aspect == "not_larger" { ratios.min_by(order) } else { ratios.max_by(order) };
        }
        for (place, &axis) in axes.iter().enumerate() {
            let entry = &mut out[axis];
            if let Some(scales) = self.scales {
                let scale = scales[place];
                if !(scale > 0.0 && scale < 65536.0) {
                    invalid!("scale {scale}");
                }
                entry.n_out = (entry.n_in as f32 * scale).floor() as i64;
                (entry.scale, entry.fraction) = (f64::from(scale), as_fraction(scale));
            } else if let Some(sizes) = self.sizes {
                let (size, extent) = shared.unwrap_or((sizes[place], entry.n_in));
                let common = gcd(size.max(1), extent);
                entry.scale = size as f64 / extent as f64;
                entry.fraction = Some((size / common, extent / common));
                // Half up, as ONNX rounds here.
                entry.n_out = if shared.is_none() {
                    size
                } else {
                    (2 * size * entry.n_in + extent).div_euclid(2 * extent)
                };
            }
            if !(1..=1 << 20).contains(&entry.n_out) {
                invalid!("an axis of extent {} resized to {}", entry.n_in, entry.n_out);
            }
            if self.coordinates == Coordinates::TfCropAndResize {
                match self.roi {
                    Some(roi) if roi.len() == 2 * axes.len() => {
                        entry.roi = [place, place + axes.len()].map(|at| f64::from(roi[at]));
                    }
                    _ => invalid!("tf_crop_and_resize needs a region of two numbers an axis"),
                }
            }
        }
        Ok(out)
    }

    /// Whether an axis stays as it is.
    fn keeps(&self, axis: &AxisScale) -> bool {
        axis.n_in == axis.n_out
            && axis.fraction == Some((1, 1))
            && (self.coordinates != Coordinates::TfCropAndResize || axis.roi == [0.0, 1.0])
    }

    /// TOSA's parameters for one axis, if it has any.
    fn tosa_axis(&self, s: &AxisScale) -> Option<ResizeAxis> {
        if self.keeps(s) {
            return Some(ResizeAxis {
                numerator: 1,
                denominator: 1,
                offset: 0,
                border: 0,
                n_out: s.n_out as usize,
            });
        }
        let rounding = match self.kernel {
            Kernel::Nearest(rounding) => Some(rounding),
            Kernel::Linear => None,
            Kernel::Cubic(_) => return None,
        };
        tosa_axis(s, s.positions(self.coordinates)?, rounding)
    }
}

/// TOSA's parameters for positions along one axis.
fn tosa_axis(s: &AxisScale, at: Positions, rounding: Option<Rounding>) -> Option<ResizeAxis> {
    let Positions { unit: n, step: d, offset: p } = at;
    if d == 0 {
        // One input sample is spread over the whole output.
        return within_bounds(ResizeAxis {
            numerator: s.n_out.max(1),
            denominator: 1,
            offset: 0,
            border: s.n_out - 1 - (s.n_in - 1) * s.n_out.max(1),
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
    within_bounds(ResizeAxis { numerator: n, denominator: d, offset: p, border, n_out: s.n_out as usize })
}

/// The parameters, if scale, offset and border are within TOSA's bounds.
fn within_bounds(axis: ResizeAxis) -> Option<ResizeAxis> {
    let ResizeAxis { numerator: n, denominator: d, offset, border, .. } = axis;
    let fits =
        n <= MAX_NUMERATOR && d < 16 * n && (-n..16 * n).contains(&offset) && (-16 * n..n).contains(&border);
    fits.then_some(axis)
}

/// `Resize`.
pub(super) fn resize(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let first = if node.opset < 11 { 1 } else { 2 };
    let optional = |index: usize, what: &str| -> Lowered<Option<&Array>> {
        // An empty tensor stands for an operand that is left out.
        Ok(node.optional_constant(index, what)?.filter(|array| array.len() > 0))
    };
    let scales = optional(first, "the scales")?.map(|a| a.as_floats()).transpose()?;
    let sizes = match node.opset {
        ..11 => None,
        _ => optional(3, "the sizes")?.map(|a| a.as_ints()).transpose()?,
    };
    // Operator set 10 had one coordinate mode.
    let coordinates = if node.opset < 11 { "asymmetric" } else { "half_pixel" };
    let coordinates = Coordinates::from_name(&node.string("coordinate_transformation_mode", coordinates)?)?;
    let roi = match (coordinates, node.opset) {
        (Coordinates::TfCropAndResize, 11..) => {
            optional(1, "the region")?.map(|a| a.as_floats()).transpose()?
        }
        _ => None,
    };
    let aspect = node.string("keep_aspect_ratio_policy", "stretch")?;
    if !["stretch", "not_larger", "not_smaller"].contains(&aspect.as_str()) {
        invalid!("keep_aspect_ratio_policy `{aspect}`");
    }
    if scales.is_none() == sizes.is_none() {
        invalid!("either scales or sizes have to be given");
    }
    let kernel = match node.string("mode", "nearest")?.as_str() {
        "nearest" => {
            let default = if node.opset < 11 { "floor" } else { "round_prefer_floor" };
            Kernel::Nearest(match node.string("nearest_mode", default)?.as_str() {
                "round_prefer_floor" => Rounding::HalfDown,
                "round_prefer_ceil" => Rounding::HalfUp,
                "floor" => Rounding::Floor,
                "ceil" => Rounding::Ceil,
                other => invalid!("nearest_mode `{other}`"),
            })
        }
        "linear" => Kernel::Linear,
        "cubic" => Kernel::Cubic(f64::from(node.float("cubic_coeff_a", -0.75)?)),
        other => invalid!("mode `{other}`"),
    };
    let antialias = node.flag("antialias", false)?;
    if antialias && matches!(kernel, Kernel::Nearest(_)) {
        unsupported!("antialias of nearest neighbours");
    }
    let resize = Resize {
        scales,
        sizes,
        roi,
        coordinates,
        kernel,
        aspect,
        antialias,
        exclude_outside: node.flag("exclude_outside", false)?,
        extrapolation: node.float("extrapolation_value", 0.0)?,
    };
    interpolate(lo, node, &resize)
}

/// `Upsample`, which older exporters wrote.
pub(super) fn upsample(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let scales = match node.floats("scales")? {
        Some(scales) => scales,
        None => node.constant(1, "the scales")?.as_floats()?,
    };
    let resize = Resize {
        scales: Some(scales),
        sizes: None,
        roi: None,
        coordinates: Coordinates::Asymmetric,
        kernel: match node.string("mode", "nearest")?.as_str() {
            "nearest" => Kernel::Nearest(Rounding::Floor),
            "linear" | "bilinear" => Kernel::Linear,
            other => invalid!("mode `{other}`"),
        },
        aspect: "stretch".to_owned(),
        antialias: false,
        exclude_outside: false,
        extrapolation: 0.0,
    };
    interpolate(lo, node, &resize)
}

fn interpolate(lo: &mut Lowering, node: &Node<'_>, resize: &Resize<'_>) -> Lowered<Vec<Value>> {
    let input = node.input(0)?;
    let dtype = input.dtype();
    // Integers of 8 bits that are only picked pass through floats exactly.
    let is_picked =
        matches!(dtype, DataType::Int8 | DataType::Uint8) && matches!(resize.kernel, Kernel::Nearest(_));
    if dtype != DataType::Float && !is_picked {
        unsupported!("on {dtype:?}");
    }
    let axes = resize.axes(node, input.shape())?;
    if axes.iter().all(|s| resize.keeps(s)) {
        return single(input.clone());
    }
    let mut view = lo.view(input)?;
    if is_picked {
        let float = lo.em.cast(view.value, ElemType::F32);
        view = view.with_value(float, DataType::Float);
    }
    let out = match by_tosa(lo, &view, &axes, resize) {
        Some(out) => out,
        None => {
            let out = by_matrices(lo, view, &axes, resize)?;
            lo.view(&out)?
        }
    };
    if !is_picked {
        return single(out);
    }
    let int = lo.em.cast(out.value, ElemType::I32);
    single(out.with_value(int, dtype))
}

/// One RESIZE, if TOSA's can express it: two axes at most change, side by side before the last one.
fn by_tosa(lo: &mut Lowering, view: &View, axes: &[AxisScale], resize: &Resize<'_>) -> Option<View> {
    let rank = axes.len();
    if resize.antialias && axes.iter().any(|s| s.scale < 1.0) || resize.exclude_outside {
        return None;
    }
    let changed: Vec<_> = (0..rank).filter(|&axis| !resize.keeps(&axes[axis])).collect();
    let perm = match (rank, &changed[..]) {
        (3, [axis]) => {
            vec![(0..3).find(|a| a != axis)?, *axis, (0..3).rfind(|a| a != axis)?]
        }
        (4, _) if changed.iter().all(|a| [2, 3].contains(a)) => vec![0, 2, 3, 1],
        (4, _) if changed.iter().all(|a| [1, 2].contains(a)) => vec![0, 1, 2, 3],
        _ => return None,
    };
    let shape = view.permuted_shape(&perm);
    let (ir_shape, both) = match shape[..] {
        [n, w, c] => {
            ([n, 1, w, c], [resize.tosa_axis(&AxisScale::kept(1))?, resize.tosa_axis(&axes[perm[1]])?])
        }
        [n, h, w, c] => {
            ([n, h, w, c], [resize.tosa_axis(&axes[perm[1]])?, resize.tosa_axis(&axes[perm[2]])?])
        }
        _ => return None,
    };
    let x = lo.in_order_as(view, &perm, &ir_shape);
    let mode = match resize.kernel {
        Kernel::Nearest(_) => ResizeMode::NearestNeighbor,
        _ => ResizeMode::Bilinear,
    };
    let out = lo.em.resize(x, both, mode);
    let shape = axes.iter().map(|s| s.n_out as usize).collect();
    Some(View::plain(out, shape, &perm, DataType::Float))
}

/// A product with a constant matrix, or cuts, along each axis that changes.
fn by_matrices(lo: &mut Lowering, mut view: View, axes: &[AxisScale], resize: &Resize<'_>) -> Lowered<Value> {
    let rank = axes.len();
    // For each sample of the output, whether it lies in the region that is read, by axis.
    let mut inside: Vec<Vec<bool>> = vec![vec![true]; rank];
    for axis in (0..rank).filter(|&axis| !resize.keeps(&axes[axis])) {
        let s = &axes[axis];
        let rows = s.weights(resize.coordinates, resize.kernel, resize.antialias, resize.exclude_outside)?;
        inside[axis] = rows.iter().map(Option::is_some).collect();
        if let Some(runs) = copied_runs(&rows) {
            view = lo.joined_runs(&view, axis, &runs);
            continue;
        }
        let (n_in, n_out) = (s.n_in as usize, s.n_out as usize);
        let mut matrix = vec![0.0; n_in * n_out];
        for (o, row) in rows.iter().enumerate() {
            for (i, &weight) in row.iter().flatten().enumerate() {
                matrix[i * n_out + o] = weight as f32;
            }
        }
        let mut perm: Vec<_> = (0..rank).filter(|&a| a != axis).collect();
        perm.push(axis);
        let inverse: Vec<_> =
            (0..rank).map(|a| perm.iter().position(|&p| p == a).unwrap_or_default()).collect();
        let matrix = Array::floats([n_in, n_out], matrix);
        let product = lo.linear(&view.transposed(&perm), &matrix, vec![0.0; n_out])?;
        view = lo.view(&product)?.transposed(&inverse);
    }
    if resize.extrapolation == 0.0 || inside.iter().flatten().all(|&read| read) {
        return Ok(view.into());
    }
    let mut outside = vec![true];
    for along in &inside {
        outside = outside.iter().flat_map(|&sofar| along.iter().map(move |&read| sofar && read)).collect();
    }
    let term = outside.iter().map(|&read| if read { 0.0 } else { resize.extrapolation }).collect();
    let term = Array::floats(inside.iter().map(Vec::len).collect::<Vec<_>>(), term);
    // Samples outside in one axis only still hold what the other axes gave.
    let mask = outside.iter().map(|&read| f32::from(u8::from(read))).collect();
    let mask = Array::floats(term.shape.clone(), mask);
    let masked = lo.align(&[view.into(), mask.into()])?;
    let product = lo.em.mul(masked.values[0], masked.values[1]);
    let filled = lo.align(&[masked.result(product, DataType::Float), term.into()])?;
    let sum = lo.em.add(filled.values[0], filled.values[1]);
    Ok(filled.result(sum, DataType::Float))
}

/// The runs `(start, extent)` of input samples whose copies, one after another, are the output; if there are
/// few.
fn copied_runs(rows: &[Option<Vec<f64>>]) -> Option<Vec<(usize, usize)>> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for row in rows {
        let row = row.as_ref()?;
        let from = row.iter().position(|&w| w != 0.0)?;
        if row[from] != 1.0 || row[from + 1..].iter().any(|&w| w != 0.0) {
            return None;
        }
        match runs.last_mut() {
            Some((start, n)) if *start + *n == from => *n += 1,
            _ => runs.push((from, 1)),
        }
    }
    (runs.len() <= MAX_RUNS).then_some(runs)
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
    fn nearest_neighbours_of_tosa_are_those_of_the_matrices() {
        let mut n_judged = 0;
        for (n_in, n_out) in [(4, 8), (8, 4), (5, 7), (7, 5), (3, 9), (6, 4)] {
            let common = gcd(n_out, n_in);
            let s = AxisScale {
                n_in,
                n_out,
                scale: n_out as f64 / n_in as f64,
                fraction: Some((n_out / common, n_in / common)),
                roi: [0.0, 1.0],
            };
            for coordinates in ["asymmetric", "half_pixel", "align_corners", "tf_half_pixel_for_nn"] {
                let coordinates = Coordinates::from_name(coordinates).expect("known");
                for rounding in [Rounding::Floor, Rounding::Ceil, Rounding::HalfUp, Rounding::HalfDown] {
                    let positions = s.positions(coordinates).expect("a fraction");
                    let Some(axis) = tosa_axis(&s, positions, Some(rounding)) else { continue };
                    n_judged += 1;
                    let rows = s.weights(coordinates, Kernel::Nearest(rounding), false, false);
                    for (o, row) in rows.expect("positions").into_iter().enumerate() {
                        let row = row.expect("inside");
                        let picked = sample(axis, o as i64, n_in) as usize;
                        assert_eq!(row[picked], 1.0, "{s:?} {coordinates:?} {rounding:?} at {o}");
                    }
                }
            }
        }
        assert!(n_judged >= 72, "only {n_judged} of 96 within TOSA's bounds");
    }
}
