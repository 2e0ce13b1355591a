//! Matrix products. With a constant right side they are convolutions: the fully connected layer of a
//! classifier takes its input in whatever order the convolutions before it left it.

use strata_ir::ValueId;
use tract_onnx::pb::tensor_proto::DataType;

use super::{Lowering, single};
use crate::import::array::{Array, broadcast_shape};
use crate::import::emit::Window;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;
use crate::import::layout::{Value, View};

/// A window of one element.
pub(super) const POINT: Window = Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pads: [0; 4] };

impl Lowering {
    /// `x · weight + bias` over the last axis of `x`; `weight` is `[K, M]`.
    pub(super) fn linear(&mut self, x: &View, weight: &Array, bias: Vec<f32>) -> Lowered<Value> {
        let &[k, m] = &weight.shape[..] else { invalid!("a matrix is needed, not {:?}", weight.shape) };
        let last = x.shape.len() - 1;
        if x.shape[last] != k {
            invalid!("{:?} times {:?}", x.shape, weight.shape);
        }
        let mut out_shape = x.shape.clone();
        out_shape[last] = m;
        let n_rows: usize = x.shape[..last].iter().product();
        let bias = self.em.floats([m], bias);
        let factored = x.axis_factors(last).filter(|(factors, _)| n_rows == 1 && factors.len() > 1);
        if let Some((mut shape, order)) = factored {
            // The rows of the weight follow the data, so that the data need not move.
            shape.push(m);
            let mut perm = vec![order.len()];
            perm.extend(&order);
            let weight = weight.reshaped(shape).transposed(&perm);
            return self.whole_input_conv(x, weight, bias, out_shape);
        }
        let identity: Vec<_> = (0..=last).collect();
        // Rows lie along one spatial axis, or keep the two that they have.
        let ir_shape = match x.shape[..] {
            [n, h, w, c] => vec![n, h, w, c],
            [b, t, c] => vec![b, 1, t, c],
            _ => vec![n_rows, 1, 1, k],
        };
        let input = self.in_order_as(x, &identity, &ir_shape);
        let weight = self.em.array(weight.transposed(&[1, 0]).into_shape([m, 1, 1, k]))?;
        let out = self.em.conv2d(input, weight, bias, &POINT);
        Ok(View::plain(out, out_shape, &identity, DataType::Float).into())
    }

    /// A fully connected layer on a single row that lies in memory as an image does: a kernel as large as the
    /// image.
    fn whole_input_conv(
        &mut self,
        x: &View,
        weight: Array,
        bias: ValueId,
        out_shape: Vec<usize>,
    ) -> Lowered<Value> {
        let m = weight.shape[0];
        let k: usize = weight.shape[1..].iter().product();
        let ir_shape = self.em.shape(x.value).to_vec();
        let out = match ir_shape[..] {
            [1, h, w, c] => {
                let weight = self.em.array(weight.into_shape([m, h, w, c]))?;
                self.em.conv2d(x.value, weight, bias, &Window { kernel: [h as i64, w as i64], ..POINT })
            }
            _ => {
                let input = self.em.reshape(x.value, &[1, 1, 1, k]);
                let weight = self.em.array(weight.into_shape([m, 1, 1, k]))?;
                self.em.conv2d(input, weight, bias, &POINT)
            }
        };
        let identity: Vec<_> = (0..out_shape.len()).collect();
        Ok(View::plain(out, out_shape, &identity, DataType::Float).into())
    }

    /// The product of two run-time tensors, their leading axes broadcast.
    pub(super) fn batched(&mut self, a: &View, b: &View) -> Lowered<Value> {
        let (ra, rb) = (a.shape.len(), b.shape.len());
        let (m, k, n) = (a.shape[ra - 2], a.shape[ra - 1], b.shape[rb - 1]);
        if b.shape[rb - 2] != k {
            invalid!("{:?} times {:?}", a.shape, b.shape);
        }
        let lead = broadcast_shape([&a.shape[..ra - 2], &b.shape[..rb - 2]])?;
        let n_batch: usize = lead.iter().product();
        let mut side = |view: &View, rows: usize, columns: usize| {
            let own = &view.shape[..view.shape.len() - 2];
            let data = self.external(view);
            if own.iter().product::<usize>() == n_batch {
                return self.em.reshape(data, &[n_batch, rows, columns]);
            }
            let mut padded = vec![1; lead.len() - own.len()];
            padded.extend(own);
            let multiples: Vec<_> =
                lead.iter().zip(&padded).map(|(want, have)| want / have).chain([1, 1]).collect();
            padded.extend([rows, columns]);
            let data = self.em.reshape(data, &padded);
            let data = self.em.tile(data, &multiples);
            self.em.reshape(data, &[n_batch, rows, columns])
        };
        let (left, right) = (side(a, m, k), side(b, k, n));
        let out = self.em.matmul(left, right);
        let shape = [&lead[..], &[m, n]].concat();
        let identity: Vec<_> = (0..shape.len()).collect();
        Ok(View::plain(out, shape, &identity, DataType::Float).into())
    }
}

