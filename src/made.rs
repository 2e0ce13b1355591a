//! What the stages of a bundle make on an inference: whole tensors, in integers and in the reals that they
//! stand for.
//!
//! A `Recorder` is told of every row that a stage puts into activation SRAM while the program runs. Nothing
//! is computed twice: what it holds are the machine's own bytes, also of tensors that are never whole in a
//! memory, since they pass through a ring of rows. Parts that several stages make of one tensor, some
//! channels or some columns each, are put together; where two make the same elements, as the strips of a
//! layer do at their edges, they have to agree.
//!
//! It writes no files; that is for [`dump`](crate::dump).

use serde::{Deserialize, Serialize};
use strata_ir::{ElemType, TensorData};
use strata_isa_spec::bundle::{Machine, MadeTensor, Port, Quantisation};
use strata_isa_spec::interp::{MadeRow, RowObserver};

use crate::io::array::{Array, DType};
use crate::ports::{RunError, dtype_of, permute};

/// The axes of an image as most models have them, of those of the machine's.
const CHANNELS_FIRST: [usize; 4] = [0, 3, 1, 2];

/// Where a tensor comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MadeIn {
    /// A program takes it.
    Input,
    /// A stage makes it, or several a part each.
    Stage,
    /// The host makes it.
    Host,
}

/// What a stage, or what the host, has made of an inference; or what a program takes.
#[derive(Clone, Debug, PartialEq)]
pub struct StageTensor {
    /// Its number among all that an inference of the bundle can give, from 0.
    pub number: usize,
    /// Which part of the bundle it is of.
    pub part: usize,
    /// Where it comes from.
    pub made_in: MadeIn,
    /// The node whose result it is, or the stage, if it is no node's; of inputs and of the host its name in
    /// the model. Several may have one name.
    pub name: String,
    /// The nodes of the model whose result it is, in order: those before the last have the same integers.
    pub nodes: Vec<String>,
    /// The stages that made it; none of an input or of the host.
    pub stages: Vec<MadeBy>,
    /// Its shape on the machine, of which images are NHWC; on the host that of the model.
    pub machine_shape: Vec<usize>,
    /// The axis of the machine's that each axis of the arrays is.
    pub perm: Vec<usize>,
    /// Whether it is an image.
    pub is_image: bool,
    /// What the integers mean, if that is known.
    pub quantisation: Option<Quantisation>,
    /// The integers, in the model's order of axes; none of what the host made.
    pub raw: Option<Array>,
    /// The real numbers, in the model's order of axes; none of integers whose meaning is not known. NaN where
    /// no stage made an element.
    pub real: Option<Array>,
    /// Which elements were made, if not all were: no stage makes what none reads.
    pub made: Option<Array>,
}

/// A stage that made a tensor, or some columns and channels of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeBy {
    /// The stage's name.
    pub stage: String,
    /// Its phase in the program of its part, from 0.
    pub phase: usize,
    /// Its number in the phase, from 0.
    pub index: usize,
    /// The first column.
    pub col0: u32,
    /// How many.
    pub cols: u32,
    /// The first channel.
    pub ch0: u32,
    /// How many.
    pub chs: u32,
}

impl StageTensor {
    /// What a program takes as one of its inputs, as it was given, and the integers that stand for it.
    pub(crate) fn of_input(part: usize, port: &Port, array: &Array, raw: Array) -> Self {
        let quantisation = port.quantisation;
        Self { made_in: MadeIn::Input, raw: Some(raw), quantisation, ..Self::of_host(part, port, array) }
    }

    /// What the host gave as one of its outputs.
    pub(crate) fn of_host(part: usize, port: &Port, array: &Array) -> Self {
        let (raw, real) = (None, Some(array.clone()));
        Self {
            number: 0,
            part,
            made_in: MadeIn::Host,
            name: port.name.clone(),
            nodes: Vec::new(),
            stages: Vec::new(),
            machine_shape: array.shape.clone(),
            perm: (0..array.shape.len()).collect(),
            is_image: false,
            quantisation: None,
            raw,
            real,
            made: None,
        }
    }
}

/// Gathers what the stages of a program make while it runs.
pub(crate) struct Recorder<'m> {
    machine: &'m Machine,
    gathered: Vec<Gathered>,
    /// What was wrong with the first row that is not as the bundle says.
    fault: Option<String>,
}

