//! The import of a whole model: the walk over its graph, then the outputs and what the function says of its
//! ports.

use std::collections::{BTreeMap, BTreeSet};

use strata_ir::attr::FunctionType;
use strata_ir::dialect::{FuncReturn, Op};
use strata_ir::pass::Level;
use strata_ir::{Attribute, ElemType, Location, OpId, Type};
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

use super::error::{ImportError, Problems, node_name};
use super::layout::Value;
use super::lower::Lowering;
use super::resolve::FloatTypes;
use super::walk::{EMPTY, Input, Walk, place_of, settle_inputs};
use super::{CrossCheck, ImportOptions, Imported, Port, affine, witness};
use crate::dtype;

impl Input<'_> {
    /// It as a user of the model sees it.
    fn port(&self, types: &FloatTypes) -> Port {
        Port {
            name: self.name.to_owned(),
            shape: self.shape.clone(),
            perm: self.perm.clone(),
            dtype: types.user_dtype(self.name).unwrap_or(self.dtype_name),
        }
    }
}

/// How often nodes read each name, and outputs of the graph give it.
fn n_reads(graph: &GraphProto) -> BTreeMap<&str, usize> {
    let mut n_reads = BTreeMap::new();
    let given = graph.output.iter().map(|output| &output.name);
    for name in graph.node.iter().flat_map(|node| &node.input).chain(given) {
        *n_reads.entry(name.as_str()).or_default() += 1;
    }
    n_reads
}

/// Elements of the initialisers that operators with trained parameters read, each counted once.
fn n_parameters(graph: &GraphProto) -> u64 {
    const TRAINED: [&str; 19] = [
        "Conv",
        "ConvTranspose",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "Gemm",
        "MatMul",
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "PRelu",
        "RMSNormalization",
        "GRU",
        "LSTM",
        "RNN",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    ];
    let readers = graph.node.iter().filter(|node| TRAINED.contains(&node.op_type.as_str()));
    let read: BTreeSet<&str> = readers.flat_map(|node| &node.input).map(String::as_str).collect();
    let integers = quantised_parameters(graph, &read);
    let read: BTreeSet<&str> = read.into_iter().chain(integers).collect();
    let trained = graph.initializer.iter().filter(|tensor| read.contains(tensor.name.as_str()));
    trained.map(|tensor| tensor.dims.iter().map(|&d| d.max(0) as u64).product::<u64>()).sum()
}

/// The integers of quantised parameters: what is dequantised to be one of `read`, and what the operators on
/// integers take.
fn quantised_parameters<'a>(graph: &'a GraphProto, read: &BTreeSet<&str>) -> Vec<&'a str> {
    let operands = |node: &'a NodeProto| -> Vec<&'a str> {
        let places: &[usize] = match node.op_type.as_str() {
            "DequantizeLinear" if node.output.iter().any(|name| read.contains(name.as_str())) => &[0],
            "ConvInteger" | "MatMulInteger" | "MatMulIntegerToFloat" => &[0, 1],
            "QLinearConv" => &[3, 8],
            "QLinearMatMul" => &[0, 3],
            "QGemm" => &[0, 3, 6],
            _ => &[],
        };
        places.iter().filter_map(|&at| node.input.get(at)).map(String::as_str).collect()
    };
    graph.node.iter().flat_map(operands).collect()
}

/// The inputs of a model with their shapes settled, in ONNX's layout.
///
/// # Errors
/// If an input has no shape, or is of a kind that is not supported.
pub(super) fn inputs(
    model: &ModelProto,
    types: &FloatTypes,
    options: &ImportOptions,
) -> Result<Vec<Port>, ImportError> {
    let mut problems = Problems::default();
    let inputs = settle_inputs(model.graph.as_ref().unwrap_or(&EMPTY), options, &mut problems);
    problems.check()?;
    Ok(inputs.iter().map(|input| input.port(types)).collect())
}

pub(super) fn import(
    model: &ModelProto,
    types: &FloatTypes,
    options: &ImportOptions,
) -> Result<Imported, ImportError> {
    let mut walk = Walk::begin(model, options)?;
    let mut reads_left = n_reads(walk.graph);
    for index in walk.order.clone() {
        let proto = &walk.graph.node[index];
        if let Err(error) = walk.lower(index) {
            walk.problems.lowering(node_name(proto), &proto.op_type, &proto.domain, error);
        }
        for name in &proto.input {
            let Some(left) = reads_left.get_mut(name.as_str()) else { continue };
            *left -= 1;
            if *left == 0 {
                walk.forget(name);
            }
        }
    }
    for output in &walk.graph.output {
        if let Err(error) = walk.read(&output.name) {
            walk.problems.lowering(&output.name, "initialiser", "", error);
        }
    }
    let Walk { graph, inputs, values, mut lowering, mut problems, .. } = walk;
    problems.check()?;

    let cross_check =
        if options.cross_check { witness::compare(model, &inputs, &values)? } else { CrossCheck::default() };
    let mut outputs = finish(&mut lowering, graph, &values, options, &mut problems);
    problems.check()?;
    for (port, _) in outputs.iter_mut().filter(|(port, _)| port.dtype == "f32") {
        port.dtype = types.user_dtype(&port.name).unwrap_or(port.dtype);
    }
    let inputs: Vec<Port> = inputs.iter().map(|input| input.port(types)).collect();
    set_signature(&mut lowering, &inputs, &outputs);
    let block = lowering.em.block;
    let mut module = lowering.em.module;
    affine::fold(&mut module, block);
    affine::remove_dead(&mut module, block);
    Level::Import.mark(&mut module);
    Ok(Imported {
        module,
        inputs,
        outputs: outputs.into_iter().map(|(port, _)| port).collect(),
        n_nodes: graph.node.len(),
        n_parameters: n_parameters(graph),
        cross_check,
    })
}

