//! The walk over the graph: inputs, then nodes in topological order; problems are gathered, not thrown.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use strata_ir::dialect::FuncReturn;
use strata_ir::{Location, Tensor, TensorData, Type};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto};

use super::array::{Array, Data, elem_of};
use super::error::{ImportError, LowerError, Lowered, Problems, node_name, unsupported};
use super::graph::{Node, opset_of};
use super::layout::{Value, View, channels_last};
use super::lower::{LowerFn, Lowering, MICROSOFT_DOMAIN, find};
use super::resolve::control::why_left;
use super::resolve::visit::reads;
use super::{ImportOptions, fold, versions};
use crate::dtype;

/// TOSA's bound of a tensor's rank.
const MAX_RANK: usize = 6;

/// An extent, or what a dynamic one is called.
type Extent = Result<usize, String>;

/// An input with its type settled.
pub(super) struct Input<'a> {
    pub(super) name: &'a str,
    pub(super) shape: Vec<usize>,
    pub(super) dtype: DataType,
    pub(super) dtype_name: &'static str,
    pub(super) perm: Vec<usize>,
}

/// An import under way: the graph with all that is known of its tensors so far.
pub(super) struct Walk<'a> {
    pub(super) graph: &'a GraphProto,
    pub(super) opset: i64,
    pub(super) inputs: Vec<Input<'a>>,
    /// Nodes in an order in which operands come first.
    pub(super) order: Vec<usize>,
    /// Constants, and what has been lowered.
    pub(super) values: BTreeMap<&'a str, Value>,
    pub(super) lowering: Lowering,
    /// Initialisers of many elements that are decoded when they are read; of these `values` has the shape.
    deferred: BTreeMap<&'a str, &'a TensorProto>,
    /// Names that a node or an output of the graph uses.
    used: BTreeSet<&'a str>,
    file_name: &'a str,
    pub(super) problems: Problems,
}

pub(super) static EMPTY: GraphProto = GraphProto {
    node: Vec::new(),
    name: String::new(),
    initializer: Vec::new(),
    sparse_initializer: Vec::new(),
    doc_string: String::new(),
    input: Vec::new(),
    output: Vec::new(),
    value_info: Vec::new(),
    quantization_annotation: Vec::new(),
};

/// Where ops of a node come from: its name, and its index in the file.
pub(super) fn place_of(graph: &GraphProto, index: usize, file_name: &str) -> Location {
    let line = u32::try_from(index).unwrap_or(u32::MAX);
    Location::in_file(node_name(&graph.node[index]), file_name, line, 0)
}

impl<'a> Walk<'a> {
    /// Reads initialisers and inputs, and orders the nodes.
    ///
    /// # Errors
    /// If the graph contradicts itself, an input has no shape, or a tensor is of a kind that is not
    /// supported.
    pub(super) fn begin(model: &'a ModelProto, options: &'a ImportOptions) -> Result<Self, ImportError> {
        let mut problems = Problems::default();
        let graph = model.graph.as_ref().unwrap_or(&EMPTY);
        if model.graph.is_none() {
            problems.malformed("file", "it holds no graph");
        }
        let opset = model.opset_import.iter().find(|set| set.domain.is_empty()).map_or(0, |set| set.version);
        if opset < 1 && graph.node.iter().any(|n| n.domain.is_empty()) {
            problems.malformed("file", "it does not say which version of ONNX's operator set it uses");
        }
        if graph.output.is_empty() {
            problems.malformed("graph", "it has no outputs");
        }

        let Initialisers { values, deferred } = initialisers(graph, &mut problems);
        let inputs = settle_inputs(graph, options, &mut problems);
        let order = topological_order(graph, &values, &inputs, &mut problems);
        problems.check()?;

        let args = argument_types(&inputs, &mut problems);
        if opset > versions::NEWEST {
            let newest = versions::NEWEST;
            let why = format!("the model uses operator set {opset}; up to {newest} are known");
            problems.unsupported(&graph.name, "graph", why);
        }
        if !problems.unsupported.is_empty() {
            // The nodes that are unsupported whatever their operands are belong in the same list.
            for proto in &graph.node {
                if let Err(error) = check_operator(proto, opset_of(proto, opset)) {
                    problems.lowering(node_name(proto), &proto.op_type, &proto.domain, error);
                }
            }
            problems.check()?;
        }
        let used = graph.node.iter().flat_map(|n| &n.input).chain(graph.output.iter().map(|o| &o.name));
        let used: BTreeSet<&str> = used.map(String::as_str).filter(|name| !name.is_empty()).collect();
        let lowering = Lowering::new(args);
        let mut walk = Self {
            graph,
            opset,
            inputs,
            order,
            values,
            deferred,
            lowering,
            used,
            file_name: &options.file_name,
            problems,
        };
        walk.define_inputs();
        walk.problems.check()?;
        Ok(walk)
    }

