//! Networks of residual blocks.

use super::{Dimensions, NORM_EPSILON, classifier, of_normalised_image};
use crate::zoo::network::{Activation, Conv, Network, Tensor};

/// A convolution with batch normalisation, linear.
fn normalised(out: usize, kernel: usize, stride: usize) -> Conv {
    Conv::new(out, kernel).stride(stride).batch_norm(NORM_EPSILON)
}

/// The same with a ReLU.
fn rectified(out: usize, kernel: usize, stride: usize) -> Conv {
    normalised(out, kernel, stride).activation(Activation::Relu)
}

/// ResNet-50, with the stride of a downsampling block on its 3x3 convolution ("v1.5").
///
/// # Source
/// He et al.: "Deep residual learning for image recognition", 2015, table 1; the stride as in torchvision.
pub(in crate::zoo) fn resnet50(dimensions: Dimensions) -> Network {
    let (mut net, image) = of_normalised_image(dimensions);
    let mut x = net.conv("conv1", image, rectified(64, 7, 2));
    x = net.max_pool("maxpool", x, 3, 2, [1; 4]);
    for (layer, (width, n_blocks)) in (1..).zip([(64, 3), (128, 4), (256, 6), (512, 3)]) {
        for block in 0..n_blocks {
            let name = format!("layer{layer}.{block}");
            let stride = if layer > 1 && block == 0 { 2 } else { 1 };
            x = bottleneck(&mut net, &name, x, width, stride, block == 0);
        }
    }
    classifier(&mut net, x, "fc", dimensions.classes);
    net
}

/// A residual block of 1x1, 3x3 and 1x1 convolutions, four times as wide outside as inside; where it
/// `changes` the number of channels or the size of the map, so does a convolution of the shortcut.
fn bottleneck(
    net: &mut Network,
    name: &str,
    x: Tensor,
    width: usize,
    stride: usize,
    changes: bool,
) -> Tensor {
    let reduced = net.conv(&format!("{name}/conv1"), x, rectified(width, 1, 1));
    let spatial = net.conv(&format!("{name}/conv2"), reduced, rectified(width, 3, stride));
    let branch = net.conv(&format!("{name}/conv3"), spatial, normalised(4 * width, 1, 1));
    if changes {
        let shortcut = net.conv(&format!("{name}/downsample"), x, normalised(4 * width, 1, stride));
        let sum = net.add(&format!("{name}/add"), branch, shortcut);
        return net.activation(name, sum, Activation::Relu);
    }
    let sum = net.add(&format!("{name}/add"), branch, x);
    net.residual_relu(name, sum)
}

/// RegNetX-400MF: residual blocks whose 3x3 convolutions have groups of 16 channels.
///
/// # Source
/// Radosavovic et al.: "Designing network design spaces", 2020, figure 14; as in torchvision.
pub(in crate::zoo) fn regnetx_400mf(dimensions: Dimensions) -> Network {
    const GROUP_WIDTH: usize = 16;
    let (mut net, image) = of_normalised_image(dimensions);
    let mut x = net.conv("stem", image, rectified(32, 3, 2));
    for (stage, (width, n_blocks)) in (1..).zip([(32, 1), (64, 2), (160, 7), (400, 12)]) {
        for block in 0..n_blocks {
            let name = format!("block{stage}.{block}");
            let stride = if block == 0 { 2 } else { 1 };
            let shortcut = match block {
                0 => net.conv(&format!("{name}/proj"), x, normalised(width, 1, stride)),
                _ => x,
            };
            let a = net.conv(&format!("{name}/a"), x, rectified(width, 1, 1));
            let grouped = rectified(width, 3, stride).groups(width / GROUP_WIDTH);
            let b = net.conv(&format!("{name}/b"), a, grouped);
            let c = net.conv(&format!("{name}/c"), b, normalised(width, 1, 1));
            let sum = net.add(&format!("{name}/add"), shortcut, c);
            x = match block {
                0 => net.activation(&name, sum, Activation::Relu),
                _ => net.residual_relu(&name, sum),
            };
        }
    }
    classifier(&mut net, x, "fc", dimensions.classes);
    net
}

