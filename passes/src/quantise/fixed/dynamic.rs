//! Products of integers, and activations whose scale is computed from the data (`DynamicQuantizeLinear`).
//!
//! An exporter's dynamically quantised layer is `q, s, z = quantise(x)`, an integer product of `q` and the
//! weights with the zero point `z`, and a multiplication by `s` times the weights' scales. The machine has no
//! scales at run time: the layer becomes the product of `x`, whose range is calibrated like any other's, and
//! the weights, which keep their integers and scales; `s` and `z` are then not computed at all. With a scale
//! and zero point that are known the same rewriting is exact.

use std::sync::Arc;

use strata_ir::dialect::{Cast, Conv2d, Mul, Reshape, Sub};
use strata_ir::{ElemType, Op, Tensor, TensorData, ValueId};

use crate::quantise::fixed::{Raw, Real, Rewriting, Step, Zero, scalar};

/// A convolution of reals and of weights that are integers.
#[derive(Clone, Debug)]
pub(in crate::quantise) struct Product {
    op: Op,
    input: ValueId,
    weight: Arc<Tensor>,
    zero_point: i64,
    /// Extents of the convolution's result.
    conv_shape: Vec<usize>,
    /// Extents after reshapes, which keep the last axis.
    shape: Vec<usize>,
}

impl Product {
    /// For each output channel the sum of its weights, less their zero points.
    fn weight_sums(&self) -> Option<Vec<i64>> {
        let weights = self.weight.as_i8()?;
        let n = *self.conv_shape.last()?;
        let per_channel = weights.len() / n.max(1);
        let mut sums = vec![0; n];
        for (at, &w) in weights.iter().enumerate() {
            let channel = if matches!(self.op, Op::DepthwiseConv2d(_)) { at % n } else { at / per_channel };
            sums[channel] += i64::from(w) - self.zero_point;
        }
        Some(sums)
    }
}

/// A product whose weights have scales, one for all or one for each output channel, and a bias.
#[derive(Clone, Debug)]
pub(in crate::quantise) struct Scaled {
    product: Product,
    scales: Vec<f32>,
    bias: Vec<f32>,
}

impl Rewriting<'_, '_> {
    fn emit_product(&mut self, scaled: Scaled) -> ValueId {
        let Scaled { product, scales, bias } = &scaled;
        let shape = product.weight.shape().to_vec();
        let stored = self.constant(Tensor::clone(&product.weight));
        let mut real = self.append(Cast {}, &[stored], &shape, ElemType::F32);
        if product.zero_point != 0 {
            let zero = self.constant(Tensor::f32(vec![1; shape.len()], vec![product.zero_point as f32]));
            real = self.append(Sub {}, &[real, zero], &shape, ElemType::F32);
        }
        let n = product.conv_shape.last().copied().unwrap_or(1);
        let scale_shape = match (scales.len(), &product.op) {
            (1, _) => vec![1; shape.len()],
            (_, Op::DepthwiseConv2d(_)) => vec![1, 1, shape[2], shape[3]],
            _ => vec![n, 1, 1, 1],
        };
        let scales = self.constant(Tensor::f32(scale_shape, scales.clone()));
        let shift = self.constant(Tensor::i8([1], vec![0]));
        let weight = self.append(Mul {}, &[real, scales, shift], &shape, ElemType::F32);
        let bias = self.constant(Tensor::f32([n], bias.clone()));
        let zero = self.constant(Tensor::f32([1], vec![0.0]));
        let mut op = product.op.clone();
        match &mut op {
            Op::Conv2d(op) => op.acc_type = ElemType::F32,
            Op::DepthwiseConv2d(op) => op.acc_type = ElemType::F32,
            _ => {}
        }
        let operands = [product.input, weight, bias, zero, zero];
        let out = self.append(op, &operands, &product.conv_shape, ElemType::F32);
        let out = self.reshaped(out, &product.shape);
        self.scaled_products.insert(out, scaled);
        out
    }

    fn reshaped(&mut self, value: ValueId, shape: &[usize]) -> ValueId {
        if self.shape(value) == shape {
            return value;
        }
        let extents = shape.iter().map(|&extent| extent as i64).collect();
        let extents = self.constant(Tensor::new([shape.len()], TensorData::Index(extents)));
        self.append(Reshape {}, &[value, extents], shape, ElemType::F32)
    }

    /// Emits a product of the integers as they are.
    pub(super) fn product(&mut self, product: &Product) -> ValueId {
        let n = product.conv_shape.last().copied().unwrap_or(1);
        self.emit_product(Scaled { product: product.clone(), scales: vec![1.0], bias: vec![0.0; n] })
    }

    /// What an old value is computed from, through reshapes.
    fn root(&self, mut value: ValueId) -> ValueId {
        while let Some((Op::Reshape(_), operands)) = self.def(value) {
            value = operands[0];
        }
        value
    }

