//! The ONNX graph under construction: nodes, initialisers, and what stands for each value of the module.
//!
//! An `i8` or `i16` value is a quantised tensor of ONNX. Whoever computes with it dequantises it, by the
//! *step* of the value, which is what one of its units stands for, and the zero point that the reading op
//! names. A value of 32 or 48 bits, which ONNX does not quantise to, is a tensor of floats: its integers
//! times its steps, one for all or one a channel. Only the steps of inputs and outputs are known; all others
//! are free, since every scale of the module is a ratio of two of them, and are chosen so that rescales need
//! no product.
//!
//! A tensor of four axes may stand in NHWC, as the module has it, in NCHW, as ONNX's windows take it, or
//! both; it is transposed where it is asked for in the other order.

use std::collections::BTreeMap;

use strata_frontend::proto::pb::{AttributeProto, NodeProto, TensorProto};
use strata_ir::{ElemType, Module, Tensor, ValueId};

use super::proto::{Data, ints, node, tensor};
use crate::export::ExportError;

/// The order of a tensor's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layout {
    /// As the module has them; channels last.
    Module,
    /// Of four axes, channels second.
    Nchw,
}

/// What the elements of a value are in ONNX.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// The integers themselves; a unit stands for `step`.
    Quantised { step: f64 },
    /// The integers times their steps: one, or one for each index of the last axis.
    Real { steps: Vec<f64> },
    /// Truth values.
    Truth,
}

/// What stands for a value.
#[derive(Clone, Debug)]
pub(super) struct Stand {
    pub(super) kind: Kind,
    /// Its tensor in each order in which there is one.
    names: BTreeMap<Layout, String>,
}

impl Stand {
    /// The order in which it was computed.
    pub(super) fn native(&self) -> Layout {
        if self.names.contains_key(&Layout::Module) { Layout::Module } else { Layout::Nchw }
    }
}

/// A node with the phase that it is of.
pub(super) struct Placed {
    pub(super) node: NodeProto,
    pub(super) phase: Option<usize>,
}

/// The graph under construction.
pub(super) struct Emitter<'a> {
    pub(super) module: &'a Module,
    pub(super) nodes: Vec<Placed>,
    pub(super) initializers: Vec<TensorProto>,
    /// The phase whose ops are lowered.
    pub(super) phase: Option<usize>,
    /// What the op that is lowered is called.
    pub(super) label: String,
    stands: BTreeMap<ValueId, Stand>,
    /// Tensors that were derived from others in a phase: by name, what was done and the phase.
    derived: BTreeMap<(String, String, Option<usize>), String>,
    taken: BTreeMap<String, usize>,
}

impl<'a> Emitter<'a> {
    pub(super) fn new(module: &'a Module) -> Self {
        Self {
            module,
            nodes: Vec::new(),
            initializers: Vec::new(),
            phase: None,
            label: String::new(),
            stands: BTreeMap::new(),
            derived: BTreeMap::new(),
            taken: BTreeMap::new(),
        }
    }

    /// A name that nothing has yet.
    pub(super) fn fresh(&mut self, wanted: &str) -> String {
        let count = self.taken.entry(wanted.to_owned()).or_default();
        *count += 1;
        if *count == 1 {
            return wanted.to_owned();
        }
        let name = format!("{wanted}_{count}");
        self.fresh(&name)
    }

    /// A node with one result, which has a name of its own.
    pub(super) fn node(&mut self, op: &str, inputs: Vec<String>, attributes: Vec<AttributeProto>) -> String {
        let output = self.fresh(&format!("{}_{op}", self.label));
        self.node_to(op, inputs, attributes, output)
    }

    /// A node whose result has a given name.
    pub(super) fn node_to(
        &mut self,
        op: &str,
        inputs: Vec<String>,
        attributes: Vec<AttributeProto>,
        output: String,
    ) -> String {
        let node = NodeProto { attribute: attributes, ..node(op, inputs, vec![output.clone()]) };
        self.nodes.push(Placed { node, phase: self.phase });
        output
    }

    /// An initialiser.
    pub(super) fn initializer(&mut self, what: &str, dims: &[usize], data: &Data) -> String {
        let name = self.fresh(&format!("{}_{what}", self.label));
        self.initializers.push(tensor(&name, dims, data));
        name
    }

    /// An initialiser of floats: a scalar if there is one, else along the channels of a tensor of that rank.
    pub(super) fn factors(&mut self, what: &str, values: &[f64], rank: usize, layout: Layout) -> String {
        let data = Data::F32(values.iter().map(|&value| value as f32).collect());
        if values.len() == 1 {
            return self.initializer(what, &[], &data);
        }
        let mut dims = vec![1; rank];
        let axis = if layout == Layout::Nchw { 1 } else { rank.saturating_sub(1) };
        if let Some(extent) = dims.get_mut(axis) {
            *extent = values.len();
        }
        self.initializer(what, &dims, &data)
    }