    /// Makes the inputs known to the nodes.
    fn define_inputs(&mut self) {
        let em = &self.lowering.em;
        for (input, &value) in self.inputs.iter().zip(em.module.args(em.block)) {
            // A tensor without elements is known.
            let value = if input.shape.contains(&0) {
                Array::empty(input.shape.clone(), input.dtype).map(Value::from)
            } else {
                Ok(View::plain(value, input.shape.clone(), &input.perm, input.dtype).into())
            };
            match value {
                Ok(value) => drop(self.values.insert(input.name, value)),
                Err(error) => self.problems.lowering(input.name, "input", "", error),
            }
        }
    }

    /// Whether all operands of a node are known.
    pub(super) fn is_ready(&self, index: usize) -> bool {
        let inputs = &self.graph.node[index].input;
        inputs.iter().all(|name| name.is_empty() || self.values.contains_key(name.as_str()))
    }

    /// Lowers a node. If not all its operands are known it is only checked for support.
    pub(super) fn lower(&mut self, index: usize) -> Lowered<()> {
        let proto = &self.graph.node[index];
        self.lowering.em.loc = place_of(self.graph, index, self.file_name);
        let opset = opset_of(proto, self.opset);
        check_operator(proto, opset)?;
        if !self.is_ready(index) {
            return Ok(());
        }
        for name in &proto.input {
            self.read(name)?;
        }
        let inputs = proto.input.iter().map(|name| self.values.get(name.as_str()).cloned()).collect();
        let node = Node { proto, opset, inputs, used: &self.used };
        let outputs = lower_node(&mut self.lowering, &node)?;
        for (name, value) in proto.output.iter().zip(outputs).filter(|(name, _)| !name.is_empty()) {
            self.values.insert(name, value);
        }
        Ok(())
    }
}

impl<'a> Walk<'a> {
    /// Decodes an initialiser that was not read before.
    pub(super) fn read(&mut self, name: &str) -> Lowered<()> {
        if let Some((name, tensor)) = self.deferred.remove_entry(name) {
            self.values.insert(name, Array::decode(tensor)?.into());
        }
        Ok(())
    }

    /// Lets go of the elements of a large constant that nothing reads any more, but for its shape.
    pub(super) fn forget(&mut self, name: &str) {
        let Some(value) = self.values.get_mut(name) else { return };
        if let Value::Const(array) = value
            && array.has_many_floats()
        {
            *value = Array::unread(array.shape.clone(), array.dtype).into();
        }
    }
}

/// The initialisers of a graph, by name.
struct Initialisers<'a> {
    values: BTreeMap<&'a str, Value>,
    /// Those that are decoded when they are read.
    deferred: BTreeMap<&'a str, &'a TensorProto>,
}

fn initialisers<'a>(graph: &'a GraphProto, problems: &mut Problems) -> Initialisers<'a> {
    let mut values: BTreeMap<&str, Value> = BTreeMap::new();
    let mut deferred: BTreeMap<&str, &TensorProto> = BTreeMap::new();
    for tensor in &graph.initializer {
        let decoded = match Array::deferred_shape(tensor) {
            Some(shape) => {
                deferred.insert(&tensor.name, tensor);
                Ok(Array::unread(shape, DataType::Float))
            }
            None => Array::decode(tensor),
        };
        match decoded {
            Ok(array) => {
                if values.insert(&tensor.name, array.into()).is_some() {
                    problems.malformed(format!("initialiser `{}`", tensor.name), "it is defined twice");
                }
            }
            Err(error) => problems.lowering(&tensor.name, "initialiser", "", error),
        }
    }
    if let Some(sparse) = graph.sparse_initializer.first() {
        let name = sparse.values.as_ref().map_or("", |v| &v.name);
        problems.unsupported(name, "initialiser", "sparse tensors");
    }
    Initialisers { values, deferred }
}

