//! Models that say things indirectly give what the same models give in plain words.

use std::collections::BTreeMap;

use prost::Message;
use strata_ir::Tensor;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    StringStringEntryProto, TensorProto, ValueInfoProto, type_proto,
};

use super::*;
use crate::import::tests::{Attr, Net, noise, run};
use crate::import::{Imported, import, import_resolved};

const SHAPE: [i64; 4] = [1, 3, 4, 6];
const PADS: (&str, Attr<'static>) = ("pads", Attr::Ints(&[1, 1, 1, 1]));

fn net() -> Net {
    Net::new(17, &SHAPE).weight("w", &[3, 3, 3, 3]).weight("b", &[3])
}

fn imported(bytes: &[u8]) -> Imported {
    import(bytes, &ImportOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn results(imported: &Imported) -> Vec<Tensor> {
    let shape = imported.inputs[0].shape.clone();
    let n = shape.iter().product();
    run(imported, &[Tensor::f32(shape, noise(n, 1))])
}

/// That the bytes of a file give what a plain model gives.
fn same(bytes: &[u8], plain: &ModelProto) {
    let (ours, theirs) = (results(&imported(bytes)), results(&imported(&plain.encode_to_vec())));
    assert_eq!(ours, theirs);
}

fn refused(bytes: &[u8]) -> String {
    import(bytes, &ImportOptions::default()).expect_err("it is refused").to_string()
}

fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().expect("a graph")
}

/// Nodes and outputs as a graph without inputs.
fn body(net: Net, inputs: &[&str], outputs: &str) -> GraphProto {
    let mut graph = net.model(outputs).graph.expect("a graph");
    let info = |name: &&str| ValueInfoProto { name: (*name).to_owned(), ..ValueInfoProto::default() };
    graph.input = inputs.iter().map(info).collect();
    graph
}

fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    let r#type = AttributeType::Graph as i32;
    AttributeProto { name: name.to_owned(), r#type, g: Some(graph), ..AttributeProto::default() }
}

fn with_graphs(mut model: ModelProto, op: &str, graphs: &[(&str, GraphProto)]) -> Vec<u8> {
    let nodes = graph(&mut model).node.iter_mut().filter(|node| node.op_type == op);
    for node in nodes {
        node.attribute.extend(graphs.iter().map(|(name, graph)| graph_attribute(name, graph.clone())));
    }
    model.encode_to_vec()
}

fn function(name: &str, inputs: &[&str], outputs: &[&str], nodes: Net, opset: i64) -> FunctionProto {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("own".to_owned()),
        input: names(inputs),
        output: names(outputs),
        node: nodes.model("").graph.expect("a graph").node,
        opset_import: vec![OperatorSetIdProto { domain: "ai.onnx".to_owned(), version: opset }],
        ..FunctionProto::default()
    }
}

/// Marks nodes of these operators as calls of the model's own functions.
fn calls(mut model: ModelProto, functions: Vec<FunctionProto>) -> ModelProto {
    let own = |node: &mut NodeProto| {
        if functions.iter().any(|function| function.name.as_ref() == Some(&node.op_type)) {
            node.domain = "own".to_owned();
        }
    };
    graph(&mut model).node.iter_mut().for_each(own);
    model.functions = functions.clone();
    model.functions.iter_mut().flat_map(|function| &mut function.node).for_each(own);
    model
}

/// Files in memory.
struct Files(BTreeMap<&'static str, Vec<u8>>);

impl SideFiles for Files {
    fn size_bytes(&self, name: &str) -> Result<u64, String> {
        self.0.get(name).map(|bytes| bytes.len() as u64).ok_or_else(|| "no such file".to_owned())
    }

    fn read(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, String> {
        let bytes = self.0.get(name).ok_or("no such file")?;
        Ok(bytes[offset as usize..(offset + length) as usize].to_vec())
    }
}

fn external(tensor: &mut TensorProto, entries: &[(&str, &str)]) {
    tensor.float_data.clear();
    tensor.data_location = Some(DataLocation::External as i32);
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    tensor.external_data = entries.iter().map(entry).collect();
}

#[test]
fn data_in_other_files_are_read_where_they_stand() {
    let plain = net().node("Conv", "x w b", "y", &[PADS]).model("y");
    let mut file = vec![0; 16];
    let mut model = plain.clone();
    for tensor in &mut graph(&mut model).initializer {
        let offset = file.len().to_string();
        file.extend(tensor.float_data.iter().flat_map(|v| v.to_le_bytes()));
        external(tensor, &[("location", "m.data"), ("offset", &offset)]);
    }
    let options = ImportOptions::default();
    let bytes = model.encode_to_vec();
    let resolve_with =
        |bytes: &[u8], file: Vec<u8>| resolve(bytes, &options, &Files(BTreeMap::from([("m.data", file)])));
    let resolved = resolve_with(&bytes, file.clone()).expect("the file is there");
    let ours = import_resolved(&resolved, &options).expect("plain now");
    assert_eq!(results(&ours), results(&imported(&plain.encode_to_vec())));

    file.truncate(file.len() - 1);
    let short = resolve_with(&bytes, file.clone()).expect_err("a byte is missing").to_string();
    assert!(short.contains("initialiser `b`") && short.contains("but the file has"), "{short}");
    assert!(!short.contains("initialiser `w`"), "{short}");
    assert!(refused(&bytes).contains("without its folder"));
    for (entries, complaint) in [
        (&[("location", "../m.data")][..], "leads out of the model's folder"),
        (&[("location", "/m.data")], "leads out of the model's folder"),
        (&[("location", "a\\..\\..\\m.data")], "leads out of the model's folder"),
        (&[("location", "n.data")], "no such file"),
        (&[("offset", "0")], "does not name"),
        (&[("location", "m.data"), ("offset", "-1")], "no number"),
        (&[("location", "m.data"), ("length", "3")], "ask for 12"),
        (&[("location", "m.data"), ("offset", "18446744073709551615")], "but the file has"),
    ] {
        let mut model = plain.clone();
        external(&mut graph(&mut model).initializer[1], entries);
        let error = resolve_with(&model.encode_to_vec(), file.clone()).expect_err("refused");
        assert!(matches!(error, ImportError::SideFiles(_)));
        assert!(error.to_string().contains(complaint), "{entries:?}: {error}");
    }
}

fn retyped(info: &mut ValueInfoProto, dtype: DataType) {
    if let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|t| t.value.as_mut()) {
        tensor.elem_type = dtype as i32;
    }
}

#[test]
fn other_floats_are_single_precision_inside_and_themselves_outside() {
    for (dtype, name) in [(DataType::Float16, "f16"), (DataType::Double, "f64"), (DataType::Bfloat16, "f32")]
    {
        let to = ("to", Attr::Int(dtype as i64));
        let net = |cast| {
            Net::new(17, &SHAPE)
                .floats("w", &[2, 3, 1, 1], vec![1.0, -2.0, 0.5, 0.25, 4.0, -0.75])
                .node("Conv", "x w", "c", &[])
                .node("Cast", "c", "y", &[cast])
        };
        let plain = net(("to", Attr::Int(1))).model("y");
        let mut model = net(to).model("y");
        let graph = graph(&mut model);
        retyped(&mut graph.input[0], dtype);
        retyped(&mut graph.output[0], dtype);
        let weight = &mut graph.initializer[0];
        weight.data_type = dtype as i32;
        weight.raw_data = std::mem::take(&mut weight.float_data)
            .into_iter()
            .flat_map(|v| match dtype {
                // All weights are a power of two, or 0.75.
                DataType::Float16 => {
                    let bits = v.to_bits();
                    let exponent = (bits >> 23 & 0xff) + 15 - 127;
                    let half = bits >> 31 << 15 | exponent << 10 | (bits >> 13 & 0x3ff);
                    (half as u16).to_le_bytes().to_vec()
                }
                DataType::Bfloat16 => v.to_le_bytes()[2..].to_vec(),
                _ => f64::from(v).to_le_bytes().to_vec(),
            })
            .collect();
        same(&model.encode_to_vec(), &plain);
        let imported = imported(&model.encode_to_vec());
        assert_eq!((imported.inputs[0].dtype, imported.outputs[0].dtype), (name, name));
    }
}

#[test]
fn functions_stand_for_their_bodies() {
    let act = net().node("Relu", "a", "t", &[]).node("Add", "t a", "r", &[]);
    let layer = net().node("Conv", "a k c", "t", &[PADS]).node("Act", "t", "r", &[]);
    let functions = vec![
        function("Act", &["a"], &["r"], act, 17),
        function("Layer", &["a", "k", "c"], &["r"], layer, 17),
    ];
    let model = net().node("Layer", "x w b", "t", &[]).node("Layer", "t w", "y", &[]).model("y");
    let plain = net()
        .node("Conv", "x w b", "c1", &[PADS])
        .node("Relu", "c1", "r1", &[])
        .node("Add", "r1 c1", "t", &[])
        .node("Conv", "t w", "c2", &[PADS])
        .node("Relu", "c2", "r2", &[])
        .node("Add", "r2 c2", "y", &[]);
    let model = calls(model, functions);
    same(&model.encode_to_vec(), &plain.model("y"));
    let resolved = resolve(&model.encode_to_vec(), &ImportOptions::default(), &NoSideFiles).expect("plain");
    let nodes = &resolved.model.graph.as_ref().expect("a graph").node;
    assert_eq!(nodes[0].name, "node_0/node_0");
    assert_eq!(nodes.iter().map(|node| &node.output[0]).collect::<std::collections::BTreeSet<_>>().len(), 6);
}

#[test]
fn functions_may_give_what_they_take_and_must_not_call_themselves() {
    let through = net().node("Relu", "a", "r", &[]);
    let functions = vec![function("Both", &["a"], &["r", "a", "r"], through, 17)];
    let model = net().node("Both", "x", "p q s", &[]).node("Sum", "p q s", "y", &[]).model("y");
    let plain = net().node("Relu", "x", "r", &[]).node("Sum", "r x r", "y", &[]).model("y");
    same(&calls(model, functions).encode_to_vec(), &plain);

    let again = function("Again", &["a"], &["r"], net().node("Again", "a", "r", &[]), 17);
    let model = net().node("Again", "x", "y", &[]).model("y");
    assert!(refused(&calls(model, vec![again]).encode_to_vec()).contains("it calls itself"));
}

#[test]
fn functions_keep_their_own_operator_set() {
    // Up to operator set 12 the axes are an attribute.
    let squeeze = net().node("Squeeze", "a", "r", &[("axes", Attr::Ints(&[0]))]);
    let model = net().node("Drop", "x", "y", &[]).model("y");
    let plain = net().ints("axes", &[0]).node("Squeeze", "x axes", "y", &[]).model("y");
    same(&calls(model, vec![function("Drop", &["a"], &["r"], squeeze, 11)]).encode_to_vec(), &plain);
    // The least value is an operand from 11 on.
    let clip = net().node("Clip", "a", "r", &[("min", Attr::Float(0.25))]);
    let model = net().node("Least", "x", "y", &[]).model("y");
    let plain = net().floats("least", &[], vec![0.25]).node("Clip", "x least", "y", &[]).model("y");
    same(&calls(model, vec![function("Least", &["a"], &["r"], clip, 6)]).encode_to_vec(), &plain);
}

/// A field of bytes in the protobuf wire format.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

#[test]
fn attributes_overloads_and_defaults_reach_the_body() {
    let float = |name: &str, f: f32| AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Float as i32,
        f,
        ..AttributeProto::default()
    };
    let mut leaky = function("Leaky", &["a"], &["r"], net().node("LeakyRelu", "a", "r", &[]), 17);
    leaky.node[0].attribute =
        vec![AttributeProto { ref_attr_name: "slope".to_owned(), ..float("alpha", 0.0) }];
    let other = function("Leaky", &["a"], &["r"], net().node("Neg", "a", "r", &[]), 17);

    // Two functions of one name; the first has a default.
    let mut first = leaky.encode_to_vec();
    first.extend(field(11, &float("slope", 0.5).encode_to_vec()));
    let mut second = other.encode_to_vec();
    second.extend(field(13, b"negated"));
    let call = |input: &str, output: &str, attribute: Vec<AttributeProto>| NodeProto {
        op_type: "Leaky".to_owned(),
        domain: "own".to_owned(),
        input: vec![input.to_owned()],
        output: vec![output.to_owned()],
        attribute,
        ..NodeProto::default()
    };
    let mut overloaded = call("s", "y", Vec::new()).encode_to_vec();
    overloaded.extend(field(8, b"negated"));
    let mut model = net().model("y");
    graph(&mut model).node = vec![call("x", "t", Vec::new()), call("t", "s", vec![float("slope", 0.125)])];
    let mut bytes = model.encode_to_vec();
    bytes.extend(field(7, &field(1, &overloaded)));
    bytes.extend(field(25, &first));
    bytes.extend(field(25, &second));
    let plain = net()
        .node("LeakyRelu", "x", "t", &[("alpha", Attr::Float(0.5))])
        .node("LeakyRelu", "t", "s", &[("alpha", Attr::Float(0.125))])
        .node("Neg", "s", "y", &[]);
    same(&bytes, &plain.model("y"));
}

#[test]
fn inputs_that_are_no_tensors_are_told_of() {
    let mut bytes = net().node("Relu", "x", "y", &[]).model("y").encode_to_vec();
    let mut info = field(1, b"list");
    info.extend(field(2, &field(4, &[])));
    bytes.extend(field(7, &field(11, &info)));
    assert!(refused(&bytes).contains("input `list`: a sequence"));
}

/// Nodes that give whether axis `axis` of a tensor is 1, as `q`.
fn is_one(net: Net, tensor: &str, axis: i64, q: &str) -> Net {
    let (shape, extent, index) = (format!("{q}_shape"), format!("{q}_extent"), format!("{q}_index"));
    net.ints(&index, &[axis])
        .node("Shape", tensor, &shape, &[])
        .node("Gather", &format!("{shape} {index}"), &extent, &[("axis", Attr::Int(0))])
        .node("Equal", &format!("{extent} one"), q, &[])
}

#[test]
fn branches_are_taken_where_the_condition_is_known() {
    let start = net().ints("one", &[1]).node("GlobalAveragePool", "x", "p", &[]);
    let squeezed = body(net().node("Squeeze", "p", "s", &[]), &[], "s");
    let kept = body(net().node("Identity", "p", "s", &[]), &[], "s");
    let model = is_one(start, "p", 2, "q").node("If", "q", "t", &[]);
    let model = model.node("Relu", "t", "y", &[]).model("y");
    let bytes = with_graphs(model, "If", &[("then_branch", squeezed), ("else_branch", kept)]);
    let plain = net().node("GlobalAveragePool", "x", "p", &[]).node("Squeeze", "p", "t", &[]).node(
        "Relu",
        "t",
        "y",
        &[],
    );
    same(&bytes, &plain.model("y"));

    // Results of the model that are a weight of the branch and a tensor from outside.
    let mut branch = body(net(), &[], "v x");
    branch.initializer[1].name = "v".to_owned();
    let model = is_one(net().ints("one", &[1]), "x", 0, "q").node("If", "q", "y z", &[]).model("y z");
    let bytes =
        with_graphs(model, "If", &[("then_branch", branch), ("else_branch", body(net(), &[], "b x"))]);
    let plain = net().node("Identity", "b", "y", &[]).node("Identity", "x", "z", &[]).model("y z");
    same(&bytes, &plain);
}

#[test]
fn branches_on_the_data_are_left_and_refused() {
    let model = net()
        .node("ReduceMax", "x", "m", &[("keepdims", Attr::Int(0))])
        .node("Greater", "m m", "q", &[])
        .node("If", "q", "y", &[]);
    let branch = |op: &str| body(net().node(op, "x", "t", &[]), &[], "t");
    let graphs = [("then_branch", branch("Relu")), ("else_branch", branch("Neg"))];
    let error = refused(&with_graphs(model.model("y"), "If", &graphs));
    assert!(error.contains("its condition depends on the data"), "{error}");
}

fn with_loop(turns: i64) -> Vec<u8> {
    let turn = net()
        .node("Conv", "s w b", "c", &[PADS])
        .node("Relu", "c", "n", &[])
        .node("ReduceMean", "n", "m", &[("axes", Attr::Ints(&[2, 3])), ("keepdims", Attr::Int(0))])
        .node("Identity", "go", "on", &[]);
    let mut turn = body(turn, &["turn", "go", "s"], "on n m");
    turn.initializer.clear();
    let model = net().ints("turns", &[turns]).node("Loop", "turns _ x", "y z", &[]).model("y z");
    with_graphs(model, "Loop", &[("body", turn)])
}

#[test]
fn loops_are_unrolled_and_their_results_put_together() {
    let mut plain = net();
    for (at, (from, to)) in [("x", "s1"), ("s1", "s2"), ("s2", "y")].into_iter().enumerate() {
        let (c, m, u) = (format!("c{at}"), format!("m{at}"), format!("u{at}"));
        plain = plain
            .node("Conv", &format!("{from} w b"), &c, &[PADS])
            .node("Relu", &c, to, &[])
            .node("ReduceMean", to, &m, &[("axes", Attr::Ints(&[2, 3])), ("keepdims", Attr::Int(0))])
            .node("Unsqueeze", &format!("{m} first"), &u, &[]);
    }
    let plain = plain.ints("first", &[0]).node("Concat", "u0 u1 u2", "z", &[("axis", Attr::Int(0))]);
    same(&with_loop(3), &plain.model("y z"));
    let error = refused(&with_loop(1 << 40));
    assert!(error.contains("more than can be unrolled"), "{error}");
}

#[test]
fn sequences_are_followed_by_the_names_in_them() {
    let model = net()
        .ints("one", &[1])
        .ints("last", &[-1])
        .node("SplitToSequence", "x", "list", &[("axis", Attr::Int(1)), ("keepdims", Attr::Int(0))])
        .node("SequenceAt", "list last", "c", &[])
        .node("SequenceErase", "list", "two", &[])
        .node("SequenceInsert", "two c one", "turned", &[])
        .node("ConcatFromSequence", "turned", "y", &[("axis", Attr::Int(1)), ("new_axis", Attr::Int(1))])
        .node("SequenceLength", "turned", "n", &[]);
    let plain = net().ints("order", &[0, 2, 1]).ints("three", &[3]).ints("none", &[]);
    let plain = plain.node("Gather", "x order", "y", &[("axis", Attr::Int(1))]).node(
        "Reshape",
        "three none",
        "n",
        &[],
    );
    same(&model.model("y n").encode_to_vec(), &plain.model("y n"));
}

#[test]
fn optional_values_fold() {
    let model = net().node("Optional", "x", "o", &[]).node("OptionalHasElement", "o", "q", &[]);
    let model = model.node("If", "q", "y", &[]).model("y");
    let there = body(net().node("OptionalGetElement", "o", "e", &[]).node("Relu", "e", "r", &[]), &[], "r");
    let absent = body(net().node("Neg", "x", "r", &[]), &[], "r");
    let bytes = with_graphs(model, "If", &[("then_branch", there), ("else_branch", absent)]);
    same(&bytes, &net().node("Relu", "x", "y", &[]).model("y"));
}

#[test]
fn sparse_tensors_are_made_dense() {
    let mut dense = vec![0.0; 9];
    (dense[1], dense[5]) = (2.0, -0.5);
    let net = || Net::new(17, &SHAPE).node("Conv", "x w", "y", &[]);
    let plain = net().floats("w", &[3, 3, 1, 1], dense).model("y");
    let ints = |dims: &[i64], data: &[i64]| TensorProto {
        dims: dims.to_vec(),
        data_type: DataType::Int64 as i32,
        int64_data: data.to_vec(),
        ..TensorProto::default()
    };
    let values = TensorProto {
        name: "w".to_owned(),
        dims: vec![2],
        data_type: DataType::Float as i32,
        float_data: vec![2.0, -0.5],
        ..TensorProto::default()
    };
    let model = |indices: TensorProto| {
        let mut model = net().model("y");
        graph(&mut model).sparse_initializer = vec![SparseTensorProto {
            values: Some(values.clone()),
            indices: Some(indices),
            dims: vec![3, 3, 1, 1],
        }];
        model.encode_to_vec()
    };
    same(&model(ints(&[2], &[1, 5])), &plain);
    same(&model(ints(&[2, 4], &[0, 1, 0, 0, 1, 2, 0, 0])), &plain);
    for (wrong, complaint) in [
        (ints(&[2], &[1, 9]), "out of its shape"),
        (ints(&[2], &[1, 1]), "two values for one element"),
        (ints(&[2], &[-1, 5]), "out of its shape"),
        (ints(&[2, 4], &[0, 1, 0, 0, 1, 3, 0, 0]), "out of its shape"),
        (ints(&[3], &[1, 2, 3]), "indices of shape [3] for 2 values"),
    ] {
        assert!(refused(&model(wrong)).contains(complaint), "{complaint}");
    }
}

#[test]
fn operator_sets_up_to_the_newest_known_are_taken() {
    let model = |opset: i64| {
        let mut model = net().node("Conv", "x w b", "y", &[PADS]).model("y");
        model.opset_import = vec![OperatorSetIdProto { domain: "ai.onnx".to_owned(), version: opset }];
        graph(&mut model).node[0].domain = "ai.onnx".to_owned();
        model.encode_to_vec()
    };
    let plain = net().node("Conv", "x w b", "y", &[PADS]).model("y");
    for opset in [17, 25, 26, 27, 28] {
        same(&model(opset), &plain);
    }
    assert!(refused(&model(29)).contains("operator set 29; up to 28 are known"));
}

#[test]
fn channels_of_blocks_are_ordered_as_operator_set_28_says() {
    let mode = |op: &'static str, from, to, net: Net| {
        net.node(op, from, to, &[("blocksize", Attr::Int(2)), ("mode", Attr::Text("CRD"))])
    };
    let there = mode("SpaceToDepth", "x", "d", Net::new(28, &SHAPE));
    let back = mode("DepthToSpace", "d", "y", there).model("y");
    same(&back.encode_to_vec(), &Net::new(28, &SHAPE).node("Identity", "x", "y", &[]).model("y"));
}