/// What there is of a tensor.
#[derive(Clone, Default)]
struct Gathered {
    /// Bytes of all its elements, once there are any.
    bytes: Vec<u8>,
    /// Which elements there are.
    made: Vec<bool>,
}

impl<'m> Recorder<'m> {
    /// Before the program runs.
    ///
    /// # Errors
    /// If the bundle does not say which tensors its stages make, or says what cannot be.
    pub(crate) fn new(machine: &'m Machine) -> Result<Self, RunError> {
        let tensors = &machine.tensors.tensors;
        if tensors.is_empty() {
            return Err(RunError::Bundle(
                "it does not say which tensors its stages make; compile the model anew".to_owned(),
            ));
        }
        for tensor in tensors {
            demand_sound(tensor).map_err(RunError::Bundle)?;
        }
        let gathered = vec![Gathered::default(); tensors.len()];
        Ok(Self { machine, gathered, fault: None })
    }

    /// How many tensors there are.
    pub(crate) fn n_tensors(&self) -> usize {
        self.gathered.len()
    }

    /// Puts a row to where it belongs.
    fn take(&mut self, row: &MadeRow<'_>) -> Result<(), String> {
        let tensors = &self.machine.tensors;
        let source = row.stage.source as usize;
        let Some(part) = tensors.parts.get(source).copied().flatten() else { return Ok(()) };
        let (Some(tensor), Some(gathered)) =
            (tensors.tensors.get(part.tensor as usize), self.gathered.get_mut(part.tensor as usize))
        else {
            return Err(format!("stage {source} makes tensor {}, which there is not", part.tensor));
        };
        let [rows, cols, chs] = tensor.dims.map(|extent| extent as usize);
        let (col0, ch0) = (part.col0 as usize + row.cols.start, part.ch0 as usize + row.chs.start);
        let size = elem_of(tensor)?.size_bytes();
        let fits = (row.row as usize) < rows
            && col0 + row.cols.len() <= cols
            && ch0 + row.chs.len() <= chs
            && row.bytes.len() == row.cols.len() * row.chs.len() * size;
        if !fits {
            let [rows, cols, chs] = tensor.dims;
            return Err(format!(
                "`{}` has {rows} rows, {cols} columns and {chs} channels of {}: what stage {source} made of \
                 row {}, from column {} and channel {} on, does not fit",
                tensor.name, tensor.dtype, row.row, part.col0, part.ch0
            ));
        }
        if gathered.made.is_empty() {
            gathered.bytes = vec![0; rows * cols * chs * size];
            gathered.made = vec![false; rows * cols * chs];
        }
        let pixel = row.chs.len();
        for (x, bytes) in row.bytes.chunks_exact((pixel * size).max(1)).enumerate() {
            let first = ((row.row as usize * cols) + col0 + x) * chs + ch0;
            let to = &mut gathered.bytes[first * size..][..pixel * size];
            let made = &mut gathered.made[first..][..pixel];
            for ((made, to), bytes) in
                made.iter_mut().zip(to.chunks_exact_mut(size)).zip(bytes.chunks_exact(size))
            {
                if *made && to != bytes {
                    let (row, col) = (row.row, col0 + x);
                    return Err(format!(
                        "two stages disagree on row {row}, column {col} of `{}`",
                        tensor.name
                    ));
                }
                *made = true;
                to.copy_from_slice(bytes);
            }
        }
        Ok(())
    }

    /// The tensors, after the program has run, in the order of the stages that first make some of each, and
    /// numbered so.
    /// `channels_first` says whether the model has the channels of an image before its rows; `part` is which
    /// of the bundle's the program is.
    ///
    /// # Errors
    /// If rows were not as the bundle says.
    pub(crate) fn finish(
        self,
        part: usize,
        channels_first: bool,
    ) -> Result<impl Iterator<Item = StageTensor>, RunError> {
        if let Some(fault) = self.fault {
            return Err(RunError::Bundle(fault));
        }
        let machine = self.machine;
        let mut stages = made_by(machine);
        let tensors = machine.tensors.tensors.iter().zip(self.gathered).enumerate();
        Ok(tensors.filter(|(_, (_, gathered))| !gathered.made.is_empty()).map(
            move |(at, (tensor, gathered))| {
                let stages = std::mem::take(&mut stages[at]);
                stage_tensor(at, part, tensor, stages, &gathered, channels_first)
            },
        ))
    }
}

impl RowObserver for Recorder<'_> {
    fn wrote(&mut self, row: &MadeRow<'_>) {
        if self.fault.is_none() {
            self.fault = self.take(row).err();
        }
    }
}

