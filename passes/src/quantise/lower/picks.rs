//! Indices of one axis in any order: reversals, and gathers at constant indices. Few runs of them are slices,
//! joined; many are a product with a matrix of ones and zeros, which is exact.

use strata_ir::dialect::{Concat, Conv2d, Slice, Transpose};
use strata_ir::{Op, Tensor, TensorData, ValueId};

use crate::quantise::QuantParams;
use crate::quantise::lower::{Lowering, NOT_EXPECTED, Quantised, accumulator};
use crate::quantise::weights::QuantWeights;

/// Runs of indices up to which data are cut and joined.
const MAX_RUNS: usize = 16;
/// Elements of the greatest matrix that picks.
const MAX_MATRIX: usize = 1 << 20;

/// Indices that follow one another.
struct Run {
    start: usize,
    extent: usize,
}

/// Maximal runs of consecutive indices.
fn runs_of(indices: &[usize]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &index in indices {
        match runs.last_mut() {
            Some(run) if run.start + run.extent == index => run.extent += 1,
            _ => runs.push(Run { start: index, extent: 1 }),
        }
    }
    runs
}

impl Lowering<'_> {
    /// The axis along which an op picks, and the indices that it picks there, if it is such an op.
    pub(super) fn picks(&self, op: &Op, operands: &[ValueId]) -> Option<(usize, Vec<usize>)> {
        let shape = self.shape(operands[0]);
        match op {
            Op::Reverse(reverse) => {
                let axis = usize::try_from(reverse.axis).ok()?;
                Some((axis, (0..*shape.get(axis)?).rev().collect()))
            }
            Op::Gather(_) if shape.first() == Some(&1) => {
                let indices = self.plan.constant(operands[1])?.data().to_ints()?;
                let extent = *shape.get(1)?;
                let indices: Option<Vec<usize>> = indices
                    .into_iter()
                    .map(|at| usize::try_from(at).ok().filter(|&at| at < extent))
                    .collect();
                Some((1, indices?))
            }
            _ => None,
        }
    }

    /// The given indices of one axis of a value.
    pub(super) fn picked(
        &mut self,
        input: Quantised,
        axis: usize,
        indices: &[usize],
    ) -> Result<Quantised, &'static str> {
        let runs = runs_of(indices);
        if runs.len() <= MAX_RUNS {
            return Ok(Quantised { value: self.joined(input, axis, &runs), ..input });
        }
        let shape = self.new_shape(input.value);
        let (n, m) = (shape[axis], indices.len());
        if n.saturating_mul(m) > MAX_MATRIX {
            return Err("it picks from too many elements in too many pieces");
        }
        let outer: usize = shape[..axis].iter().product();
        let inner: usize = shape[axis + 1..].iter().product();
        let rows = self.reshape(input.value, &[outer, n, inner]);
        let rows = self.turned(rows);
        let image = Quantised { value: self.reshape(rows, &[1, outer, inner, n]), ..input };
        let made = self.selected(image, indices, [1, outer, inner, m])?;
        let rows = self.reshape(made.value, &[outer, inner, m]);
        let rows = self.turned(rows);
        let mut out = shape;
        out[axis] = m;
        Ok(Quantised { value: self.reshape(rows, &out), ..input })
    }

    /// Runs of indices of one axis, one after another.
    fn joined(&mut self, input: Quantised, axis: usize, runs: &[Run]) -> ValueId {
        let shape = self.new_shape(input.value);
        let elem = input.params.elem;
        let mut parts = Vec::new();
        for run in runs {
            let (mut start, mut size) = (vec![0; shape.len()], shape.clone());
            (start[axis], size[axis]) = (run.start as i64, run.extent);
            let begin = self.constant(Tensor::new([start.len()], TensorData::Index(start)));
            let extents = size.iter().map(|&extent| extent as i64).collect();
            let extents = self.constant(Tensor::new([size.len()], TensorData::Index(extents)));
            parts.push(self.append(Slice {}, &[input.value, begin, extents], &size, elem));
        }
        if let [only] = parts[..] {
            return only;
        }
        let mut joined = shape;
        joined[axis] = runs.iter().map(|run| run.extent).sum();
        self.append(Concat { axis: axis as i32 }, &parts, &joined, elem)
    }

    /// The last two axes of three exchanged.
    fn turned(&mut self, value: ValueId) -> ValueId {
        let shape = self.new_shape(value);
        let elem = self.module.tensor_ty(value).elem;
        let shape = [shape[0], shape[2], shape[1]];
        self.append(Transpose { perms: vec![0, 2, 1] }, &[value], &shape, elem)
    }

    /// The given channels of an image: a pointwise convolution with one weight of 1 for each.
    fn selected(
        &mut self,
        image: Quantised,
        channels: &[usize],
        shape: [usize; 4],
    ) -> Result<Quantised, &'static str> {
        let n = *self.new_shape(image.value).last().ok_or(NOT_EXPECTED)?;
        let m = channels.len();
        let mut matrix = vec![0; m * n];
        for (row, &channel) in channels.iter().enumerate() {
            matrix[row * n + channel] = 1;
        }
        let acc_type = accumulator(image.params);
        let no_bias = TensorData::from_ints(acc_type, vec![0; m]).ok_or(NOT_EXPECTED)?;
        let weights = QuantWeights {
            weight: Tensor::i8([m, 1, 1, n], matrix),
            zero_point: 0,
            bias: Tensor::new([m], no_bias),
            scales: vec![1.0; m],
            bounds: vec![image.params.reach(); m],
        };
        let (pad, stride, dilation, local_bound) = ([0; 4], [1, 1], [1, 1], false);
        let op = Conv2d { pad, stride, dilation, acc_type, local_bound };
        let params: QuantParams = image.params;
        self.accumulate(op.into(), image, weights, &shape, params)
    }
}