/// The types of the function's arguments, one an input.
fn argument_types(inputs: &[Input<'_>], problems: &mut Problems) -> Vec<Type> {
    let mut args = Vec::new();
    for input in inputs {
        match elem_of(input.dtype) {
            Ok(elem) => {
                let shape: Vec<_> = input.perm.iter().map(|&axis| input.shape[axis]).collect();
                args.push(Type::tensor(shape, elem));
            }
            Err(error) => problems.lowering(input.name, "input", "", error),
        }
    }
    args
}

/// Whether the node's operator is one that the table has, at this version.
pub(super) fn check_operator(proto: &NodeProto, opset: i64) -> Lowered<()> {
    if proto.domain == "com.microsoft.nchwc" {
        unsupported!(
            "its weights are laid out for one processor; have onnxruntime save the model at the \
                optimisation level \
             `extended`, not `all`"
        );
    }
    if !matches!(proto.domain.as_str(), "" | MICROSOFT_DOMAIN) {
        unsupported!("operators of the domain `{}` are not known", proto.domain);
    }
    if opset > versions::NEWEST {
        unsupported!("operator set {opset} is not known; up to {} are", versions::NEWEST);
    }
    match find(&proto.domain, &proto.op_type) {
        None => match why_left(&proto.op_type).filter(|_| proto.domain.is_empty()) {
            Some(why) => unsupported!("{why}"),
            None => unsupported!("the operator is not supported"),
        },
        Some(op) if opset < op.since_opset => {
            unsupported!("its definition before operator set {} is not supported", op.since_opset)
        }
        Some(_) => Ok(()),
    }
}

pub(super) fn lower_node(lowering: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    if let Some(folded) = fold::fold(node)? {
        return Ok(folded.into_iter().map(Value::from).collect());
    }
    let Some(op) = find(&node.proto.domain, &node.proto.op_type) else {
        unsupported!("the operator is not supported")
    };
    let constant = |input: &Option<Value>| input.as_ref().is_none_or(|v| matches!(v, Value::Const(_)));
    let outputs = if node.inputs.iter().all(constant) {
        evaluate(op.lower, node)?
    } else {
        (op.lower)(lowering, node)?
    };
    lowering.em.check()?;
    if let Some(empty) = outputs.iter().find(|v| matches!(v, Value::View(_)) && v.shape().contains(&0)) {
        unsupported!("a result without elements, of shape {:?}", empty.shape());
    }
    Ok(outputs)
}

/// Lowers a node of constants into a function of its own and runs that.
fn evaluate(lower: LowerFn, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let mut scratch = Lowering::new(Vec::new());
    let outputs = lower(&mut scratch, node)?;
    scratch.em.check()?;
    let mut views = Vec::new();
    if outputs.iter().all(|output| matches!(output, Value::Const(_))) {
        return Ok(outputs);
    }
    for output in &outputs {
        let view = scratch.view(output)?;
        let value = scratch.external(&view);
        views.push((value, view));
    }
    let results: Vec<_> = views.iter().map(|(value, _)| *value).collect();
    let block = scratch.em.block;
    scratch.em.module.append(block, FuncReturn {}, &results, &[], Location::unknown());
    let func = scratch.em.module.block_op(block);
    let tensors = match strata_ir::eval::eval_function(&scratch.em.module, func, Vec::new()) {
        Ok(tensors) => tensors,
        Err(error) => return Err(LowerError::Invalid(format!("it cannot be evaluated: {error}"))),
    };
    let array = |(tensor, (_, view)): (Tensor, (_, View))| {
        let data = match tensor.into_data() {
            TensorData::F32(v) => Data::Float(Arc::new(v)),
            TensorData::I1(v) => Data::Bool(Arc::new(v)),
            other => Data::Int(Arc::new(other.to_ints().unwrap_or_default())),
        };
        Value::from(Array { shape: view.shape, data, dtype: view.dtype, quant: None })
    };
    Ok(tensors.into_iter().zip(views).map(array).collect())
}

/// The code of an element type that later versions of ONNX have.
fn unknown_type(info: &ValueInfoProto) -> Option<i32> {
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref()?.value.as_ref() else {
        return None;
    };
    DataType::try_from(tensor.elem_type).is_err().then_some(tensor.elem_type)
}

/// Declared type and extents of an input.
fn declared(info: &ValueInfoProto) -> Option<(DataType, Option<Vec<Extent>>)> {
    let type_proto::Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()?;
    let dtype = DataType::try_from(tensor.elem_type).ok()?;
    let extent = |value: &Option<dimension::Value>| match value {
        Some(dimension::Value::DimValue(v)) if *v >= 0 => usize::try_from(*v).map_err(|_| v.to_string()),
        Some(dimension::Value::DimValue(v)) => Err(v.to_string()),
        Some(dimension::Value::DimParam(name)) if !name.is_empty() => Err(name.clone()),
        _ => Err("?".to_owned()),
    };
    Some((dtype, tensor.shape.as_ref().map(|shape| shape.dim.iter().map(|d| extent(&d.value)).collect())))
}

pub(super) fn settle_inputs<'a>(
    graph: &'a GraphProto,
    options: &ImportOptions,
    problems: &mut Problems,
) -> Vec<Input<'a>> {
    let filled: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut inputs: Vec<Input<'_>> = Vec::new();
    let free = |info: &&ValueInfoProto| !filled.contains(info.name.as_str());
    for info in graph.input.iter().filter(free) {
        let name = &info.name;
        if let Some(code) = unknown_type(info) {
            let why = LowerError::Unsupported(format!("run-time tensors of element type {code}"));
            problems.lowering(name, "input", "", why);
            continue;
        }
        let Some((dtype, extents)) = declared(info) else {
            problems.malformed(format!("input `{name}`"), "it has no tensor type");
            continue;
        };
        if inputs.iter().any(|i| i.name == name) {
            problems.malformed(format!("input `{name}`"), "it is declared twice");
            continue;
        }
        let shape = match settled_shape(name, extents.as_deref(), options.input_shapes.get(name)) {
            Ok(shape) => shape,
            Err(why) => {
                problems.shapes.push(why);
                continue;
            }
        };
        if shape.len() > MAX_RANK {
            let why = format!("tensors of rank {} (up to {MAX_RANK} are supported)", shape.len());
            problems.lowering(name, "input", "", LowerError::Unsupported(why));
            continue;
        }
        let Some(dtype_name) = dtype::name(dtype) else {
            problems.unsupported(name, "input", format!("elements of type {dtype:?}"));
            continue;
        };
        let perm = if options.plain_layout {
            (0..shape.len()).collect()
        } else {
            wanted_order(graph, name, shape.len())
        };
        inputs.push(Input { name, shape, dtype, dtype_name, perm });
    }
    for name in options.input_shapes.keys().filter(|name| !graph.input.iter().any(|i| i.name == **name)) {
        let known: Vec<_> = graph.input.iter().filter(free).map(|i| format!("`{}`", i.name)).collect();
        problems.shapes.push(format!("there is no input `{name}`; there are {}", known.join(", ")));
    }
    inputs
}