/// The stages that make each tensor of a program.
fn made_by(machine: &Machine) -> Vec<Vec<MadeBy>> {
    let tensors = &machine.tensors;
    let mut stages: Vec<Vec<MadeBy>> = vec![Vec::new(); tensors.tensors.len()];
    for (phase, code) in machine.program.phases.iter().enumerate() {
        for (index, stage) in code.stages.iter().enumerate() {
            let source = stage.source as usize;
            let Some(part) = tensors.parts.get(source).copied().flatten() else { continue };
            let name = machine.names.get(source).cloned().unwrap_or_default();
            let out = &stage.code.out;
            let (col0, ch0, cols, chs) = (part.col0, part.ch0, out.cols, out.chs);
            if let Some(stages) = stages.get_mut(part.tensor as usize) {
                stages.push(MadeBy { stage: name, phase, index, col0, cols, ch0, chs });
            }
        }
    }
    stages
}

fn elem_of(tensor: &MadeTensor) -> Result<ElemType, String> {
    let elem = ElemType::from_keyword(&tensor.dtype);
    let elem = elem.filter(|elem| matches!(elem, ElemType::I8 | ElemType::I16 | ElemType::I32));
    elem.ok_or_else(|| format!("`{}` is of `{}`, expected i8, i16 or i32", tensor.name, tensor.dtype))
}

/// What a bundle says of a tensor, which may have been edited.
fn demand_sound(tensor: &MadeTensor) -> Result<(), String> {
    /// Elements at most.
    const MOST: usize = 1 << 34;
    elem_of(tensor)?;
    let product = |extents: &[usize]| {
        let product = extents.iter().try_fold(1_usize, |n, &extent| n.checked_mul(extent));
        product.filter(|&n| n <= MOST)
    };
    let of_dims = product(&tensor.dims.map(|extent| extent as usize));
    if of_dims.is_none() || product(&tensor.shape) != of_dims {
        let MadeTensor { name, shape, dims, .. } = tensor;
        return Err(format!("`{name}` has the shape {shape:?}, but {dims:?} rows, columns and channels"));
    }
    match tensor.quantisation {
        Some(Quantisation { scale, .. }) if !(scale.is_finite() && scale > 0.0) => {
            Err(format!("`{}`: its scale is {scale}, expected a positive number", tensor.name))
        }
        _ => Ok(()),
    }
}

fn stage_tensor(
    number: usize,
    part: usize,
    tensor: &MadeTensor,
    stages: Vec<MadeBy>,
    gathered: &Gathered,
    channels_first: bool,
) -> StageTensor {
    let is_image = tensor.is_image && tensor.shape.len() == CHANNELS_FIRST.len();
    let perm: Vec<usize> =
        if is_image && channels_first { CHANNELS_FIRST.to_vec() } else { (0..tensor.shape.len()).collect() };
    let shape: Vec<usize> = perm.iter().map(|&axis| tensor.shape[axis]).collect();
    let elem = elem_of(tensor).unwrap_or(ElemType::I32);
    let integers = TensorData::from_bytes(elem, &gathered.bytes).and_then(|data| data.to_ints());
    let integers = permute(&integers.unwrap_or_default(), &tensor.shape, &perm);
    let made = permute(&gathered.made, &tensor.shape, &perm);
    let real = tensor.quantisation.map(|q| {
        let real = |(&v, &made): (&i64, &bool)| {
            if made { f64::from((q.scale * (v as f64 - f64::from(q.zero_point))) as f32) } else { f64::NAN }
        };
        let values = integers.iter().zip(&made).map(real).collect();
        Array { shape: shape.clone(), dtype: DType::F32, values }
    });
    let dtype = dtype_of(&tensor.dtype).unwrap_or(DType::I32);
    let raw = Array { shape: shape.clone(), dtype, values: integers.iter().map(|&v| v as f64).collect() };
    let made = made.contains(&false).then(|| {
        let values = made.iter().map(|&made| f64::from(u8::from(made))).collect();
        Array { shape, dtype: DType::Bool, values }
    });
    StageTensor {
        number,
        part,
        made_in: MadeIn::Stage,
        name: tensor.name.clone(),
        nodes: tensor.nodes.clone(),
        stages,
        machine_shape: tensor.shape.clone(),
        perm,
        is_image,
        quantisation: tensor.quantisation,
        raw: Some(raw),
        real,
        made,
    }
}