    /// The zero point that an old value holds: a number, or one computed from the data.
    fn zero_of(&self, value: ValueId) -> Option<Zero> {
        if let Some(zero) = scalar(self.module, value) {
            return Some(Zero::Known(zero as i64));
        }
        let (mut value, mut term) = (value, 0);
        loop {
            match self.def(value) {
                Some((Op::Reshape(_), operands)) => value = operands[0],
                Some((Op::Cast(_), operands)) => {
                    // The zero point is itself a cast, of a float.
                    if self.module.tensor_ty(operands[0]).elem == ElemType::F32 {
                        return Some(Zero::Dynamic(value, term));
                    }
                    value = operands[0];
                }
                Some((Op::Add(_), operands)) => {
                    term += scalar(self.module, operands[1])? as i64;
                    value = operands[0];
                }
                Some((Op::Sub(_), operands)) => {
                    term -= scalar(self.module, operands[1])? as i64;
                    value = operands[0];
                }
                _ => return None,
            }
        }
    }

    /// A real that is about to be cast to integers: `x / s` with an `s` computed from the data.
    pub(super) fn dynamic_rounding(&mut self, steps: ValueId) -> Option<Raw> {
        let (x, inverse) = self.quotient(steps)?;
        let (Op::Reciprocal(_), &[step]) = self.def(inverse)? else { return None };
        let is_one = self.module.tensor_ty(step).n_elements() == 1;
        if !is_one || scalar(self.module, step).is_some() || self.raws.contains_key(&x) {
            return None;
        }
        let step = Step::Dynamic(self.root(step));
        // The least value times the inverse is the zero point, no activation.
        if self.module.tensor_ty(x).n_elements() == 1 {
            return None;
        }
        let real = self.reals.get(&x).copied()?;
        Some(Raw { real: Real::Value(real), step, zero: Zero::Known(0) })
    }

    /// An integer plus a zero point that is computed from the data.
    pub(super) fn dynamic_zero(&self, raw: &Raw, term: ValueId) -> Option<Raw> {
        match (raw.zero, self.zero_of(term)?) {
            (Zero::Known(0), zero @ Zero::Dynamic(..)) => Some(Raw { zero, ..raw.clone() }),
            _ => None,
        }
    }

    /// An integer less its zero point that is computed from the data.
    pub(super) fn without_zero(&self, raw: &Raw, term: ValueId) -> Option<Raw> {
        (self.zero_of(term)? == raw.zero).then(|| Raw { zero: Zero::Known(0), ..raw.clone() })
    }

    /// The product that an integer convolution or matrix product with constant weights is, or a reshape of
    /// one.
    pub(super) fn product_of(
        &mut self,
        kind: &Op,
        operands: &[ValueId],
        raw: &Raw,
        result: ValueId,
    ) -> Option<Raw> {
        let shape = self.shape(result);
        if let (Op::Reshape(_), Real::Product(product)) = (kind, &raw.real) {
            let keeps_channels = shape.last() == product.shape.last();
            let product = Box::new(Product { shape, ..Product::clone(product) });
            return keeps_channels.then(|| Raw { real: Real::Product(product), ..raw.clone() });
        }
        if let (Op::Sub(_), Real::Product(product)) = (kind, &raw.real) {
            return self.corrected(raw, product, operands[1]);
        }
        let constant = |value: ValueId| self.module.constant(value).map(|e| Arc::clone(&e.tensor));
        let (zero, weight_zero) = match kind {
            Op::Conv2d(_) | Op::DepthwiseConv2d(_) => (operands[3], operands[4]),
            Op::MatMul(_) => (operands[2], operands[3]),
            _ => return None,
        };
        let weight = constant(operands[1]).filter(|weight| weight.as_i8().is_some())?;
        let zero_point = scalar(self.module, weight_zero)? as i64;
        // A zero point that is computed is taken out of the product afterwards.
        let is_pending = matches!(raw.zero, Zero::Dynamic(..)) && self.zero_of(zero)? == Zero::Known(0);
        if !is_pending && self.zero_of(zero)? != raw.zero {
            return None;
        }
        let input = self.real(raw);
        let product = match kind {
            Op::MatMul(_) => {
                // A product with a constant matrix is a pointwise convolution, which has room for a bias.
                let &[1, rows, n] = &shape[..] else { return None };
                let data = weight.as_i8()?;
                let depth = data.len() / n.max(1);
                let turned = (0..data.len()).map(|at| data[at % depth * n + at / depth]).collect();
                let (acc_type, local_bound) = (ElemType::F32, false);
                let op = Conv2d { pad: [0; 4], stride: [1, 1], dilation: [1, 1], acc_type, local_bound };
                Product {
                    op: op.into(),
                    input: self.reshape_rows(input, rows, depth),
                    weight: Arc::new(Tensor::i8([n, 1, 1, depth], turned)),
                    zero_point,
                    conv_shape: vec![1, rows, 1, n],
                    shape,
                }
            }
            _ => Product { op: kind.clone(), input, weight, zero_point, conv_shape: shape.clone(), shape },
        };
        let zero = if is_pending { raw.zero } else { Zero::Known(0) };
        Some(Raw { real: Real::Product(Box::new(self.with_padding(product))), step: raw.step, zero })
    }

