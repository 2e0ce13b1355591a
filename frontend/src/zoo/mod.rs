//! The model zoo: well-known networks as real ONNX models, at any size, with seeded or trained weights.
//!
//! The zoo exists so that planning, scheduling and timing can be shown and tested without a download: what
//! those depend on are a network's shapes, and these are exactly the published ones. The weights are random
//! but of sane scale, so that activations neither vanish nor explode and quantisation has something to work
//! on; no zoo model recognises anything, except the two YOLOs when they are given Darknet's trained weights.
//!
//! A model is a plain [`pb::ModelProto`] of opset 13, or the first that has all of its ops, made of the ops
//! that exporters write (batch normalisation is a node of its own), and takes the same way through import as
//! a file from elsewhere.
//!
//! # Invariants
//! - The same name and options give the same bytes, on every machine and any number of threads.
//! - No IO: weights come in as bytes, models go out as protobuf or bytes.
//! - Nothing of the IR is known here.

mod architectures;
mod darknet;
mod network;
#[cfg(test)]
mod published;
mod random;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use tract_onnx::pb;

use architectures::Dimensions;
pub use darknet::WeightsError;
use network::Network;

/// The largest width, height and number of classes: ample, and far from any overflow in shape arithmetic.
const MAX_DIMENSION: usize = 1 << 16;

/// A network of the zoo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ZooModel {
    /// YOLOv3: 75 convolutions, three detection heads.
    YoloV3,
    /// YOLOv3-tiny: 13 convolutions, two detection heads.
    YoloV3Tiny,
    /// YOLOv8-nano: three decoupled detection heads.
    YoloV8n,
    /// EfficientDet-D0 without its heads: EfficientNet-B0 and a bidirectional feature pyramid.
    EfficientDetD0,
    /// VGG-16.
    Vgg16,
    /// SqueezeNet 1.1.
    SqueezeNet,
    /// Inception v3.
    InceptionV3,
    /// DenseNet-121.
    DenseNet121,
    /// ResNet-50 v1.5.
    ResNet50,
    /// RegNetX-400MF.
    RegNetX400Mf,
    /// HRNet-W18-C-Small-v1.
    HrNetW18Small,
    /// MobileNetV2 of width 1.0.
    MobileNetV2,
    /// MobileNetV3-Large of width 1.0.
    MobileNetV3Large,
    /// EfficientNet-Lite0.
    EfficientNetLite0,
    /// ConvNeXt-T.
    ConvNextTiny,
    /// MobileViT-XXS.
    MobileVitXxs,
    /// U-Net with padded convolutions.
    UNet,
    /// DeepLabV3 on MobileNetV2.
    DeepLabV3MobileNetV2,
    /// FSRCNN(56, 12, 4), which doubles the size of a luma image.
    Fsrcnn,
}

/// All that is said of a network, but for its layers.
struct Card {
    name: &'static str,
    summary: &'static str,
    /// Width and height.
    default_size: (usize, usize),
    default_classes: Option<usize>,
    /// Width and height must be multiples of this: else upsampled maps would not fit those they are joined
    /// with.
    size_granule: usize,
    /// Width and height must be at least this, for every layer to have an output.
    min_size: usize,
    build: fn(Dimensions) -> Network,
}

impl ZooModel {
    /// Every model, in the order in which they are listed to people.
    pub const ALL: [Self; 19] = [
        Self::YoloV3,
        Self::YoloV3Tiny,
        Self::YoloV8n,
        Self::EfficientDetD0,
        Self::Vgg16,
        Self::SqueezeNet,
        Self::InceptionV3,
        Self::DenseNet121,
        Self::ResNet50,
        Self::RegNetX400Mf,
        Self::HrNetW18Small,
        Self::MobileNetV2,
        Self::MobileNetV3Large,
        Self::EfficientNetLite0,
        Self::ConvNextTiny,
        Self::MobileVitXxs,
        Self::UNet,
        Self::DeepLabV3MobileNetV2,
        Self::Fsrcnn,
    ];

