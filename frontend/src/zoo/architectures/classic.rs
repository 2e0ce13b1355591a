//! Classifiers of plain convolutions, of parallel branches, and of concatenations.

use super::{Dimensions, LARGE_NORM_EPSILON, NORM_EPSILON, classifier, of_normalised_image};
use crate::zoo::network::{Activation, Conv, Network, Tensor};

/// VGG-16 (configuration D), without the dropouts.
///
/// At other sizes than 224x224 the last map is averaged down to 7x7 where it is larger; where it is smaller,
/// the first fully connected layer has that many fewer weights.
///
/// # Source
/// Simonyan, Zisserman: "Very deep convolutional networks for large-scale image recognition", 2014, table 1.
pub(in crate::zoo) fn vgg16(dimensions: Dimensions) -> Network {
    let (mut net, mut x) = of_normalised_image(dimensions);
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

/// SqueezeNet 1.1, without the dropout.
///
/// # Source
/// Iandola et al.: "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and < 0.5 MB model size",
/// 2016; version 1.1 of its authors' repository, as in torchvision.
pub(in crate::zoo) fn squeezenet(dimensions: Dimensions) -> Network {
    let (mut net, image) = of_normalised_image(dimensions);
    let conv = |out, kernel| Conv::new(out, kernel).activation(Activation::Relu);
    let mut x = net.conv("conv1", image, conv(64, 3).stride(2).valid());
    let mut index = 2;
    // Channels that are squeezed to, those of each of the two branches, and how many modules follow a pool.
    for (pool, modules) in (1..).zip([
        &[(16, 64), (16, 64)][..],
        &[(32, 128), (32, 128)],
        &[(48, 192), (48, 192), (64, 256), (64, 256)],
    ]) {
        x = net.max_pool_over_end(&format!("pool{pool}"), x, 3, 2);
        for &(squeezed, expanded) in modules {
            let name = format!("fire{index}");
            let squeeze = net.conv(&format!("{name}/squeeze"), x, conv(squeezed, 1));
            let narrow = net.conv(&format!("{name}/expand1x1"), squeeze, conv(expanded, 1));
            let wide = net.conv(&format!("{name}/expand3x3"), squeeze, conv(expanded, 3));
            x = net.concat(&format!("{name}/concat"), &[narrow, wide]);
            index += 1;
        }
    }
    x = net.conv("classifier", x, conv(dimensions.classes, 1));
    x = net.global_average_pool("avgpool", x);
    x = net.flatten("flatten", x);
    net.output(x, "logits");
    net
}

/// Inception v3, without the second classifier, which is there for training only.
///
/// # Source
/// Szegedy et al.: "Rethinking the inception architecture for computer vision", 2015, table 1; figures 5 to 7
/// as in torchvision.
pub(in crate::zoo) fn inception_v3(dimensions: Dimensions) -> Network {
    let (mut net, image) = of_normalised_image(dimensions);
    let mut x = inception_conv(&mut net, "conv1a", image, Conv::new(32, 3).stride(2).valid());
    x = inception_conv(&mut net, "conv2a", x, Conv::new(32, 3).valid());
    x = inception_conv(&mut net, "conv2b", x, Conv::new(64, 3));
    x = net.max_pool("maxpool1", x, 3, 2, [0; 4]);
    x = inception_conv(&mut net, "conv3b", x, Conv::new(80, 1));
    x = inception_conv(&mut net, "conv4a", x, Conv::new(192, 3).valid());
    x = net.max_pool("maxpool2", x, 3, 2, [0; 4]);
    let square = Conv::new;
    let (row, column) = (|out| Conv::rectangular(out, 1, 7), |out| Conv::rectangular(out, 7, 1));
    for (name, pooled) in [("mixed5b", 32), ("mixed5c", 64), ("mixed5d", 64)] {
        let branches = [
            &[square(64, 1)][..],
            &[square(48, 1), square(64, 5)],
            &[square(64, 1), square(96, 3), square(96, 3)],
        ];
        x = inception_module(&mut net, name, x, &branches, Some(pooled));
    }
    let branches = [
        &[square(384, 3).stride(2).valid()][..],
        &[square(64, 1), square(96, 3), square(96, 3).stride(2).valid()],
    ];
    x = inception_module(&mut net, "mixed6a", x, &branches, None);
    for (name, inner) in [("mixed6b", 128), ("mixed6c", 160), ("mixed6d", 160), ("mixed6e", 192)] {
        let branches = [
            &[square(192, 1)][..],
            &[square(inner, 1), row(inner), column(192)],
            &[square(inner, 1), column(inner), row(inner), column(inner), row(192)],
        ];
        x = inception_module(&mut net, name, x, &branches, Some(192));
    }
    let branches = [
        &[square(192, 1), square(320, 3).stride(2).valid()][..],
        &[square(192, 1), row(192), column(192), square(192, 3).stride(2).valid()],
    ];
    x = inception_module(&mut net, "mixed7a", x, &branches, None);
    for name in ["mixed7b", "mixed7c"] {
        x = widest_inception_module(&mut net, name, x);
    }
    classifier(&mut net, x, "fc", dimensions.classes);
    net
}

fn inception_conv(net: &mut Network, name: &str, x: Tensor, conv: Conv) -> Tensor {
    net.conv(name, x, conv.batch_norm(LARGE_NORM_EPSILON).activation(Activation::Relu))
}

/// Chains of convolutions side by side, and a pool: averages and a 1x1 convolution to `pooled` channels, or
/// where the map is halved the largest values.
fn inception_module(
    net: &mut Network,
    name: &str,
    x: Tensor,
    branches: &[&[Conv]],
    pooled: Option<usize>,
) -> Tensor {
    let mut parts = Vec::new();
    for (branch, convs) in (1..).zip(branches) {
        let mut y = x;
        for (index, &conv) in (1..).zip(*convs) {
            y = inception_conv(net, &format!("{name}/branch{branch}_{index}"), y, conv);
        }
        parts.push(y);
    }
    parts.push(match pooled {
        Some(channels) => averaged(net, name, x, channels),
        None => net.max_pool(&format!("{name}/pool"), x, 3, 2, [0; 4]),
    });
    net.concat(&format!("{name}/concat"), &parts)
}

fn averaged(net: &mut Network, name: &str, x: Tensor, channels: usize) -> Tensor {
    let y = net.average_pool(&format!("{name}/pool"), x, 3, 1);
    inception_conv(net, &format!("{name}/pooled"), y, Conv::new(channels, 1))
}

/// The modules on the smallest map, whose two longer branches each end in a row and a column side by side.
fn widest_inception_module(net: &mut Network, name: &str, x: Tensor) -> Tensor {
    let conv = |net: &mut Network, step: &str, x: Tensor, conv: Conv| {
        inception_conv(net, &format!("{name}/{step}"), x, conv)
    };
    let narrow = conv(net, "branch1_1", x, Conv::new(320, 1));
    let mut parts = vec![narrow];
    for (branch, convs) in
        [("branch2", &[Conv::new(384, 1)][..]), ("branch3", &[Conv::new(448, 1), Conv::new(384, 3)])]
    {
        let mut y = x;
        for (index, &step) in (1..).zip(convs) {
            y = conv(net, &format!("{branch}_{index}"), y, step);
        }
        let row = conv(net, &format!("{branch}_row"), y, Conv::rectangular(384, 1, 3));
        let column = conv(net, &format!("{branch}_column"), y, Conv::rectangular(384, 3, 1));
        parts.extend([row, column]);
    }
    parts.push(averaged(net, name, x, 192));
    net.concat(&format!("{name}/concat"), &parts)
}

/// DenseNet-121.
///
/// # Source
/// Huang, Liu, van der Maaten, Weinberger: "Densely connected convolutional networks", 2016, table 1.
pub(in crate::zoo) fn densenet121(dimensions: Dimensions) -> Network {
    const GROWTH: usize = 32;
    let (mut net, image) = of_normalised_image(dimensions);
    let stem = Conv::new(64, 7).stride(2).batch_norm(NORM_EPSILON).activation(Activation::Relu);
    let mut x = net.conv("conv0", image, stem);
    x = net.max_pool("pool0", x, 3, 2, [1; 4]);
    for (block, n_layers) in (1..).zip([6, 12, 24, 16]) {
        let mut features = vec![x];
        for layer in 1..=n_layers {
            let name = format!("block{block}.{layer}");
            // The first layer has one operand, and PyTorch's exporter writes a concatenation all the same.
            let joined = net.concat(&format!("{name}/concat"), &features);
            let y = normalised_relu(&mut net, &format!("{name}/norm1"), joined);
            let bottleneck = Conv::new(4 * GROWTH, 1).batch_norm(NORM_EPSILON).activation(Activation::Relu);
            let y = net.conv(&format!("{name}/conv1"), y, bottleneck);
            features.push(net.conv(&format!("{name}/conv2"), y, Conv::new(GROWTH, 3).without_bias()));
        }
        x = net.concat(&format!("block{block}/concat"), &features);
        x = normalised_relu(&mut net, &format!("block{block}/norm"), x);
        if block < 4 {
            let half = Conv::new(net.channels(x) / 2, 1).without_bias();
            x = net.conv(&format!("transition{block}/conv"), x, half);
            x = net.average_pool(&format!("transition{block}/pool"), x, 2, 2);
        }
    }
    classifier(&mut net, x, "classifier", dimensions.classes);
    net
}

fn normalised_relu(net: &mut Network, name: &str, x: Tensor) -> Tensor {
    let x = net.batch_norm(name, x, NORM_EPSILON);
    net.activation(name, x, Activation::Relu)
}
