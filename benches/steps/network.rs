//! Networks of the zoo, compiled once, and what they are at every level of the IR.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use strata::{Bundle, CompileOptions, Compiler, Event, Target};
use strata_frontend::proto::encode;
use strata_frontend::zoo::{ZooOptions, build};
use strata_ir::Module;
use strata_ir::pass::Level;

/// Rows and columns of the pictures.
const EXTENT: usize = 96;

/// MobileNetV2: depthwise convolutions, and many stages in one phase.
pub(crate) static MOBILENET_V2: LazyLock<Network> = LazyLock::new(|| Network::zoo("mobilenetv2"));

/// ResNet-50: large dense convolutions.
pub(crate) static RESNET_50: LazyLock<Network> = LazyLock::new(|| Network::zoo("resnet50"));

/// A compiled network.
#[derive(Debug)]
pub(crate) struct Network {
    /// The ONNX file.
    pub(crate) onnx: Vec<u8>,
    /// The machine that it is compiled for.
    pub(crate) target: Target,
    /// What the compile wrote.
    pub(crate) bundle: Bundle,
    levels: BTreeMap<&'static str, Module>,
}

impl Network {
    fn zoo(name: &str) -> Self {
        let options = ZooOptions { size: Some((EXTENT, EXTENT)), ..ZooOptions::default() };
        let onnx = encode(&build(name, &options).expect("the zoo has it"));
        let target = Target::preset("x1", &[]).expect("x1 is a preset");
        let options = CompileOptions { measure_sqnr: false, ..CompileOptions::new(target.clone()) };
        let mut levels = BTreeMap::new();
        let compiled = Compiler::new(options).compile_onnx(&onnx, "zoo.onnx", &mut |event| {
            if let Event::Reached(checkpoint) = event {
                let module = checkpoint.only_module().expect("the machine runs all of it");
                levels.insert(checkpoint.level.name(), module.clone());
            }
        });
        Self { onnx, target, bundle: compiled.expect("the zoo compiles").bundle, levels }
    }

    /// The network at a level.
    pub(crate) fn at(&self, level: Level) -> &Module {
        &self.levels[level.name()]
    }
}