/// The shape of an input of which extents are declared and a shape may be given; else what is wrong.
fn settled_shape(
    name: &str,
    extents: Option<&[Extent]>,
    given: Option<&Vec<usize>>,
) -> Result<Vec<usize>, String> {
    let spelled = || {
        let text = |e: &Extent| e.as_ref().map_or_else(String::clone, usize::to_string);
        extents.unwrap_or_default().iter().map(text).collect::<Vec<_>>().join("x")
    };
    let shape = match (given, extents) {
        (Some(given), Some(extents)) if given.len() != extents.len() => {
            let (rank, spelled) = (extents.len(), spelled());
            return Err(format!("input `{name}` is of rank {rank} ({spelled}), not {}", given.len()));
        }
        (Some(given), _) => given.clone(),
        (None, None) => {
            return Err(format!("input `{name}` declares no shape; give one with --input-shape {name}=…"));
        }
        (None, Some(extents)) => {
            // A dynamic batch is one picture.
            let settled = extents.iter().enumerate().map(|(axis, extent)| match extent {
                Ok(extent) => Some(*extent),
                Err(_) if axis == 0 => Some(1),
                Err(_) => None,
            });
            settled.collect::<Option<Vec<_>>>().ok_or_else(|| {
                let spelled = spelled();
                format!("input `{name}` is declared as {spelled}; give its shape with --input-shape {name}=…")
            })?
        }
    };
    let n_elements = shape.iter().try_fold(1usize, |n, &e| n.checked_mul(e));
    match n_elements.is_some_and(|n| (0..=1 << 31).contains(&n)) {
        true => Ok(shape),
        false => Err(format!("input `{name}` cannot have the shape {shape:?}")),
    }
}

