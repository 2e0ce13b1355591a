//! Every network of the zoo that has a published implementation in PyTorch is made of the same layers: the
//! lists of `tests/zoo`, which `list_layers.py` there writes from what `torch.onnx` exports.

use super::*;

const LAYERS: &str = include_str!("../../../tests/zoo/layers.csv");
const NETWORKS: &str = include_str!("../../../tests/zoo/networks.csv");

/// The lines of a table after its header.
fn lines(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().skip(1)
}

/// The networks that have no implementation in PyTorch to be held against.
const WITHOUT: [ZooModel; 4] = [ZooModel::YoloV3, ZooModel::YoloV3Tiny, ZooModel::UNet, ZooModel::Fsrcnn];

/// A network at its usual size with its usual classes.
fn usual(model: ZooModel) -> Network {
    let (width, height) = model.default_size();
    let classes = model.default_classes().unwrap_or_default();
    model.network(Dimensions { width, height, classes })
}

/// What multiplies an input by weights, or two tensors by each other.
struct Product {
    line: String,
    macs: usize,
    is_conv: bool,
    /// The nodes up to the next product.
    then: Vec<String>,
}

impl Product {
    /// `None` if the node is no product.
    fn of(model: ZooModel, network: &Network, node: &pb::NodeProto) -> Option<Self> {
        if !matches!(&*node.op_type, "Conv" | "Gemm" | "MatMul") {
            return None;
        }
        let dims = |name: &String| network.dims_of(name).expect("every tensor is known");
        let (x, y) = (dims(&node.input[0]), dims(&node.output[0]));
        let is_conv = node.op_type == "Conv";
        let (shape, macs) = if is_conv {
            let ints = |name: &str| {
                let found = node.attribute.iter().find(|a| a.name == name);
                found.expect("a convolution has the attribute").ints.iter().map(|&v| v as usize)
            };
            let first = |name: &str| ints(name).next().expect("two axes");
            let group = node.attribute.iter().find(|a| a.name == "group").expect("a group").i as usize;
            let mut shape: Vec<usize> = ints("kernel_shape").collect();
            let n_taps: usize = shape.iter().product();
            let dilation = if n_taps > 1 { first("dilations") } else { 1 };
            shape.push(first("strides"));
            shape.extend(ints("pads").take(2));
            shape.extend([dilation, group, x[1], y[1], y[2], y[3]]);
            (shape, n_taps * x[1] / group * y.iter().product::<usize>())
        } else {
            let (features, out) = (x[x.len() - 1], y[y.len() - 1]);
            let n_rows = y.iter().product::<usize>() / out;
            (vec![1, 1, 1, 0, 0, 1, 1, features, out, n_rows, 1], n_rows * features * out)
        };
        let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
        let line = format!("{model},{},{}", node.op_type, shape.join(","));
        Some(Self { line, macs, is_conv, then: Vec::new() })
    }
}

/// The products of a network and what stands between them. A batch normalisation that follows a convolution
/// is left out, as the exporter folds it.
fn products(model: ZooModel, network: &Network) -> Vec<Product> {
    let mut products: Vec<Product> = Vec::new();
    for node in network.nodes() {
        if let Some(product) = Product::of(model, network, node) {
            products.push(product);
        } else {
            let last = products.last_mut().expect("a network begins with a convolution");
            let is_folded = node.op_type == "BatchNormalization" && last.is_conv && last.then.is_empty();
            if !is_folded {
                last.then.push(node.op_type.clone());
            }
        }
    }
    products
}

#[test]
fn layers_are_the_published_ones() {
    let mut n_compared = 0;
    for model in ZooModel::ALL.into_iter().filter(|model| !WITHOUT.contains(model)) {
        let prefix = format!("{model},");
        let mut published = lines(LAYERS).filter(|line| line.starts_with(&prefix));
        for (at, product) in products(model, &usual(model)).into_iter().enumerate() {
            let found = format!("{},{}", product.line, product.then.join(" "));
            assert_eq!(Some(&*found), published.next(), "{model}, product {at}");
            n_compared += 1;
        }
        assert_eq!(published.next(), None, "{model} has too few products");
    }
    assert_eq!(n_compared, lines(LAYERS).count());
}

#[test]
fn parameters_and_macs_are_the_published_ones() {
    let mut published = lines(NETWORKS);
    for model in ZooModel::ALL.into_iter().filter(|model| !WITHOUT.contains(model)) {
        let network = usual(model);
        // PyTorch does not count the means and variances of batch normalisations as parameters.
        let is_counted = |p: &&network::Parameter| {
            p.is_trained() && !p.name.ends_with(".mean") && !p.name.ends_with(".variance")
        };
        let parameters: usize = network.parameters().iter().filter(is_counted).map(|p| p.len()).sum();
        let macs: usize = products(model, &network).iter().map(|product| product.macs).sum();
        let (width, height) = model.default_size();
        let line = published.next().expect("the zoo has as many networks");
        let [name, rest] = *line.splitn(2, ',').collect::<Vec<_>>() else { panic!("{line} has commas") };
        assert_eq!(name, model.name());
        let found = format!(",{width},{height},{parameters},{macs}");
        assert!(rest.ends_with(&found), "{model}: {found}, published {line}");
    }
    assert_eq!(published.next(), None);
}