    fn card(self) -> Card {
        match self {
            Self::YoloV3 => Card {
                name: "yolov3",
                summary: "object detector, Darknet-53 with three heads (takes Darknet weights)",
                default_size: (416, 416),
                default_classes: Some(80),
                size_granule: 32,
                min_size: 32,
                build: architectures::yolov3,
            },
            Self::YoloV3Tiny => Card {
                name: "yolov3-tiny",
                summary: "small object detector with two heads (takes Darknet weights)",
                default_size: (416, 416),
                default_classes: Some(80),
                size_granule: 32,
                min_size: 32,
                build: architectures::yolov3_tiny,
            },
            Self::YoloV8n => Card {
                name: "yolov8n",
                summary: "small object detector with three decoupled heads, up to the decoding of boxes",
                default_size: (640, 640),
                default_classes: Some(80),
                size_granule: 32,
                min_size: 32,
                build: architectures::yolov8n,
            },
            Self::EfficientDetD0 => Card {
                name: "efficientdet-d0",
                summary: "backbone and bidirectional feature pyramid of an object detector",
                default_size: (512, 512),
                default_classes: None,
                size_granule: 128,
                min_size: 128,
                build: architectures::efficientdet_d0,
            },
            Self::Vgg16 => Card {
                name: "vgg16",
                summary: "image classifier, 13 convolutions and 3 fully connected layers",
                default_size: (224, 224),
                default_classes: Some(1000),
                size_granule: 1,
                min_size: 32,
                build: architectures::vgg16,
            },
            Self::SqueezeNet => Card {
                name: "squeezenet",
                summary: "image classifier of modules that squeeze and expand (1.1)",
                default_size: (224, 224),
                default_classes: Some(1000),
                size_granule: 1,
                min_size: 32,
                build: architectures::squeezenet,
            },
            Self::InceptionV3 => Card {
                name: "inception-v3",
                summary: "image classifier of parallel branches",
                default_size: (299, 299),
                default_classes: Some(1000),
                size_granule: 1,
                min_size: 75,
                build: architectures::inception_v3,
            },
            Self::DenseNet121 => Card {
                name: "densenet121",
                summary: "image classifier whose layers read all layers before them",
                default_size: (224, 224),
                default_classes: Some(1000),
                size_granule: 1,
                min_size: 32,
                build: architectures::densenet121,
            },
            Self::ResNet50 => Card {
                name: "resnet50",
                summary: "image classifier with residual bottleneck blocks (v1.5)",
                default_size: (224, 224),
                default_classes: Some(1000),
                size_granule: 1,
                min_size: 1,
                build: architectures::resnet50,
            },
            Self::RegNetX400Mf => Card {
                name: "regnetx-400mf",
                summary: "image classifier with residual blocks of grouped convolutions",
                default_size: (224, 224),
                default_classes: Some(1000),
                size_granule: 1,
                min_size: 1,
                build: architectures::regnetx_400mf,
            },
            Self::HrNetW18Small => Card {
                name: "hrnet-w18-small",
                summary: "image classifier of branches at four resolutions that are fused often (v1)",
                default_size: (224, 224),
                default_classes: Some(1000),
                size_granule: 32,
                min_size: 32,
                build: architectures::hrnet_w18_small,
            },
            Self::MobileNetV2 => Card {
                name: "mobilenetv2",
                summary: "image classifier with depthwise inverted residual blocks",
                default_size: (224, 224),
                default_classes: Some(1000),
                size_granule: 1,
                min_size: 1,
                build: architectures::mobilenetv2,
            },
            Self::MobileNetV3Large => Card {
                name: "mobilenetv3-large",
                summary: "image classifier as MobileNetV2, with squeeze-and-excitation and hard swish",
                default_size: (224, 224),
                default_classes: Some(1000),
                size_granule: 1,
                min_size: 1,
                build: architectures::mobilenetv3_large,
            },
            Self::EfficientNetLite0 => Card {
                name: "efficientnet-lite0",
                summary: "image classifier with depthwise blocks of 3x3 and 5x5, ReLU6",
                default_size: (224, 224),
                default_classes: Some(1000),
                size_granule: 1,
                min_size: 1,
                build: architectures::efficientnet_lite0,
            },
            Self::ConvNextTiny => Card {
                name: "convnext-tiny",
                summary: "image classifier of depthwise 7x7 and layer normalisation",
                default_size: (224, 224),
                default_classes: Some(1000),
                size_granule: 1,
                min_size: 32,
                build: architectures::convnext_tiny,
            },
            Self::MobileVitXxs => Card {
                name: "mobilevit-xxs",
                summary: "image classifier of depthwise blocks and self-attention",
                default_size: (256, 256),
                default_classes: Some(1000),
                size_granule: 64,
                min_size: 64,
                build: architectures::mobilevit_xxs,
            },
            Self::UNet => Card {
                name: "unet",
                summary: "segmentation network with long skip connections",
                default_size: (512, 512),
                default_classes: Some(2),
                size_granule: 16,
                min_size: 16,
                build: architectures::unet,
            },
            Self::DeepLabV3MobileNetV2 => Card {
                name: "deeplabv3-mobilenetv2",
                summary: "segmentation network of dilated convolutions on MobileNetV2",
                default_size: (512, 512),
                default_classes: Some(21),
                size_granule: 8,
                min_size: 8,
                build: architectures::deeplabv3_mobilenetv2,
            },
            Self::Fsrcnn => Card {
                name: "fsrcnn",
                summary: "super-resolution by two of a luma image",
                default_size: (960, 540),
                default_classes: None,
                size_granule: 1,
                min_size: 1,
                build: architectures::fsrcnn,
            },
        }
    }