/// The order in which the first spatial op that an input reaches wants its axes; found through transposes and
/// ops that keep axes as they are.
fn wanted_order(graph: &GraphProto, input: &str, rank: usize) -> Vec<usize> {
    let mut consumers: BTreeMap<&str, Vec<&NodeProto>> = BTreeMap::new();
    for node in &graph.node {
        for name in &node.input {
            consumers.entry(name).or_default().push(node);
        }
    }
    let identity: Vec<usize> = (0..rank).collect();
    let mut seen = BTreeSet::from([input]);
    // A tensor, and for each of its axes the input's.
    let mut queue = VecDeque::from([(input, identity.clone())]);
    while let Some((name, axes)) = queue.pop_front() {
        for node in consumers.get(name).into_iter().flatten() {
            let followed = match node.op_type.as_str() {
                "Conv"
                | "ConvTranspose"
                | "MaxPool"
                | "AveragePool"
                | "GlobalAveragePool"
                | "GlobalMaxPool"
                | "BatchNormalization"
                | "InstanceNormalization"
                | "Resize"
                | "Upsample"
                | "PRelu"
                | "LRN"
                | "SpaceToDepth"
                | "DepthToSpace"
                | "QLinearConv"
                | "ConvInteger"
                | "QLinearAveragePool"
                | "QLinearGlobalAveragePool" => {
                    return channels_last(rank).into_iter().map(|axis| axes[axis]).collect();
                }
                "Transpose" => {
                    let perm = node.attribute.iter().find(|a| a.name == "perm");
                    let perm: Vec<usize> = match perm {
                        Some(perm) => perm.ints.iter().map(|&p| usize::try_from(p).unwrap_or(rank)).collect(),
                        None => (0..rank).rev().collect(),
                    };
                    perm.iter().map(|&p| axes.get(p).copied()).collect::<Option<Vec<_>>>()
                }
                "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "MatMul" | "Gemm" | "Shape" | "Size"
                | "Gather" | "GatherElements" | "GatherND" | "Expand" | "Tile" | "ArgMax" | "ArgMin"
                | "Einsum" | "OneHot" | "TopK" | "GRU" | "LSTM" | "RNN" => None,
                _ => Some(axes.clone()),
            };
            if let Some(axes) = followed.filter(|axes| axes.len() == rank) {
                for output in node.output.iter().filter(|o| !o.is_empty()) {
                    if seen.insert(output) {
                        queue.push_back((output, axes.clone()));
                    }
                }
            }
        }
    }
    identity
}

/// Node indices such that operands come first. Reports names that nothing defines, and cycles.
fn topological_order(
    graph: &GraphProto,
    values: &BTreeMap<&str, Value>,
    inputs: &[Input<'_>],
    problems: &mut Problems,
) -> Vec<usize> {
    let mut producer: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        for output in node.output.iter().filter(|o| !o.is_empty()) {
            if producer.insert(output, index).is_some() || values.contains_key(output.as_str()) {
                problems.malformed(format!("tensor `{output}`"), "it is defined twice");
            }
        }
    }
    let declared: BTreeSet<&str> =
        graph.input.iter().map(|i| i.name.as_str()).chain(inputs.iter().map(|i| i.name)).collect();
    // Initialisers that could not be decoded are already reported.
    let initialised: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let mut n_missing = vec![0usize; graph.node.len()];
    let mut waiting: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        for name in reads(node) {
            if let Some(&from) = producer.get(name) {
                n_missing[index] += 1;
                waiting.entry(from).or_default().push(index);
            } else if !declared.contains(name) && !initialised.contains(name) {
                let place = format!("{} `{}`", node.op_type, node_name(node));
                problems.malformed(place, format!("its operand `{name}` is defined nowhere"));
            }
        }
    }
    let mut ready: BTreeSet<usize> = (0..graph.node.len()).filter(|&i| n_missing[i] == 0).collect();
    let mut order = Vec::new();
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for &user in waiting.get(&index).into_iter().flatten() {
            n_missing[user] -= 1;
            if n_missing[user] == 0 {
                ready.insert(user);
            }
        }
    }
    if order.len() < graph.node.len() {
        let stuck: Vec<_> = (0..graph.node.len())
            .filter(|&i| n_missing[i] > 0)
            .map(|i| format!("`{}`", node_name(&graph.node[i])))
            .take(8)
            .collect();
        problems.malformed("graph", format!("nodes depend on themselves: {}", stuck.join(", ")));
    }
    order
}
