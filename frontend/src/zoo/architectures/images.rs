//! Networks from images to images: segmentation and super-resolution.

use super::mobile::{MobileNetV2Dilations, mobilenetv2_features};
use super::{Dimensions, NORM_EPSILON, UNIT_RANGE_POWER, of_normalised_image};
use crate::zoo::network::{Activation, Conv, Network, Tensor};

/// U-Net on RGB with padded convolutions, so that a mask is as large as its image; 2x2 transposed
/// convolutions up.
///
/// # Source
/// Ronneberger, Fischer, Brox: "U-Net: Convolutional networks for biomedical image segmentation", 2015,
/// figure 1.
pub(in crate::zoo) fn unet(dimensions: Dimensions) -> Network {
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
pub(in crate::zoo) fn fsrcnn(dimensions: Dimensions) -> Network {
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

/// DeepLabV3 on MobileNetV2, whose maps stay at an eighth of the image.
///
/// # Source
/// Chen et al.: "Rethinking atrous convolution for semantic image segmentation", 2017, section 3; with
/// MobileNetV2's features, 256 channels and distances of 12, 24 and 36 as in segmentation-models-pytorch.
pub(in crate::zoo) fn deeplabv3_mobilenetv2(dimensions: Dimensions) -> Network {
    let (mut net, image) = of_normalised_image(dimensions);
    let conv = |kernel| Conv::new(256, kernel).batch_norm(NORM_EPSILON).activation(Activation::Relu);
    let features = mobilenetv2_features(&mut net, image, MobileNetV2Dilations::TO_AN_EIGHTH);
    let mut parts = vec![net.conv("aspp/conv0", features, conv(1))];
    for (index, distance) in (1..).zip([12, 24, 36]) {
        parts.push(net.conv(&format!("aspp/conv{index}"), features, conv(3).dilation(distance)));
    }
    let mut pooled = net.global_average_pool("aspp/pool", features);
    pooled = net.conv("aspp/pooled", pooled, conv(1));
    parts.push(net.bilinear("aspp/resize", pooled, net.extent(features), "pytorch_half_pixel"));
    let mut x = net.concat("aspp/concat", &parts);
    x = net.conv("aspp/project", x, conv(1));
    x = net.conv("decoder", x, conv(3));
    x = net.conv("mask", x, Conv::new(dimensions.classes, 1));
    x = net.bilinear("upsample", x, (dimensions.height, dimensions.width), "align_corners");
    net.output(x, "logits");
    net
}
