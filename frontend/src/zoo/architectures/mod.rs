//! The published architectures, layer by layer, one file a family.
//!
//! Nodes stand in the order in which PyTorch's exporter writes those of the implementation that a network's
//! source names; `tests/zoo` has the lists that they are held against.

mod classic;
mod detectors;
mod images;
mod mobile;
mod residual;
mod tokens;

use super::network::{Network, Tensor};

pub(super) use classic::{densenet121, inception_v3, squeezenet, vgg16};
pub(super) use detectors::{efficientdet_d0, yolov3, yolov3_tiny, yolov8n};
pub(super) use images::{deeplabv3_mobilenetv2, fsrcnn, unet};
pub(super) use mobile::{efficientnet_lite0, mobilenetv2, mobilenetv3_large};
pub(super) use residual::{hrnet_w18_small, regnetx_400mf, resnet50};
pub(super) use tokens::{convnext_tiny, mobilevit_xxs};

/// Mean square of an image scaled to `[0, 1]`, and of one normalised to mean 0 and variance 1.
const UNIT_RANGE_POWER: f64 = 0.3;
const NORMALISED_POWER: f64 = 1.0;

/// The epsilon of batch normalisation where nothing else is said: PyTorch's own, and Darknet's.
const NORM_EPSILON: f32 = 1e-5;
/// The epsilon of networks that began in TensorFlow, and of YOLOv8.
const LARGE_NORM_EPSILON: f32 = 1e-3;

/// What a builder needs to know of the options.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dimensions {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) classes: usize,
}

impl Dimensions {
    fn of_image(self, channels: usize) -> (usize, usize, usize) {
        (channels, self.height, self.width)
    }
}

/// A network that begins with an image of three channels normalised to variance 1.
fn of_normalised_image(dimensions: Dimensions) -> (Network, Tensor) {
    let mut net = Network::default();
    let image = net.input("image", dimensions.of_image(3), NORMALISED_POWER);
    (net, image)
}

fn classifier(net: &mut Network, x: Tensor, name: &str, classes: usize) {
    let pooled = net.global_average_pool("avgpool", x);
    let features = net.flatten("flatten", pooled);
    let logits = net.linear(name, features, classes);
    net.output(logits, "logits");
}
