//! The published architectures, layer by layer.

use super::darknet::{self, Layer};
use super::network::{Activation, Conv, Network, Tensor};

/// Mean square of an image scaled to `[0, 1]`, and of one normalised to mean 0 and variance 1.
const UNIT_RANGE_POWER: f64 = 0.3;
const NORMALISED_POWER: f64 = 1.0;

/// The epsilon of batch normalisation outside Darknet.
const NORM_EPSILON: f32 = 1e-5;

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

/// YOLOv3: Darknet-53 and three heads. Input in `[0, 1]`, RGB.
///
/// # Source
/// Redmon, Farhadi: "YOLOv3: An incremental improvement", 2018; `cfg/yolov3.cfg` of Darknet, whose layer
/// numbers it keeps.
pub(super) fn yolov3(dimensions: Dimensions) -> Network {
    use Layer::{Conv, Head, Route, Shortcut, Upsample, Yolo};
    let mut layers = vec![Conv(32, 3, 1)];
    for (channels, n_blocks) in [(64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)] {
        layers.push(Conv(channels, 3, 2));
        for _ in 0..n_blocks {
            layers.extend([Conv(channels / 2, 1, 1), Conv(channels, 3, 1), Shortcut(-3)]);
        }
    }
    let head = |layers: &mut Vec<Layer>, channels: usize| {
        for _ in 0..3 {
            layers.extend([Conv(channels, 1, 1), Conv(2 * channels, 3, 1)]);
        }
        layers.extend([Head, Yolo]);
    };
    head(&mut layers, 512);
    layers.extend([Route(&[-4]), Conv(256, 1, 1), Upsample, Route(&[-1, 61])]);
    head(&mut layers, 256);
    layers.extend([Route(&[-4]), Conv(128, 1, 1), Upsample, Route(&[-1, 36])]);
    head(&mut layers, 128);
    yolo(dimensions, &layers)
}

/// YOLOv3-tiny. Input in `[0, 1]`, RGB.
///
/// # Source
/// `cfg/yolov3-tiny.cfg` of Darknet, whose layer numbers it keeps.
pub(super) fn yolov3_tiny(dimensions: Dimensions) -> Network {
    use Layer::{Conv, Head, MaxPool, Route, Upsample, Yolo};
    let mut layers = Vec::new();
    for channels in [16, 32, 64, 128, 256] {
        layers.extend([Conv(channels, 3, 1), MaxPool(2)]);
    }
    layers.extend([Conv(512, 3, 1), MaxPool(1)]);
    layers.extend([Conv(1024, 3, 1), Conv(256, 1, 1), Conv(512, 3, 1), Head, Yolo]);
    layers.extend([Route(&[-4]), Conv(128, 1, 1), Upsample, Route(&[-1, 8])]);
    layers.extend([Conv(256, 3, 1), Head, Yolo]);
    yolo(dimensions, &layers)
}

fn yolo(dimensions: Dimensions, layers: &[Layer]) -> Network {
    let mut net = Network::default();
    let image = net.input("image", dimensions.of_image(3), UNIT_RANGE_POWER);
    darknet::build(&mut net, image, layers, dimensions.classes);
    net
}

/// ResNet-50, with the stride of a downsampling block on its 3x3 convolution ("v1.5").
///
/// # Source
/// He et al.: "Deep residual learning for image recognition", 2015, table 1; the stride as in torchvision.
pub(super) fn resnet50(dimensions: Dimensions) -> Network {
    let mut net = Network::default();
    let conv = |out, kernel, stride| Conv::new(out, kernel).stride(stride).batch_norm(NORM_EPSILON);
    let image = net.input("image", dimensions.of_image(3), NORMALISED_POWER);
    let mut x = net.conv("conv1", image, conv(64, 7, 2).activation(Activation::Relu));
    x = net.max_pool("maxpool", x, 3, 2, [1; 4]);
    for (layer, (width, n_blocks)) in (1..).zip([(64, 3), (128, 4), (256, 6), (512, 3)]) {
        for block in 0..n_blocks {
            let name = format!("layer{layer}.{block}");
            let stride = if layer > 1 && block == 0 { 2 } else { 1 };
            let reduced =
                net.conv(&format!("{name}/conv1"), x, conv(width, 1, 1).activation(Activation::Relu));
            let spatial = net.conv(
                &format!("{name}/conv2"),
                reduced,
                conv(width, 3, stride).activation(Activation::Relu),
            );
            let branch = net.conv(&format!("{name}/conv3"), spatial, conv(4 * width, 1, 1));
            let shortcut = match block {
                0 => net.conv(&format!("{name}/downsample"), x, conv(4 * width, 1, stride)),
                _ => x,
            };
            let sum = net.add(&format!("{name}/add"), branch, shortcut);
            x = match block {
                0 => net.activation(&name, sum, Activation::Relu),
                _ => net.residual_relu(&name, sum),
            };
        }
    }
    classifier(&mut net, x, "fc", dimensions.classes);
    net
}

