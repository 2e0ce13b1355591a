//! Object detectors, up to the maps that boxes are decoded from.

use super::mobile::{EfficientNetKind, efficientnet_b0_features};
use super::{Dimensions, LARGE_NORM_EPSILON, UNIT_RANGE_POWER, of_normalised_image};
use crate::zoo::darknet::{self, Layer};
use crate::zoo::network::{Activation, Conv, Network, Tensor};

/// YOLOv3: Darknet-53 and three heads. Input in `[0, 1]`, RGB.
///
/// # Source
/// Redmon, Farhadi: "YOLOv3: An incremental improvement", 2018; `cfg/yolov3.cfg` of Darknet, whose layer
/// numbers it keeps.
pub(in crate::zoo) fn yolov3(dimensions: Dimensions) -> Network {
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
pub(in crate::zoo) fn yolov3_tiny(dimensions: Dimensions) -> Network {
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

/// YOLOv8-nano with three decoupled heads. Input in `[0, 1]`, RGB. Each head has 64 channels from which the
/// four sides of a box are decoded, and one for each class.
///
/// # Source
/// `yolov8.yaml` of the package ultralytics at scale `n`, whose layer numbers it keeps.
pub(in crate::zoo) fn yolov8n(dimensions: Dimensions) -> Network {
    let mut net = Network::default();
    let image = net.input("image", dimensions.of_image(3), UNIT_RANGE_POWER);
    let mut x = net.conv("conv_0", image, yolov8_conv(16, 3).stride(2));
    let mut maps = Vec::new();
    // Output channels, bottlenecks.
    for (stage, (channels, n_bottlenecks)) in [(32, 1), (64, 2), (128, 2), (256, 1)].into_iter().enumerate() {
        let index = 2 * stage + 1;
        x = net.conv(&format!("conv_{index}"), x, yolov8_conv(channels, 3).stride(2));
        x = c2f(&mut net, &format!("c2f_{}", index + 1), x, channels, n_bottlenecks, true);
        maps.push(x);
    }
    let [_, fine, middle, _] = maps[..] else { panic!("there are four stages") };

    let mut pools = vec![net.conv("sppf_9/cv1", x, yolov8_conv(128, 1))];
    for pool in 0..3 {
        pools.push(net.max_pool(&format!("sppf_9/pool{pool}"), pools[pool], 5, 1, [2; 4]));
    }
    x = net.concat("sppf_9/concat", &pools);
    let coarse = net.conv("sppf_9/cv2", x, yolov8_conv(256, 1));

    x = net.upsample("upsample_10", coarse, 2);
    x = net.concat("concat_11", &[x, middle]);
    let middle = c2f(&mut net, "c2f_12", x, 128, 1, false);
    x = net.upsample("upsample_13", middle, 2);
    x = net.concat("concat_14", &[x, fine]);
    let fine = c2f(&mut net, "c2f_15", x, 64, 1, false);
    x = net.conv("conv_16", fine, yolov8_conv(64, 3).stride(2));
    x = net.concat("concat_17", &[x, middle]);
    let middle = c2f(&mut net, "c2f_18", x, 128, 1, false);
    x = net.conv("conv_19", middle, yolov8_conv(128, 3).stride(2));
    x = net.concat("concat_20", &[x, coarse]);
    let coarse = c2f(&mut net, "c2f_21", x, 256, 1, false);

    let class_channels = dimensions.classes.clamp(64, 100);
    for (level, map) in [fine, middle, coarse].into_iter().enumerate() {
        let mut branch = |kind: &str, channels: usize, out: usize| {
            let name = format!("detect_22/{kind}{level}");
            let y = net.conv(&format!("{name}/conv1"), map, yolov8_conv(channels, 3));
            let y = net.conv(&format!("{name}/conv2"), y, yolov8_conv(channels, 3));
            net.conv(&format!("{name}/conv3"), y, Conv::new(out, 1))
        };
        let boxes = branch("boxes", 64, 64);
        let classes = branch("classes", class_channels, dimensions.classes);
        let head = net.concat(&format!("detect_22/concat{level}"), &[boxes, classes]);
        net.output(head, &format!("head_{level}"));
    }
    net
}

fn yolov8_conv(out: usize, kernel: usize) -> Conv {
    Conv::new(out, kernel).batch_norm(LARGE_NORM_EPSILON).activation(Activation::Silu)
}

/// Half of the channels goes through a chain of bottlenecks, and all that is made on the way is concatenated.
fn c2f(
    net: &mut Network,
    name: &str,
    x: Tensor,
    channels: usize,
    n_bottlenecks: usize,
    is_residual: bool,
) -> Tensor {
    let x = net.conv(&format!("{name}/cv1"), x, yolov8_conv(channels, 1));
    let mut parts = net.halves(&format!("{name}/split"), x).to_vec();
    for bottleneck in 0..n_bottlenecks {
        let name = format!("{name}/m{bottleneck}");
        let x = parts[bottleneck + 1];
        let y = net.conv(&format!("{name}/cv1"), x, yolov8_conv(channels / 2, 3));
        let y = net.conv(&format!("{name}/cv2"), y, yolov8_conv(channels / 2, 3));
        parts.push(if is_residual { net.add(&format!("{name}/add"), x, y) } else { y });
    }
    let x = net.concat(&format!("{name}/concat"), &parts);
    net.conv(&format!("{name}/cv2"), x, yolov8_conv(channels, 1))
}

/// The backbone of EfficientDet-D0, EfficientNet-B0, and its feature pyramid: three bidirectional layers over
/// five levels, from an eighth of the image (P3) to a hundred and twenty-eighth (P7).
///
/// # Source
/// Tan, Pang, Le: "EfficientDet: Scalable and efficient object detection", 2019, figure 3; as in effdet.
pub(in crate::zoo) fn efficientdet_d0(dimensions: Dimensions) -> Network {
    let (mut net, image) = of_normalised_image(dimensions);
    let [c3, c4, c5] = efficientnet_b0_features(&mut net, image, EfficientNetKind::Full);
    let p6 = to_pyramid(&mut net, "p6", c5);
    let p6 = net.max_pool("p6/down", p6, 3, 2, [1; 4]);
    let p7 = net.max_pool("p7/down", p6, 3, 2, [1; 4]);
    let mut levels = [c3, c4, c5, p6, p7];
    for cell in 0..3 {
        levels = bifpn(&mut net, &format!("cell{cell}"), levels);
    }
    for (level, map) in (3..).zip(levels) {
        net.output(map, &format!("p{level}"));
    }
    net
}

/// The channels of EfficientDet-D0's pyramid.
const PYRAMID_WIDTH: usize = 64;

/// A map with as many channels as the pyramid has: itself, or what a 1x1 convolution makes of it.
fn to_pyramid(net: &mut Network, name: &str, x: Tensor) -> Tensor {
    if net.channels(x) == PYRAMID_WIDTH {
        return x;
    }
    net.conv(&format!("{name}/conv"), x, Conv::new(PYRAMID_WIDTH, 1).batch_norm(LARGE_NORM_EPSILON))
}

/// One layer of the pyramid: down from the coarsest map to the finest, and up again.
fn bifpn(net: &mut Network, name: &str, inputs: [Tensor; 5]) -> [Tensor; 5] {
    let mut down = inputs;
    for level in (0..4).rev() {
        let name = format!("{name}/down{}", level + 3);
        let own = to_pyramid(net, &name, inputs[level]);
        let coarser = net.upsample(&format!("{name}/upsample"), down[level + 1], 2);
        down[level] = fused(net, &name, &[own, coarser]);
    }
    let mut outputs = down;
    for level in 1..5 {
        let name = format!("{name}/up{}", level + 3);
        let mut maps = vec![to_pyramid(net, &name, inputs[level])];
        if level < 4 {
            maps.push(down[level]);
        }
        maps.push(net.max_pool(&format!("{name}/pool"), outputs[level - 1], 3, 2, [1; 4]));
        outputs[level] = fused(net, &name, &maps);
    }
    outputs
}

/// A weighted sum, and a depthwise and a pointwise convolution after an activation.
fn fused(net: &mut Network, name: &str, maps: &[Tensor]) -> Tensor {
    let x = net.normalised_fusion(&format!("{name}/fusion"), maps);
    let x = net.activation(name, x, Activation::Silu);
    let depthwise = Conv::new(PYRAMID_WIDTH, 3).groups(PYRAMID_WIDTH).without_bias();
    let x = net.conv(&format!("{name}/depthwise"), x, depthwise);
    net.conv(&format!("{name}/pointwise"), x, Conv::new(PYRAMID_WIDTH, 1).batch_norm(LARGE_NORM_EPSILON))
}