fn want_floats(operands: &[&Value]) -> Lowered<()> {
    match operands.iter().find(|o| o.dtype() != DataType::Float) {
        Some(other) => unsupported!("on {:?}", other.dtype()),
        None => Ok(()),
    }
}

/// `MatMul`, with vectors as ONNX (NumPy) takes them.
pub(super) fn matmul(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    want_floats(&[a, b])?;
    if a.shape().is_empty() || b.shape().is_empty() {
        invalid!("a product of scalars");
    }
    if let (Value::View(x), Value::Const(weight)) = (a, b)
        && weight.shape.len() == 2
    {
        let bias = vec![0.0; weight.shape[1]];
        return single(lo.linear(x, weight, bias)?);
    }
    let as_matrix = |lo: &mut Lowering, value: &Value, column: bool| -> Lowered<View> {
        let view = lo.view(value)?;
        let n = view.shape[0];
        match view.shape.len() {
            1 => Ok(view.reshaped(&if column { [n, 1] } else { [1, n] }).unwrap_or(view)),
            _ => Ok(view),
        }
    };
    let (left, right) = (as_matrix(lo, a, false)?, as_matrix(lo, b, true)?);
    let product = lo.batched(&left, &right)?;
    let mut shape = product.shape().to_vec();
    if b.shape().len() == 1 {
        shape.pop();
    }
    if a.shape().len() == 1 {
        shape.remove(shape.len() - if b.shape().len() == 1 { 1 } else { 2 });
    }
    let view = lo.view(&product)?;
    match view.reshaped(&shape) {
        Some(view) => single(view),
        None => invalid!("a product of shape {shape:?}"),
    }
}

/// `Gemm`: `alpha * A' · B' + beta * C`.
pub(super) fn gemm(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    want_floats(&[a, b])?;
    if a.shape().len() != 2 || b.shape().len() != 2 {
        invalid!("{:?} times {:?}", a.shape(), b.shape());
    }
    let (alpha, beta) = (node.float("alpha", 1.0)?, node.float("beta", 1.0)?);
    let mut left = lo.view(a)?;
    if node.flag("transA", false)? {
        left = left.transposed(&[1, 0]);
    }
    let transpose_b = node.flag("transB", false)?;
    let c = node.optional_input(2);
    if let Value::Const(weight) = b {
        let weight = if transpose_b { weight.transposed(&[1, 0]) } else { weight.as_ref().clone() };
        let weight = if alpha == 1.0 {
            weight
        } else {
            Array::floats(weight.shape.clone(), weight.as_floats()?.iter().map(|v| v * alpha).collect())
        };
        let m = weight.shape[1];
        // A bias for the columns goes into the convolution.
        let row = match c {
            Some(Value::Const(c)) if c.len() == 1 || (c.len() == m && c.shape.last() == Some(&m)) => {
                Some(c.reshaped([c.len()]).broadcast_to(&[m]).as_floats()?.iter().map(|v| v * beta).collect())
            }
            _ => None,
        };
        let folded = row.is_some();
        let product = lo.linear(&left, &weight, row.unwrap_or_else(|| vec![0.0; m]))?;
        return if folded { single(product) } else { add_scaled(lo, product, c, beta) };
    }
    let mut right = lo.view(b)?;
    if transpose_b {
        right = right.transposed(&[1, 0]);
    }
    let product = lo.batched(&left, &right)?;
    let product = if alpha == 1.0 { product } else { lo.map(&product, |em, x| em.scale(x, alpha))? };
    add_scaled(lo, product, c, beta)
}

fn add_scaled(lo: &mut Lowering, product: Value, c: Option<&Value>, beta: f32) -> Lowered<Vec<Value>> {
    let Some(c) = c.filter(|_| beta != 0.0) else { return single(product) };
    let aligned = lo.align(&[product, c.clone()])?;
    let mut term = aligned.values[1];
    if beta != 1.0 {
        term = lo.em.scale(term, beta);
    }
    let out = lo.em.add(aligned.values[0], term);
    single(aligned.result(out, DataType::Float))
}