/// MobileNetV2 of width 1.0.
///
/// # Source
/// Sandler et al.: "MobileNetV2: Inverted residuals and linear bottlenecks", 2018, table 2.
pub(super) fn mobilenetv2(dimensions: Dimensions) -> Network {
    let mut net = Network::default();
    let conv = |out, kernel| Conv::new(out, kernel).batch_norm(NORM_EPSILON);
    let image = net.input("image", dimensions.of_image(3), NORMALISED_POWER);
    let mut x = net.conv("stem", image, conv(32, 3).stride(2).activation(Activation::Relu6));
    let mut index = 0;
    // Expansion, output channels, repeats, stride of the first.
    for (expansion, out, n_blocks, first_stride) in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ] {
        for block in 0..n_blocks {
            let name = format!("block_{index}");
            let stride = if block == 0 { first_stride } else { 1 };
            let hidden = net.channels(x) * expansion;
            let mut y = x;
            if expansion > 1 {
                y = net.conv(&format!("{name}/expand"), y, conv(hidden, 1).activation(Activation::Relu6));
            }
            let depthwise = conv(hidden, 3).stride(stride).groups(hidden);
            y = net.conv(&format!("{name}/depthwise"), y, depthwise.activation(Activation::Relu6));
            y = net.conv(&format!("{name}/project"), y, conv(out, 1));
            x = if block == 0 { y } else { net.add(&format!("{name}/add"), x, y) };
            index += 1;
        }
    }
    x = net.conv("last", x, conv(1280, 1).activation(Activation::Relu6));
    classifier(&mut net, x, "classifier", dimensions.classes);
    net
}

fn classifier(net: &mut Network, x: Tensor, name: &str, classes: usize) {
    let pooled = net.global_average_pool("avgpool", x);
    let features = net.flatten("flatten", pooled);
    let logits = net.linear(name, features, classes);
    net.output(logits, "logits");
}

/// VGG-16 (configuration D), without the dropouts.
///
/// At other sizes than 224x224 the last map is averaged down to 7x7 where it is larger; where it is smaller,
/// the first fully connected layer has that many fewer weights.
///
/// # Source
/// Simonyan, Zisserman: "Very deep convolutional networks for large-scale image recognition", 2014, table 1.
pub(super) fn vgg16(dimensions: Dimensions) -> Network {
    let mut net = Network::default();
    let mut x = net.input("image", dimensions.of_image(3), NORMALISED_POWER);
    for (stage, (channels, n_convs)) in (1..).zip([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]) {
        for conv in 1..=n_convs {
            x = net.conv(
                &format!("conv{stage}_{conv}"),
                x,
                Conv::new(channels, 3).activation(Activation::Relu),
            );
        }
        x = net.max_pool(&format!("pool{stage}"), x, 2, 2, [0; 4]);
    }
    x = net.average_pool_to("avgpool", x, 7);
    x = net.flatten("flatten", x);
    for name in ["fc6", "fc7"] {
        x = net.linear(name, x, 4096);
        x = net.activation(name, x, Activation::Relu);
    }
    x = net.linear("fc8", x, dimensions.classes);
    net.output(x, "logits");
    net
}

/// U-Net on RGB with padded convolutions, so that a mask is as large as its image; 2x2 transposed
/// convolutions up.
///
/// # Source
/// Ronneberger, Fischer, Brox: "U-Net: Convolutional networks for biomedical image segmentation", 2015,
/// figure 1.
pub(super) fn unet(dimensions: Dimensions) -> Network {
    fn double_conv(net: &mut Network, name: &str, x: Tensor, channels: usize) -> Tensor {
        let conv = Conv::new(channels, 3).activation(Activation::Relu);
        let x = net.conv(&format!("{name}/conv1"), x, conv);
        net.conv(&format!("{name}/conv2"), x, conv)
    }
    let mut net = Network::default();
    let image = net.input("image", dimensions.of_image(3), UNIT_RANGE_POWER);
    let mut x = image;
    let mut skips = Vec::new();
    for (level, channels) in (1..).zip([64, 128, 256, 512]) {
        x = double_conv(&mut net, &format!("down{level}"), x, channels);
        skips.push((level, channels, x));
        x = net.max_pool(&format!("down{level}/pool"), x, 2, 2, [0; 4]);
    }
    x = double_conv(&mut net, "bottom", x, 1024);
    while let Some((level, channels, skip)) = skips.pop() {
        let up = net.conv_transpose(&format!("up{level}/deconv"), x, channels, 2, 2);
        let joined = net.concat(&format!("up{level}/concat"), &[skip, up]);
        x = double_conv(&mut net, &format!("up{level}"), joined, channels);
    }
    x = net.conv("mask", x, Conv::new(dimensions.classes, 1));
    net.output(x, "logits");
    net
}

/// FSRCNN(56, 12, 4): doubles the size of a luma image in `[0, 1]`.
///
/// # Source
/// Dong, Loy, Tang: "Accelerating the super-resolution convolutional neural network", 2016, section 3.3.
pub(super) fn fsrcnn(dimensions: Dimensions) -> Network {
    const DETAIL: usize = 56;
    const SHRUNK: usize = 12;
    let mut net = Network::default();
    let conv = |out, kernel| Conv::new(out, kernel).activation(Activation::PRelu);
    let mut x = net.input("luma", dimensions.of_image(1), UNIT_RANGE_POWER);
    x = net.conv("extract", x, conv(DETAIL, 5));
    x = net.conv("shrink", x, conv(SHRUNK, 1));
    for index in 0..4 {
        x = net.conv(&format!("map_{index}"), x, conv(SHRUNK, 3));
    }
    x = net.conv("expand", x, conv(DETAIL, 1));
    x = net.conv_transpose("deconv", x, 1, 9, 2);
    net.output(x, "upscaled");
    net
}
