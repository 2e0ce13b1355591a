//! A quantised network as ONNX, with QuantizeLinear and DequantizeLinear, as other compilers and onnxruntime
//! take it.
//!
//! It is written from the integer arithmetic of a module of level `quant` or a later one, not from the model
//! that the module was made of: what it computes in floats differs from the module's integers by roundings
//! only. Where the phases are known, each is a function of the model.
//!
//! # Source
//! ONNX 1.19, operator set 21, which is the first with 16-bit quantised tensors.

mod elementwise;
mod emitter;
mod functions;
mod lower;
mod moves;
mod products;
mod proto;
mod site;
mod windows;

use strata_frontend::proto::pb::tensor_proto::DataType;
use strata_frontend::proto::pb::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto};
use strata_frontend::proto::{encode, pb};
use strata_ir::{ElemType, Module, OpId, ValueId};
use strata_isa_spec::bundle::{Port, Quantisation};

use self::emitter::{Emitter, Kind, Layout};
use self::proto::{int, ints, port};
use super::{Content, ExportError, Format, Kind as FileKind, Source};
use crate::session;

/// The row of this format.
pub(super) const FORMAT: Format = Format {
    name: "onnx",
    summary: "a quantised network as ONNX with QuantizeLinear and DequantizeLinear, phases as functions",
    takes: &[FileKind::Ir, FileKind::Tosa],
    is_text: false,
    write,
};

/// The operator set that is used.
const OPSET: i64 = 21;
/// The version of the file format that goes with it.
const IR_VERSION: i64 = 10;
/// The domain of functions.
const DOMAIN: &str = "strata";
/// From the order of a picture's axes in ONNX to that of the module.
const NCHW_TO_NHWC: [usize; 4] = [0, 2, 3, 1];

fn write(source: &Source) -> Result<Vec<u8>, ExportError> {
    let Content::Modules(modules) = &source.content else {
        return Err(ExportError::Content("no module of the IR".to_owned()));
    };
    let [module] = &modules[..] else {
        let what = format!("{} modules, one for each part of a model; ONNX is written of one", modules.len());
        return Err(ExportError::Content(what));
    };
    Ok(encode(&model(module, &source.name)?))
}

/// The model that a module is.
fn model(module: &Module, name: &str) -> Result<ModelProto, ExportError> {
    let mut emitter = Emitter::new(module);
    let main = function(module, "main")?;
    let (takes, gives) = (ports(module, main, false)?, ports(module, main, true)?);
    let host = module.function("host");
    let results = match host {
        Some(host) => ports(module, host, true)?,
        None => gives.clone(),
    };
    for port in takes.iter().chain(&results) {
        emitter.fresh(&port.name);
    }
    lower_inputs(&mut emitter, main, &takes)?;
    lower::block(&mut emitter, module.entry_block(main))?;
    let values = returned(module, main);
    let Some(host) = host else {
        lower_outputs(&mut emitter, &values, &gives)?;
        return Ok(assembled(emitter, &takes, &results, name));
    };
    // What the host runs takes what the machine's integers stand for.
    let arguments = module.args(module.entry_block(host)).to_vec();
    for ((&value, port), &argument) in values.iter().zip(&gives).zip(&arguments) {
        emitter.label.clone_from(&port.name);
        let name = meant(&mut emitter, value, port)?;
        emitter.define(argument, Kind::Real { steps: vec![1.0] }, Layout::Module, name);
    }
    lower::block(&mut emitter, module.entry_block(host))?;
    lower_outputs(&mut emitter, &returned(module, host), &results)?;
    Ok(assembled(emitter, &takes, &results, name))
}

fn function(module: &Module, name: &str) -> Result<OpId, ExportError> {
    module.function(name).ok_or_else(|| ExportError::Content(format!("there is no function `{name}`")))
}

fn ports(module: &Module, func: OpId, outputs: bool) -> Result<Vec<Port>, ExportError> {
    session::ports(module, func, outputs).map_err(|error| ExportError::Content(error.to_string()))
}

/// What a function returns.
fn returned(module: &Module, func: OpId) -> Vec<ValueId> {
    let end = module.terminator(module.entry_block(func));
    end.map_or_else(Vec::new, |end| module.op(end).operands().to_vec())
}