    /// Takes padding with 0 before a convolution into it.
    fn with_padding(&self, mut product: Product) -> Product {
        let Some((Op::Pad(_), &[input, amounts, value])) = self.def(product.input) else { return product };
        let amounts = self.module.constant(amounts).and_then(|e| e.tensor.data().to_ints());
        let Some(&[0, 0, top, bottom, left, right, 0, 0]) = amounts.as_deref() else { return product };
        let pad = match &mut product.op {
            Op::Conv2d(op) => &mut op.pad,
            Op::DepthwiseConv2d(op) => &mut op.pad,
            _ => return product,
        };
        if scalar(self.module, value) == Some(0.0) {
            pad.iter_mut().zip([top, bottom, left, right]).for_each(|(pad, more)| *pad += more);
            product.input = input;
        }
        product
    }

    /// A product less its zero point, computed from the data, times the sums of the weights.
    fn corrected(&self, raw: &Raw, product: &Product, excess: ValueId) -> Option<Raw> {
        let (Op::Mul(_), &[zero, sums, _]) = self.def(excess)? else { return None };
        let sums = self.module.constant(sums)?.tensor.data().to_ints()?;
        let is_excess = self.zero_of(zero)? == raw.zero && sums == product.weight_sums()?;
        is_excess.then(|| Raw { zero: Zero::Known(0), ..raw.clone() })
    }

    /// `[1, rows, depth]` as an image. Its integers and its range are those of the rows.
    fn reshape_rows(&mut self, value: ValueId, rows: usize, depth: usize) -> ValueId {
        let image = self.reshaped(value, &[1, rows, 1, depth]);
        self.same_integers(value, image);
        image
    }

    /// A product's integers times its step and the weights' scales.
    pub(super) fn scaled_product(
        &mut self,
        product: &Product,
        step: Step,
        factor: ValueId,
        result: ValueId,
    ) -> Option<ValueId> {
        if self.shape(result) != product.shape {
            return None;
        }
        let constant = |this: &Self, value: ValueId| {
            let tensor = &this.module.constant(value)?.tensor;
            this.channel_values(tensor, product)
        };
        let scales = match step {
            Step::Known(step) => {
                let factors = constant(self, factor)?;
                factors.iter().map(|&f| (f64::from(f) / step) as f32).collect()
            }
            Step::Dynamic(step) => {
                let factor = self.root(factor);
                if factor == step {
                    vec![1.0]
                } else {
                    let (Op::Mul(_), &[a, b, _]) = self.def(factor)? else { return None };
                    match (self.root(a) == step, self.root(b) == step) {
                        (true, _) => constant(self, b)?,
                        (_, true) => constant(self, a)?,
                        _ => return None,
                    }
                }
            }
        };
        let bias = vec![0.0; *product.shape.last()?];
        Some(self.emit_product(Scaled { product: product.clone(), scales, bias }))
    }

    /// A constant as one number, or one for each channel of a product's result.
    fn channel_values(&self, tensor: &Tensor, product: &Product) -> Option<Vec<f32>> {
        let values = tensor.as_f32()?;
        let n = *product.shape.last()?;
        let along_last = tensor.shape().last() == Some(&n) && values.len() == n;
        (values.len() == 1 || along_last).then(|| values.to_vec())
    }

    /// A sum or product of a scaled product, which has no other use, and a constant: its bias or its scales.
    pub(super) fn folded(&mut self, kind: &Op, operands: &[ValueId]) -> Option<ValueId> {
        if !matches!(kind, Op::Add(_) | Op::Mul(_)) {
            return None;
        }
        let is_constant = |value: ValueId| self.module.constant(value).is_some();
        let (base, constant) = match (is_constant(operands[0]), is_constant(operands[1])) {
            (false, true) => (operands[0], operands[1]),
            (true, false) => (operands[1], operands[0]),
            _ => return None,
        };
        if self.n_uses.get(&base) != Some(&1) {
            return None;
        }
        let Scaled { product, mut scales, mut bias } =
            self.scaled_products.get(self.reals.get(&base)?)?.clone();
        let n = *product.shape.last()?;
        let spread = |values: Vec<f32>| if values.len() == 1 { vec![values[0]; n] } else { values };
        let values = spread(self.channel_values(&self.module.constant(constant)?.tensor, &product)?);
        if matches!(kind, Op::Add(_)) {
            bias.iter_mut().zip(&values).for_each(|(bias, value)| *bias += value);
        } else {
            scales = spread(scales);
            scales.iter_mut().zip(&values).for_each(|(scale, value)| *scale *= value);
            bias.iter_mut().zip(&values).for_each(|(bias, value)| *bias *= value);
        }
        // A scale that is not positive has no integers.
        scales.iter().all(|&scale| scale > 0.0).then(|| self.emit_product(Scaled { product, scales, bias }))
    }
}
