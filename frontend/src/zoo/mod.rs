//! The model zoo: well-known networks as real ONNX models, at any size, with seeded or trained weights.
//!
//! The zoo exists so that planning, scheduling and timing can be shown and tested without a download: what
//! those depend on are a network's shapes, and these are exactly the published ones. The weights are random
//! but of sane scale, so that activations neither vanish nor explode and quantisation has something to work
//! on; no zoo model recognises anything, except the two YOLOs when they are given Darknet's trained weights.
//!
//! A model is a plain [`pb::ModelProto`] of opset 13, made of the ops that exporters write (batch
//! normalisation is a node of its own), and takes the same way through import as a file from elsewhere.
//!
//! # Invariants
//! - The same name and options give the same bytes, on every machine and any number of threads.
//! - No IO: weights come in as bytes, models go out as protobuf or bytes.
//! - Nothing of the IR is known here.

mod architectures;
mod darknet;
mod network;
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
    /// ResNet-50 v1.5.
    ResNet50,
    /// MobileNetV2 of width 1.0.
    MobileNetV2,
    /// VGG-16.
    Vgg16,
    /// U-Net with padded convolutions.
    UNet,
    /// FSRCNN(56, 12, 4), which doubles the size of a luma image.
    Fsrcnn,
}

impl ZooModel {
    /// Every model, in the order in which they are listed to people.
    pub const ALL: [Self; 7] = [
        Self::YoloV3,
        Self::YoloV3Tiny,
        Self::ResNet50,
        Self::MobileNetV2,
        Self::Vgg16,
        Self::UNet,
        Self::Fsrcnn,
    ];

    /// The name that people type.
    pub fn name(self) -> &'static str {
        match self {
            Self::YoloV3 => "yolov3",
            Self::YoloV3Tiny => "yolov3-tiny",
            Self::ResNet50 => "resnet50",
            Self::MobileNetV2 => "mobilenetv2",
            Self::Vgg16 => "vgg16",
            Self::UNet => "unet",
            Self::Fsrcnn => "fsrcnn",
        }
    }

    /// The names of all models.
    pub fn names() -> [&'static str; 7] {
        Self::ALL.map(Self::name)
    }

    /// One line on what the model is.
    pub fn summary(self) -> &'static str {
        match self {
            Self::YoloV3 => "object detector, Darknet-53 with three heads (takes Darknet weights)",
            Self::YoloV3Tiny => "small object detector with two heads (takes Darknet weights)",
            Self::ResNet50 => "image classifier with residual bottleneck blocks (v1.5)",
            Self::MobileNetV2 => "image classifier with depthwise inverted residual blocks",
            Self::Vgg16 => "image classifier, 13 convolutions and 3 fully connected layers",
            Self::UNet => "segmentation network with long skip connections",
            Self::Fsrcnn => "super-resolution by two of a luma image",
        }
    }

    /// Width and height of the input when none are asked for.
    pub fn default_size(self) -> (usize, usize) {
        match self {
            Self::YoloV3 | Self::YoloV3Tiny => (416, 416),
            Self::ResNet50 | Self::MobileNetV2 | Self::Vgg16 => (224, 224),
            Self::UNet => (512, 512),
            Self::Fsrcnn => (960, 540),
        }
    }

    /// How many classes it tells apart when no number is asked for; `None` if it has no classes.
    pub fn default_classes(self) -> Option<usize> {
        match self {
            Self::YoloV3 | Self::YoloV3Tiny => Some(80),
            Self::ResNet50 | Self::MobileNetV2 | Self::Vgg16 => Some(1000),
            Self::UNet => Some(2),
            Self::Fsrcnn => None,
        }
    }

    /// Whether the model takes Darknet's trained weights.
    pub fn takes_weights(self) -> bool {
        matches!(self, Self::YoloV3 | Self::YoloV3Tiny)
    }

    /// Width and height must be multiples of this: else upsampled maps would not fit those they are joined
    /// with.
    fn size_granule(self) -> usize {
        match self {
            Self::YoloV3 | Self::YoloV3Tiny => 32,
            Self::UNet => 16,
            Self::ResNet50 | Self::MobileNetV2 | Self::Vgg16 | Self::Fsrcnn => 1,
        }
    }

    /// Width and height must be at least this, for every layer to have an output.
    fn min_size(self) -> usize {
        match self {
            Self::Vgg16 => 32,
            _ => self.size_granule(),
        }
    }

    fn network(self, dimensions: Dimensions) -> Network {
        match self {
            Self::YoloV3 => architectures::yolov3(dimensions),
            Self::YoloV3Tiny => architectures::yolov3_tiny(dimensions),
            Self::ResNet50 => architectures::resnet50(dimensions),
            Self::MobileNetV2 => architectures::mobilenetv2(dimensions),
            Self::Vgg16 => architectures::vgg16(dimensions),
            Self::UNet => architectures::unet(dimensions),
            Self::Fsrcnn => architectures::fsrcnn(dimensions),
        }
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
    let (min, multiple_of) = (model.min_size(), model.size_granule());
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
