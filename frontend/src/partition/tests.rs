//! Cuts of small graphs: which nodes go where, and what passes between the parts.

use super::*;
use crate::import::{ImportOptions, survey};
use crate::proto::NodeProto;

/// A graph of nodes `name: op inputs -> output`, on an image `x` of `[1, 2, 4, 4]`, with weights `w` of
/// `[2, 2, 1, 1]`.
fn model(nodes: &[(&str, &str, &str)], results: &[&str]) -> ModelProto {
    let node = |&(op, inputs, output): &(&str, &str, &str)| NodeProto {
        op_type: op.to_owned(),
        name: format!("{op}_{output}"),
        input: inputs.split_whitespace().map(str::to_owned).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    let image = Fact { shape: vec![1, 2, 4, 4], dtype: DataType::Float };
    let info = |name: &str| ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(tensor_type(&image)),
        doc_string: String::new(),
    };
    let weight = tract_onnx::pb::TensorProto {
        name: "w".to_owned(),
        dims: vec![2, 2, 1, 1],
        data_type: DataType::Float as i32,
        float_data: vec![0.5, 1.0, -0.5, 0.25],
        ..Default::default()
    };
    let graph = GraphProto {
        node: nodes.iter().map(node).collect(),
        input: vec![info("x")],
        output: results.iter().map(|name| info(name)).collect(),
        initializer: vec![weight],
        ..GraphProto::default()
    };
    let opset = tract_onnx::pb::OperatorSetIdProto { domain: String::new(), version: 13 };
    ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() }
}

/// The parts of a cut that leaves what the import does not take to the host, as `host` or `machine`, nodes,
/// inputs, outputs.
fn cut(model: &ModelProto) -> Vec<(&'static str, Vec<usize>, String, String)> {
    let survey = survey(model, &ImportOptions::default()).expect("the graph is sound");
    let host = survey.blocked.keys().copied().collect();
    let parts = partition(model, &survey, &host);
    let describe = |part: &GraphPart| {
        let place = match part.runner {
            Runner::Machine => "machine",
            Runner::Evaluator => "evaluator",
            Runner::Library => "library",
        };
        (place, part.nodes.clone(), part.inputs().join(" "), part.outputs().join(" "))
    };
    parts.iter().map(describe).collect()
}

#[test]
fn a_node_in_the_middle_makes_three_parts() {
    let model = model(&[("Conv", "x w", "a"), ("Hardmax", "a", "b"), ("Conv", "b w", "y")], &["y"]);
    assert_eq!(
        cut(&model),
        [
            ("machine", vec![0], "x".to_owned(), "a".to_owned()),
            ("library", vec![1], "a".to_owned(), "b".to_owned()),
            ("machine", vec![2], "b".to_owned(), "y".to_owned()),
        ]
    );
}

#[test]
fn a_skip_past_the_host_is_handed_on() {
    let nodes = [
        ("Conv", "x w", "a"),
        ("Relu", "a", "skip"),
        ("Hardmax", "a", "b"),
        ("Conv", "b w", "c"),
        ("Add", "c skip", "y"),
    ];
    let parts = cut(&model(&nodes, &["y", "skip"]));
    assert_eq!(parts[0], ("machine", vec![0, 1], "x".to_owned(), "a skip".to_owned()));
    assert_eq!(parts[2], ("machine", vec![3, 4], "b skip".to_owned(), "y".to_owned()));
}

#[test]
fn what_does_not_multiply_stays_with_the_host() {
    let nodes = [("Hardmax", "x", "a"), ("Relu", "a", "b"), ("Hardmax", "b", "c"), ("Conv", "c w", "y")];
    let parts = cut(&model(&nodes, &["y"]));
    let places: Vec<_> = parts.iter().map(|part| (part.0, part.1.clone())).collect();
    // The host evaluates what the import takes, and leaves only the rest to its library.
    let host = [("library", vec![0]), ("evaluator", vec![1]), ("library", vec![2])];
    assert_eq!(places[..3], host);
    assert_eq!(places[3..], [("machine", vec![3])]);
    assert_eq!((&*parts[1].2, &*parts[1].3), ("a", "b"));
}

