//! Pools and resizes.

use strata_ir::attr::ResizeMode;
use strata_ir::dialect::{AvgPool2d, MaxPool2d, Resize};

use super::emitter::{Emitter, Kind, Layout, Real};
use super::proto::{Data, int, ints, string};
use super::site::{Site, finish};
use crate::export::ExportError;

fn geometry(kernel: [i64; 2], stride: [i64; 2], pad: [i64; 4]) -> Vec<super::pb::AttributeProto> {
    let [top, bottom, left, right] = pad;
    vec![ints("kernel_shape", kernel), ints("strides", stride), ints("pads", [top, left, bottom, right])]
}

/// AVG_POOL2D, which does not count what lies beyond the border.
pub(super) fn average(
    emitter: &mut Emitter<'_>,
    site: Site<'_>,
    pool: &AvgPool2d,
) -> Result<(), ExportError> {
    let (input_zp, output_zp) = (emitter.integer(site.operands[1])?, emitter.integer(site.operands[2])?);
    let input = emitter.real(site.operands[0], input_zp, Layout::Nchw)?;
    let attributes = geometry(pool.kernel, pool.stride, pool.pad);
    let name = emitter.node("AveragePool", vec![input.name.clone()], attributes);
    finish(emitter, site.result, Real { name, ..input }, output_zp)
}

/// MAX_POOL2D.
pub(super) fn maximum(
    emitter: &mut Emitter<'_>,
    site: Site<'_>,
    pool: &MaxPool2d,
) -> Result<(), ExportError> {
    let input = emitter.real(site.operands[0], 0, Layout::Nchw)?;
    let attributes = geometry(pool.kernel, pool.stride, pool.pad);
    let name = emitter.node("MaxPool", vec![input.name.clone()], attributes);
    finish(emitter, site.result, Real { name, ..input }, 0)
}

/// One axis of a resize: output position `o` samples input position `(o * step + offset) / unit`.
#[derive(Clone, Copy)]
struct Axis {
    from: usize,
    to: usize,
    unit: i64,
    step: i64,
    offset: i64,
}

impl Axis {
    /// The input position that is nearest to each output position; halves go to the higher one.
    fn nearest(self) -> Vec<i64> {
        let last = self.from as i64 - 1;
        let sample = |position: usize| {
            let at = position as i64 * self.step + self.offset;
            let up = i64::from(2 * at.rem_euclid(self.unit) >= self.unit);
            (at.div_euclid(self.unit) + up).clamp(0, last)
        };
        (0..self.to).map(sample).collect()
    }

    /// What ONNX calls the way in which positions correspond, where the output is as large as the scale says.
    fn transformation(self) -> Option<&'static str> {
        if self.to as i64 * self.step != self.from as i64 * self.unit {
            return None;
        }
        match self.offset {
            0 => Some("asymmetric"),
            // The input position is (o + 1/2) * step / unit - 1/2.
            offset if 2 * offset == self.step - self.unit => Some("half_pixel"),
            _ => None,
        }
    }
}

/// RESIZE. One to the nearest sample picks rows and columns, which any resize of ONNX is then free to round.
pub(super) fn resize(emitter: &mut Emitter<'_>, site: Site<'_>, op: &Resize) -> Result<(), ExportError> {
    let (scale, offset) = (emitter.integers(site.operands[1])?, emitter.integers(site.operands[2])?);
    let (&[y_unit, y_step, x_unit, x_step], &[y_offset, x_offset]) = (&scale[..], &offset[..]) else {
        return Err(emitter.unsupported("a resize without four scales and two offsets"));
    };
    let (from, to) = (emitter.shape(site.operands[0]), emitter.shape(site.result));
    let (&[_, in_h, in_w, _], &[n, out_h, out_w, channels]) = (from, to) else {
        return Err(emitter.unsupported("a resize that is not of four axes"));
    };
    if y_unit <= 0 || x_unit <= 0 {
        return Err(emitter.unsupported("a scale that is not positive"));
    }
    let rows = Axis { from: in_h, to: out_h, unit: y_unit, step: y_step, offset: y_offset };
    let columns = Axis { from: in_w, to: out_w, unit: x_unit, step: x_step, offset: x_offset };
    if op.mode == ResizeMode::NearestNeighbor {
        return nearest(emitter, site, rows, columns);
    }
    let input = emitter.real(site.operands[0], 0, Layout::Nchw)?;
    let transformation = match (rows.transformation(), columns.transformation()) {
        (Some(rows), Some(columns)) if rows == columns => rows,
        _ => return Err(emitter.unsupported("these scales and offsets of a bilinear resize")),
    };
    let sizes = [n, channels, out_h, out_w].map(|extent| extent as i64);
    let sizes = emitter.initializer("sizes", &[4], &Data::I64(sizes.to_vec()));
    let attributes = vec![string("mode", "linear"), string("coordinate_transformation_mode", transformation)];
    let none = String::new();
    let inputs = vec![input.name.clone(), none.clone(), none, sizes];
    let name = emitter.node("Resize", inputs, attributes);
    let steps = vec![input.steps[0] / (y_unit * x_unit) as f64];
    finish(emitter, site.result, Real { name, steps, ..input }, 0)
}

fn nearest(emitter: &mut Emitter<'_>, site: Site<'_>, rows: Axis, columns: Axis) -> Result<(), ExportError> {
    let input = emitter.stand(site.operands[0])?;
    let layout = input.native();
    let mut name = emitter.tensor(site.operands[0], layout)?;
    for (axis, of) in [(1, rows), (2, columns)] {
        let picked = of.nearest();
        if picked.iter().copied().eq(0..of.from as i64) {
            continue;
        }
        let indices = emitter.initializer("indices", &[picked.len()], &Data::I64(picked));
        let axis = super::site::axis_in(layout, axis) as i64;
        name = emitter.node("Gather", vec![name, indices], vec![int("axis", axis)]);
    }
    let kind: Kind = input.kind;
    emitter.define(site.result, kind, layout, name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Axis;

    #[test]
    fn axes_are_those_of_the_evaluator() {
        let twice = Axis { from: 2, to: 4, unit: 4, step: 2, offset: -1 };
        assert_eq!(twice.nearest(), [0, 0, 1, 1]);
        assert_eq!(twice.transformation(), Some("half_pixel"));
        let asymmetric = Axis { offset: 0, ..twice };
        assert_eq!(asymmetric.nearest(), [0, 1, 1, 1], "halves go up, and the border repeats");
        assert_eq!(asymmetric.transformation(), Some("asymmetric"));
        assert_eq!(Axis { to: 3, ..asymmetric }.transformation(), None);
    }
}