/// HRNet-W18-C-Small-v1: branches at up to four resolutions, each of which is fused with all others.
///
/// # Source
/// Wang et al.: "Deep high-resolution representation learning for visual recognition", 2019; the small
/// classifier of its authors' repository, as in timm.
pub(in crate::zoo) fn hrnet_w18_small(dimensions: Dimensions) -> Network {
    const WIDTHS: [usize; 4] = [16, 32, 64, 128];
    const HEAD_WIDTHS: [usize; 4] = [32, 64, 128, 256];
    let (mut net, image) = of_normalised_image(dimensions);
    let mut x = net.conv("stem1", image, rectified(64, 3, 2));
    x = net.conv("stem2", x, rectified(64, 3, 2));
    x = bottleneck(&mut net, "stage1", x, 32, 1, true);
    let mut branches = vec![net.conv("transition1.0", x, rectified(WIDTHS[0], 3, 1))];
    for n_branches in 2..=4 {
        let width = WIDTHS[n_branches - 1];
        let from = if n_branches == 2 { x } else { branches[n_branches - 2] };
        let name = format!("transition{}.{}", n_branches - 1, n_branches - 1);
        branches.push(net.conv(&name, from, rectified(width, 3, 2)));
        let stage = format!("stage{n_branches}");
        for (branch, y) in branches.iter_mut().enumerate() {
            for block in 0..2 {
                *y = basic_block(&mut net, &format!("{stage}/branch{branch}.{block}"), *y);
            }
        }
        branches = (0..n_branches)
            .map(|to| fused_branches(&mut net, &format!("{stage}/fuse{to}"), &branches, to))
            .collect();
    }
    let mut heads = branches.iter().zip(HEAD_WIDTHS).enumerate();
    let (_, (&first, width)) = heads.next().expect("there are four branches");
    x = bottleneck(&mut net, "head0", first, width, 1, true);
    for (level, (&branch, width)) in heads {
        let increased = bottleneck(&mut net, &format!("head{level}"), branch, width, 1, true);
        let down = Conv::new(4 * width, 3).stride(2).bias_and_batch_norm(NORM_EPSILON);
        let down = net.conv(&format!("down{level}"), x, down.activation(Activation::Relu));
        x = net.add(&format!("down{level}/add"), increased, down);
    }
    let last = Conv::new(2048, 1).bias_and_batch_norm(NORM_EPSILON).activation(Activation::Relu);
    x = net.conv("last", x, last);
    classifier(&mut net, x, "classifier", dimensions.classes);
    net
}

/// A residual block of two 3x3 convolutions.
fn basic_block(net: &mut Network, name: &str, x: Tensor) -> Tensor {
    let width = net.channels(x);
    let y = net.conv(&format!("{name}/conv1"), x, rectified(width, 3, 1));
    let y = net.conv(&format!("{name}/conv2"), y, normalised(width, 3, 1));
    let sum = net.add(&format!("{name}/add"), y, x);
    net.residual_relu(name, sum)
}

/// The sum of all branches at the resolution of the branch `to`: larger maps are halved by convolutions,
/// smaller ones repeated.
fn fused_branches(net: &mut Network, name: &str, branches: &[Tensor], to: usize) -> Tensor {
    let width = net.channels(branches[to]);
    let mut sum: Option<Tensor> = None;
    for (from, &branch) in branches.iter().enumerate() {
        let name = format!("{name}/from{from}");
        let mut y = branch;
        for step in from..to {
            let is_last = step + 1 == to;
            let conv = if is_last { normalised(width, 3, 2) } else { rectified(net.channels(y), 3, 2) };
            y = net.conv(&format!("{name}/down{step}"), y, conv);
        }
        if from > to {
            y = net.conv(&format!("{name}/up"), y, normalised(width, 1, 1));
            y = net.upsample(&format!("{name}/upsample"), y, 1 << (from - to));
        }
        sum = Some(match sum {
            Some(sum) => net.add(&format!("{name}/add"), sum, y),
            None => y,
        });
    }
    net.residual_relu(name, sum.expect("there are branches"))
}