    /// Says what stands for a value.
    pub(super) fn define(&mut self, value: ValueId, kind: Kind, layout: Layout, name: String) {
        self.stands.insert(value, Stand { kind, names: BTreeMap::from([(layout, name)]) });
    }

    /// That one value is another.
    pub(super) fn alias(&mut self, value: ValueId, same: ValueId) {
        if let Some(stand) = self.stands.get(&same).cloned() {
            self.stands.insert(value, stand);
        }
    }

    /// The data of a constant.
    pub(super) fn constant(&self, value: ValueId) -> Option<&'a Tensor> {
        let module = self.module;
        module.constant(value).map(|elements| &*elements.tensor)
    }

    /// The integers of a constant.
    ///
    /// # Errors
    /// If the value is none.
    pub(super) fn integers(&self, value: ValueId) -> Result<Vec<i64>, ExportError> {
        let integers = self.constant(value).and_then(|tensor| tensor.data().to_ints());
        integers.ok_or_else(|| self.unsupported("an operand is no constant of integers"))
    }

    /// The one integer of a constant.
    ///
    /// # Errors
    /// If the value is none.
    pub(super) fn integer(&self, value: ValueId) -> Result<i64, ExportError> {
        let integers = self.integers(value)?;
        integers.first().copied().ok_or_else(|| self.unsupported("a constant is empty"))
    }

    /// The shape of a value.
    pub(super) fn shape(&self, value: ValueId) -> &'a [usize] {
        let module = self.module;
        &module.tensor_ty(value).shape
    }

    pub(super) fn elem(&self, value: ValueId) -> ElemType {
        self.module.tensor_ty(value).elem
    }

    /// What stands for a value; a constant becomes an initialiser.
    ///
    /// # Errors
    /// If nothing gives it, or it is a constant that ONNX has no form for.
    pub(super) fn stand(&mut self, value: ValueId) -> Result<Stand, ExportError> {
        if let Some(stand) = self.stands.get(&value) {
            return Ok(stand.clone());
        }
        let tensor = self.constant(value).ok_or_else(|| self.unsupported("nothing gives an operand"))?;
        let (kind, data) =
            constant_data(tensor).ok_or_else(|| self.unsupported("a constant of this type"))?;
        let name = self.initializer("constant", tensor.shape(), &data);
        self.define(value, kind, Layout::Module, name);
        self.stand(value)
    }

    /// The tensor that stands for a value, in an order of its axes.
    pub(super) fn tensor(&mut self, value: ValueId, layout: Layout) -> Result<String, ExportError> {
        let stand = self.stand(value)?;
        if let Some(name) = stand.names.get(&layout) {
            return Ok(name.clone());
        }
        let perm = if layout == Layout::Nchw { [0, 3, 1, 2] } else { [0, 2, 3, 1] };
        let name = stand.names.get(&stand.native()).cloned();
        let name = name.ok_or_else(|| self.unsupported("nothing gives an operand"))?;
        if self.shape(value).len() != 4 {
            return Ok(name);
        }
        if let Some(constant) = self.constant(value) {
            return self.permuted_constant(value, constant, &perm, layout);
        }
        let what = format!("{layout:?}");
        self.derive(&name, what, |emitter| {
            emitter.node("Transpose", vec![name.clone()], vec![ints("perm", perm)])
        })
    }

    fn permuted_constant(
        &mut self,
        value: ValueId,
        constant: &Tensor,
        perm: &[i64],
        layout: Layout,
    ) -> Result<String, ExportError> {
        let perm: Vec<usize> = perm.iter().map(|&axis| axis as usize).collect();
        let (_, data) = constant_data(constant).ok_or_else(|| self.unsupported("a constant of this type"))?;
        let shape = constant.shape();
        let dims: Vec<usize> = perm.iter().map(|&axis| shape[axis]).collect();
        let name = self.initializer("constant", &dims, &data.permuted(shape, &perm));
        if let Some(stand) = self.stands.get_mut(&value) {
            stand.names.insert(layout, name.clone());
        }
        Ok(name)
    }

    /// The tensor that is made of another in the phase, which is made once.
    fn derive(
        &mut self,
        of: &str,
        what: String,
        make: impl FnOnce(&mut Self) -> String,
    ) -> Result<String, ExportError> {
        let key = (of.to_owned(), what, self.phase);
        if let Some(name) = self.derived.get(&key) {
            return Ok(name.clone());
        }
        let name = make(self);
        self.derived.insert(key, name.clone());
        Ok(name)
    }

    /// A value as floats, its zero point taken off, with their steps.
    pub(super) fn real(
        &mut self,
        value: ValueId,
        zero_point: i64,
        layout: Layout,
    ) -> Result<Real, ExportError> {
        let name = self.tensor(value, layout)?;
        let rank = self.shape(value).len();
        match self.stand(value)?.kind {
            Kind::Truth => Err(self.unsupported("truth values as numbers")),
            Kind::Quantised { step } => {
                let elem = self.elem(value);
                let what = format!("dequantised {step:e} {zero_point}");
                let name =
                    self.derive(&name, what, |emitter| emitter.dequantise(&name, step, zero_point, elem))?;
                Ok(Real { name, steps: vec![step], layout, rank })
            }
            Kind::Real { steps } if zero_point == 0 => Ok(Real { name, steps, layout, rank }),
            Kind::Real { steps } => {
                let offset: Vec<f64> = steps.iter().map(|step| step * zero_point as f64).collect();
                let offset = self.factors("zero_point", &offset, rank, layout);
                let name = self.node("Sub", vec![name, offset], Vec::new());
                Ok(Real { name, steps, layout, rank })
            }
        }
    }

    /// Floats of integers by a step and a zero point.
    pub(super) fn dequantise(&mut self, name: &str, step: f64, zero_point: i64, elem: ElemType) -> String {
        let inputs = self.quantisation(name, step, zero_point, elem);
        self.node("DequantizeLinear", inputs, Vec::new())
    }

    /// The integers of floats by a step and a zero point, saturated.
    pub(super) fn quantise(&mut self, name: &str, step: f64, zero_point: i64, elem: ElemType) -> String {
        let inputs = self.quantisation(name, step, zero_point, elem);
        self.node("QuantizeLinear", inputs, Vec::new())
    }

    fn quantisation(&mut self, name: &str, step: f64, zero_point: i64, elem: ElemType) -> Vec<String> {
        let scale = self.initializer("scale", &[], &Data::F32(vec![step as f32]));
        let zero = match elem {
            ElemType::I16 => Data::I16(vec![zero_point as i16]),
            _ => Data::I8(vec![zero_point as i8]),
        };
        let zero = self.initializer("zero_point", &[], &zero);
        vec![name.to_owned(), scale, zero]
    }

    /// The same reals in other steps.
    pub(super) fn in_steps(&mut self, real: Real, steps: &[f64]) -> Real {
        let n = real.steps.len().max(steps.len());
        let at = |of: &[f64], index: usize| of.get(index).or(of.first()).copied().unwrap_or(1.0);
        let factors: Vec<f64> = (0..n).map(|index| at(steps, index) / at(&real.steps, index)).collect();
        if factors.iter().all(|factor| (factor - 1.0).abs() < 1e-9) {
            return Real { steps: steps.to_vec(), ..real };
        }
        let same = factors.iter().all(|factor| *factor == factors[0]);
        let factors = if same { &factors[..1] } else { &factors[..] };
        let factor = self.factors("factor", factors, real.rank, real.layout);
        let name = self.node("Mul", vec![real.name, factor], Vec::new());
        Real { name, steps: steps.to_vec(), ..real }
    }

    /// Why an op cannot be exported.
    pub(super) fn unsupported(&self, what: &str) -> ExportError {
        ExportError::Content(format!("`{}`: ONNX has no form of it: {what}", self.label))
    }
}

/// Floats that are integers times their steps.
#[derive(Clone, Debug)]
pub(super) struct Real {
    pub(super) name: String,
    /// One, or one for each channel.
    pub(super) steps: Vec<f64>,
    pub(super) layout: Layout,
    pub(super) rank: usize,
}

fn constant_data(tensor: &Tensor) -> Option<(Kind, Data)> {
    use strata_ir::TensorData;
    let real = Kind::Real { steps: vec![1.0] };
    let quantised = Kind::Quantised { step: 1.0 };
    Some(match tensor.data() {
        TensorData::I8(v) => (quantised, Data::I8(v.clone())),
        TensorData::I16(v) => (quantised, Data::I16(v.clone())),
        TensorData::I32(v) => (real, Data::F32(v.iter().map(|&v| v as f32).collect())),
        TensorData::I48(v) => (real, Data::F32(v.iter().map(|&v| v as f32).collect())),
        TensorData::F32(v) => (real, Data::F32(v.clone())),
        TensorData::I1(_) | TensorData::I64(_) | TensorData::Index(_) => return None,
    })
}