    /// The name that people type.
    pub fn name(self) -> &'static str {
        self.card().name
    }

    /// The names of all models.
    pub fn names() -> [&'static str; Self::ALL.len()] {
        Self::ALL.map(Self::name)
    }

    /// One line on what the model is.
    pub fn summary(self) -> &'static str {
        self.card().summary
    }

    /// Width and height of the input when none are asked for.
    pub fn default_size(self) -> (usize, usize) {
        self.card().default_size
    }

    /// How many classes it tells apart when no number is asked for; `None` if it has no classes.
    pub fn default_classes(self) -> Option<usize> {
        self.card().default_classes
    }

    /// Whether the model takes Darknet's trained weights.
    pub fn takes_weights(self) -> bool {
        matches!(self, Self::YoloV3 | Self::YoloV3Tiny)
    }

    fn network(self, dimensions: Dimensions) -> Network {
        (self.card().build)(dimensions)
    }
}

impl fmt::Display for ZooModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ZooModel {
    type Err = ZooError;

    fn from_str(name: &str) -> Result<Self, ZooError> {
        let found = Self::ALL.into_iter().find(|model| model.name() == name);
        found.ok_or_else(|| ZooError::UnknownModel { name: name.to_owned() })
    }
}

/// How a zoo model is to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ZooOptions {
    /// Width and height of the input, in this order; the model's usual size if not given.
    pub size: Option<(usize, usize)>,
    /// Seed of the random weights.
    pub seed: u64,
    /// Number of classes; the usual number of the model's data set if not given.
    pub classes: Option<usize>,
    /// The content of a Darknet `.weights` file, to be used in place of random weights.
    pub weights: Option<Vec<u8>>,
}

/// Why a zoo model cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZooError {
    /// There is no model of this name.
    #[error("the zoo has no model '{name}'; it has {}", ZooModel::names().join(", "))]
    UnknownModel {
        /// The name asked for.
        name: String,
    },
    /// The options do not suit the model; all that is wrong with them is listed.
    #[error("{model}: {}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Options {
        /// The model asked for.
        model: ZooModel,
        /// What is wrong, at least one item.
        problems: Vec<OptionProblem>,
    },
}

/// One thing that is wrong with [`ZooOptions`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionProblem {
    /// The input cannot have this size.
    #[error(
        "a {axis} of {value} will not do, it must be from {min} to {MAX_DIMENSION}{}",
        if *multiple_of > 1 { format!(" and a multiple of {multiple_of}") } else { String::new() }
    )]
    Size {
        /// `"width"` or `"height"`.
        axis: &'static str,
        /// What was asked for.
        value: usize,
        /// The least size.
        min: usize,
        /// What the size must be a multiple of.
        multiple_of: usize,
    },
    /// The number of classes is zero or absurd.
    #[error("{value} classes will not do, the number must be from 1 to {MAX_DIMENSION}")]
    Classes {
        /// What was asked for.
        value: usize,
    },
    /// A number of classes was given to a model that has none.
    #[error("the model has no classes")]
    NoClasses,
    /// Darknet weights were given to a model that Darknet does not have.
    #[error("Darknet weights are only for the YOLO models")]
    NoWeights,
    /// The Darknet weights are not of this network.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Makes the model `name`.
///
/// # Errors
/// The zoo has no such model, or the options do not suit it.
pub fn build(name: &str, options: &ZooOptions) -> Result<pb::ModelProto, ZooError> {
    let model: ZooModel = name.parse()?;
    let mut problems = Vec::new();

    let (width, height) = options.size.unwrap_or(model.default_size());
    let Card { min_size: min, size_granule: multiple_of, .. } = model.card();
    for (axis, value) in [("width", width), ("height", height)] {
        if !(min..=MAX_DIMENSION).contains(&value) || !value.is_multiple_of(multiple_of) {
            problems.push(OptionProblem::Size { axis, value, min, multiple_of });
        }
    }
    match options.classes {
        Some(_) if model.default_classes().is_none() => problems.push(OptionProblem::NoClasses),
        Some(value) if !(1..=MAX_DIMENSION).contains(&value) => {
            problems.push(OptionProblem::Classes { value })
        }
        _ => {}
    }
    if options.weights.is_some() && !model.takes_weights() {
        problems.push(OptionProblem::NoWeights);
    }
    if !problems.is_empty() {
        return Err(ZooError::Options { model, problems });
    }

    let classes = options.classes.or(model.default_classes()).unwrap_or_default();
    let network = model.network(Dimensions { width, height, classes });
    let trained = match &options.weights {
        Some(file) => Some(
            darknet::floats(file, network.parameters())
                .map_err(|error| ZooError::Options { model, problems: vec![error.into()] })?,
        ),
        None => None,
    };
    Ok(network.into_model(model.name(), options.seed, trained))
}