/// Ends the function with the graph's outputs.
fn finish(
    lowering: &mut Lowering,
    graph: &GraphProto,
    values: &BTreeMap<&str, Value>,
    options: &ImportOptions,
    problems: &mut Problems,
) -> Vec<(Port, ElemType)> {
    let mut outputs = Vec::new();
    let mut results = Vec::new();
    for info in &graph.output {
        let Some(value) = values.get(info.name.as_str()) else {
            problems.malformed(format!("output `{}`", info.name), "nothing computes it");
            continue;
        };
        lowering.em.loc = place_of_output(graph, &info.name, &options.file_name);
        let view = match lowering.result_view(value) {
            Ok(view) => view,
            Err(error) => {
                problems.lowering(&info.name, "output", "", error);
                continue;
            }
        };
        let Some(dtype) = dtype::name(view.dtype) else {
            problems.unsupported(&info.name, "output", format!("elements of type {:?}", view.dtype));
            continue;
        };
        let identity = || (0..view.shape.len()).collect();
        let natural = if options.plain_layout { None } else { view.natural_perm(&lowering.em) };
        let perm: Vec<usize> = natural.unwrap_or_else(identity);
        let value = lowering.in_order(&view, &perm);
        let inverse = (0..perm.len()).map(|axis| perm.iter().position(|&p| p == axis).unwrap_or_default());
        let port =
            Port { name: info.name.clone(), shape: view.shape.clone(), perm: inverse.collect(), dtype };
        outputs.push((port, lowering.em.elem(value)));
        results.push(value);
    }
    lowering.em.module.append(lowering.em.block, FuncReturn {}, &results, &[], Location::unknown());
    outputs
}

/// Where what brings an output into its layout comes from: the node that gives the output.
fn place_of_output(graph: &GraphProto, name: &str, file_name: &str) -> Location {
    let gives = |node: &NodeProto| node.output.iter().any(|output| output == name);
    match graph.node.iter().position(gives) {
        Some(index) => place_of(graph, index, file_name),
        None => Location::named(name),
    }
}

/// The dictionary of an argument or result.
fn port_attr(port: &Port, elem: ElemType) -> Attribute {
    let mut dict = BTreeMap::from([("strata.name".to_owned(), Attribute::Str(port.name.clone()))]);
    if !port.perm.iter().copied().eq(0..port.perm.len()) {
        let perm = port.perm.iter().map(|&axis| axis as i64).collect();
        dict.insert("strata.perm".to_owned(), Attribute::I64Array(perm));
    }
    if port.dtype != elem.keyword() {
        dict.insert("strata.dtype".to_owned(), Attribute::Str(port.dtype.to_owned()));
    }
    Attribute::Dict(dict)
}

fn set_signature(lowering: &mut Lowering, inputs: &[Port], outputs: &[(Port, ElemType)]) {
    let module = &mut lowering.em.module;
    let block = lowering.em.block;
    let func: OpId = module.block_op(block);
    let results = module.terminator(block).map_or_else(Vec::new, |op| module.op(op).operands().to_vec());
    let arg_types: Vec<Type> = module.args(block).iter().map(|&arg| module.ty(arg).clone()).collect();
    let result_types = results.iter().map(|&value| module.ty(value).clone()).collect();
    let arg_attr =
        |(input, ty): (&Port, &Type)| port_attr(input, ty.as_tensor().map_or(ElemType::F32, |t| t.elem));
    let arg_attrs = inputs.iter().zip(&arg_types).map(arg_attr).collect();
    let res_attrs = outputs.iter().map(|(port, elem)| port_attr(port, *elem)).collect();
    if let Op::Func(function) = &mut module.op_mut(func).op {
        function.function_type = FunctionType { inputs: arg_types, results: result_types };
        function.arg_attrs = Some(Attribute::Array(arg_attrs));
        function.res_attrs = Some(Attribute::Array(res_attrs));
    }
}