fn lower_inputs(emitter: &mut Emitter<'_>, main: OpId, takes: &[Port]) -> Result<(), ExportError> {
    let arguments = emitter.module.args(emitter.module.entry_block(main)).to_vec();
    for (&argument, port) in arguments.iter().zip(takes) {
        emitter.label.clone_from(&port.name);
        let elem = emitter.elem(argument);
        if elem.is_float() {
            let what = "the network computes in floats; `strata compile --emit quant` quantises it";
            return Err(ExportError::Content(format!("input `{}`: {what}", port.name)));
        }
        if !matches!(elem, ElemType::I8 | ElemType::I16) {
            return Err(emitter.unsupported(&format!("an input of {elem}")));
        }
        let (mut name, step) = match port.quantisation {
            Some(Quantisation { scale, zero_point }) => {
                (emitter.quantise(&port.name, scale, i64::from(zero_point), elem), scale)
            }
            None => (port.name.clone(), 1.0),
        };
        let layout = if port.perm == NCHW_TO_NHWC { Layout::Nchw } else { Layout::Module };
        if layout == Layout::Module {
            name = permuted(emitter, name, &port.perm, None);
        }
        emitter.define(argument, Kind::Quantised { step }, layout, name);
    }
    Ok(())
}

/// A tensor with its axes in another order, and the name that it then has.
fn permuted(emitter: &mut Emitter<'_>, name: String, perm: &[usize], output: Option<String>) -> String {
    let is_same = perm.iter().enumerate().all(|(at, &axis)| at == axis);
    let perm = ints("perm", perm.iter().map(|&axis| axis as i64));
    match output {
        Some(output) if is_same => emitter.node_to("Identity", vec![name], Vec::new(), output),
        Some(output) => emitter.node_to("Transpose", vec![name], vec![perm], output),
        None if is_same => name,
        None => emitter.node("Transpose", vec![name], vec![perm]),
    }
}

/// What a value of a port stands for, in the module's order of axes.
fn meant(emitter: &mut Emitter<'_>, value: ValueId, port: &Port) -> Result<String, ExportError> {
    let name = emitter.tensor(value, Layout::Module)?;
    let Some(Quantisation { scale, zero_point }) = port.quantisation else {
        let real = emitter.real(value, 0, Layout::Module)?;
        let real = emitter.in_steps(real, &[1.0]);
        if data_type(&port.dtype) == Some(DataType::Float) {
            return Ok(real.name);
        }
        let to = data_type(&port.dtype).ok_or_else(|| emitter.unsupported("an output of this type"))?;
        return Ok(emitter.node("Cast", vec![real.name], vec![int("to", to as i64)]));
    };
    let elem = emitter.elem(value);
    let quantised = match emitter.stand(value)?.kind {
        Kind::Quantised { .. } => name,
        Kind::Real { .. } | Kind::Truth => return Err(emitter.unsupported("a quantised output of this type")),
    };
    Ok(emitter.dequantise(&quantised, scale, i64::from(zero_point), elem))
}

fn lower_outputs(emitter: &mut Emitter<'_>, values: &[ValueId], gives: &[Port]) -> Result<(), ExportError> {
    for (&value, port) in values.iter().zip(gives) {
        emitter.phase = None;
        emitter.label.clone_from(&port.name);
        let name = meant(emitter, value, port)?;
        permuted(emitter, name, &port.perm, Some(port.name.clone()));
    }
    Ok(())
}

fn data_type(name: &str) -> Option<DataType> {
    Some(match name {
        // Floats are `f32` inside, whatever the model declared.
        "f32" | "f16" | "bf16" | "f64" => DataType::Float,
        "i8" => DataType::Int8,
        "u8" => DataType::Uint8,
        "i16" => DataType::Int16,
        "u16" => DataType::Uint16,
        "i32" => DataType::Int32,
        "u32" => DataType::Uint32,
        "i64" => DataType::Int64,
        "u64" => DataType::Uint64,
        _ => return None,
    })
}

fn declared(ports: &[Port], has_reals: impl Fn(&Port) -> bool) -> Vec<ValueInfoProto> {
    let one = |of: &Port| {
        let elem = if has_reals(of) { Some(DataType::Float) } else { data_type(&of.dtype) };
        port(&of.name, elem.unwrap_or(DataType::Float), &of.shape)
    };
    ports.iter().map(one).collect()
}

fn assembled(emitter: Emitter<'_>, takes: &[Port], results: &[Port], name: &str) -> ModelProto {
    let Emitter { nodes, initializers, .. } = emitter;
    let outputs: Vec<String> = results.iter().map(|port| port.name.clone()).collect();
    let functions::Split { nodes, functions } = functions::split(nodes, &outputs);
    let mut opset_import = vec![OperatorSetIdProto { domain: String::new(), version: OPSET }];
    if !functions.is_empty() {
        opset_import.push(OperatorSetIdProto { domain: DOMAIN.to_owned(), version: 1 });
    }
    let is_real = |port: &Port| port.quantisation.is_some();
    let graph = GraphProto {
        name: name.to_owned(),
        node: nodes,
        initializer: initializers,
        input: declared(takes, is_real),
        output: declared(results, is_real),
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: IR_VERSION,
        opset_import,
        producer_name: "strata".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
        functions,
        ..ModelProto::default()
    }
}

#[cfg(test)]
mod tests;