#[test]
fn parallel_branches_share_parts() {
    let nodes = [
        ("Conv", "x w", "a"),
        ("Hardmax", "a", "b"),
        ("Conv", "x w", "c"),
        ("Hardmax", "c", "d"),
        ("Add", "b d", "s"),
        ("Conv", "s w", "y"),
    ];
    let parts = cut(&model(&nodes, &["y"]));
    let places: Vec<_> = parts.iter().map(|part| (part.0, part.1.clone())).collect();
    assert_eq!(places, [("machine", vec![0, 2]), ("library", vec![1, 3]), ("machine", vec![4, 5])]);
}

/// What follows a result whose shape depends on the data has none that is known either.
#[test]
fn data_dependent_shapes_stay_with_the_host() {
    let nodes = [("Conv", "x w", "a"), ("NonZero", "a", "n"), ("Transpose", "n", "t"), ("Conv", "a w", "y")];
    let parts = cut(&model(&nodes, &["y", "t"]));
    let places: Vec<_> = parts.iter().map(|part| (part.0, part.1.clone())).collect();
    assert_eq!(places, [("machine", vec![0, 3]), ("library", vec![1, 2])]);
}

/// Shape arithmetic is constant in every part, and dead nodes are in none.
#[test]
fn constants_become_initialisers() {
    let nodes = [
        ("Conv", "x w", "a"),
        ("Shape", "a", "s"),
        ("Hardmax", "a", "b"),
        ("Reshape", "b s", "c"),
        ("Conv", "c w", "y"),
        ("Relu", "y", "unused"),
    ];
    let model = model(&nodes, &["y"]);
    let survey = survey(&model, &ImportOptions::default()).expect("the graph is sound");
    let host = survey.blocked.keys().copied().collect();
    let parts = partition(&model, &survey, &host);
    let nodes: Vec<_> = parts.iter().map(|part| part.nodes.clone()).collect();
    assert_eq!(nodes, [vec![0], vec![2], vec![3, 4]]);
    let last = parts[2].model.graph.as_ref().expect("a graph");
    let names: Vec<_> = last.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["w", "s"]);
}

/// An output that is constant beside one that is not is an initialiser where it is read, and defined only
/// there.
#[test]
fn constant_outputs_are_defined_once() {
    let mut model =
        model(&[("Split", "x none", "a"), ("Conv", "a w", "y"), ("Shape", "e", "s")], &["y", "s"]);
    let graph = model.graph.as_mut().expect("a graph");
    graph.node[0].output.push("e".to_owned());
    let axis =
        tract_onnx::pb::AttributeProto { name: "axis".to_owned(), i: 1, r#type: 2, ..Default::default() };
    graph.node[0].attribute.push(axis);
    graph.node.insert(
        1,
        NodeProto {
            op_type: "Hardmax".to_owned(),
            input: vec!["a".to_owned()],
            output: vec!["h".to_owned()],
            ..NodeProto::default()
        },
    );
    graph.node[2].input[0] = "h".to_owned();
    graph.output.push(ValueInfoProto { name: "e".to_owned(), ..ValueInfoProto::default() });
    graph.initializer.push(tract_onnx::pb::TensorProto {
        name: "none".to_owned(),
        dims: vec![2],
        data_type: DataType::Int64 as i32,
        int64_data: vec![2, 0],
        ..Default::default()
    });
    let survey = survey(&model, &ImportOptions::default()).expect("the graph is sound");
    let host = survey.blocked.keys().copied().collect();
    for part in partition(&model, &survey, &host) {
        let graph = part.model.graph.expect("a graph");
        let made: Vec<&str> = graph.node.iter().flat_map(|node| &node.output).map(String::as_str).collect();
        assert!(graph.initializer.iter().all(|tensor| !made.contains(&&*tensor.name)), "{made:?}");
    }
}

#[test]
fn work_counts_macs_and_elements() {
    let model = model(&[("Conv", "x w", "a"), ("Relu", "a", "y")], &["y"]);
    let survey = survey(&model, &ImportOptions::default()).expect("the graph is sound");
    let graph = model.graph.as_ref().expect("a graph");
    let works: Vec<_> = graph.node.iter().map(|node| work(node, &survey.facts)).collect();
    assert_eq!(works, [Work { macs: 64, elements: 32 }, Work { macs: 0, elements: 32 }]);
}
