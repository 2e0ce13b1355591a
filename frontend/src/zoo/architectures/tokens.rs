//! Networks that treat pixels as tokens: ConvNeXt, and a MobileViT with its self-attention.

use super::{Dimensions, NORM_EPSILON, classifier, of_normalised_image};
use crate::zoo::network::{Activation, Conv, Network, Tensor};

/// ConvNeXt-T.
///
/// # Source
/// Liu et al.: "A ConvNet for the 2020s", 2022, table 9; as in torchvision.
pub(in crate::zoo) fn convnext_tiny(dimensions: Dimensions) -> Network {
    const EPSILON: f32 = 1e-6;
    let (mut net, image) = of_normalised_image(dimensions);
    let mut x = image;
    for (stage, (width, n_blocks)) in [(96, 3), (192, 3), (384, 9), (768, 3)].into_iter().enumerate() {
        let name = format!("downsample{stage}");
        if stage == 0 {
            x = net.conv(&name, x, Conv::new(width, 4).stride(4).valid());
            x = net.layer_norm_of_map(&format!("{name}/norm"), x, EPSILON);
        } else {
            x = net.layer_norm_of_map(&format!("{name}/norm"), x, EPSILON);
            x = net.conv(&name, x, Conv::new(width, 2).stride(2).valid());
        }
        for block in 0..n_blocks {
            let name = format!("stage{stage}.{block}");
            let y = net.conv(&format!("{name}/depthwise"), x, Conv::new(width, 7).groups(width));
            let y = net.transpose(&format!("{name}/channels_last"), y, [0, 2, 3, 1]);
            let y = net.layer_norm(&format!("{name}/norm"), y, EPSILON);
            let y = net.linear_of_tokens(&format!("{name}/expand"), y, 4 * width);
            let y = net.activation(&name, y, Activation::Gelu);
            let y = net.linear_of_tokens(&format!("{name}/project"), y, width);
            let y = net.transpose(&format!("{name}/channels_first"), y, [0, 3, 1, 2]);
            let y = net.layer_scale(&format!("{name}/scale"), y);
            x = net.add(&format!("{name}/add"), y, x);
        }
    }
    x = net.global_average_pool("avgpool", x);
    x = net.layer_norm_of_map("norm", x, EPSILON);
    x = net.flatten("flatten", x);
    x = net.linear("classifier", x, dimensions.classes);
    net.output(x, "logits");
    net
}

/// MobileViT-XXS: inverted residual blocks, and at three resolutions self-attention between pixels that lie
/// at the same place of their 2x2 patches.
///
/// # Source
/// Mehta, Rastegari: "MobileViT: Light-weight, general-purpose, and mobile-friendly vision transformer",
/// 2021, table 4; as in timm.
pub(in crate::zoo) fn mobilevit_xxs(dimensions: Dimensions) -> Network {
    let (mut net, image) = of_normalised_image(dimensions);
    let mut x = net.conv("stem", image, silu(16, 3).stride(2));
    x = inverted_residual(&mut net, "stage0.0", x, 16, 1);
    for block in 0..3 {
        let stride = if block == 0 { 2 } else { 1 };
        x = inverted_residual(&mut net, &format!("stage1.{block}"), x, 24, stride);
    }
    // Output channels, channels of the transformers, and how many of these follow each other.
    for (stage, (channels, width, n_layers)) in (2..).zip([(48, 64, 2), (64, 80, 4), (80, 96, 3)]) {
        x = inverted_residual(&mut net, &format!("stage{stage}.0"), x, channels, 2);
        x = mobilevit_block(&mut net, &format!("stage{stage}.1"), x, width, n_layers);
    }
    x = net.conv("last", x, silu(320, 1));
    classifier(&mut net, x, "classifier", dimensions.classes);
    net
}

fn silu(out: usize, kernel: usize) -> Conv {
    Conv::new(out, kernel).batch_norm(NORM_EPSILON).activation(Activation::Silu)
}

fn inverted_residual(net: &mut Network, name: &str, x: Tensor, out: usize, stride: usize) -> Tensor {
    let hidden = 2 * net.channels(x);
    let y = net.conv(&format!("{name}/expand"), x, silu(hidden, 1));
    let y = net.conv(&format!("{name}/depthwise"), y, silu(hidden, 3).stride(stride).groups(hidden));
    let y = net.conv(&format!("{name}/project"), y, Conv::new(out, 1).batch_norm(NORM_EPSILON));
    let is_residual = stride == 1 && out == net.channels(x);
    if is_residual { net.add(&format!("{name}/add"), y, x) } else { y }
}

/// Convolutions, then transformers over each of the four places in patches, then convolutions again.
fn mobilevit_block(net: &mut Network, name: &str, x: Tensor, width: usize, n_layers: usize) -> Tensor {
    /// Height and width of a patch.
    const PATCH: usize = 2;
    const PLACES: usize = PATCH * PATCH;
    let (channels, (h, w)) = (net.channels(x), net.extent(x));
    let (rows, columns) = (h / PATCH, w / PATCH);
    let n_patches = rows * columns;
    let y = net.conv(&format!("{name}/local"), x, silu(channels, 3));
    let y = net.conv(&format!("{name}/widen"), y, Conv::new(width, 1).without_bias());

    let y = net.reshape(&format!("{name}/rows"), y, &[width * rows, PATCH, columns, PATCH]);
    let y = net.transpose(&format!("{name}/patches"), y, [0, 2, 1, 3]);
    let y = net.reshape(&format!("{name}/places"), y, &[1, width, n_patches, PLACES]);
    let y = net.transpose(&format!("{name}/places_first"), y, [0, 3, 2, 1]);
    let mut y = net.reshape(&format!("{name}/tokens"), y, &[PLACES, n_patches, width]);
    for layer in 0..n_layers {
        y = transformer(net, &format!("{name}/transformer{layer}"), y);
    }
    let y = net.layer_norm(&format!("{name}/norm"), y, NORM_EPSILON);
    let y = net.reshape(&format!("{name}/apart"), y, &[1, PLACES, n_patches, width]);
    let y = net.transpose(&format!("{name}/width_first"), y, [0, 3, 2, 1]);
    let y = net.reshape(&format!("{name}/in_patches"), y, &[width * rows, columns, PATCH, PATCH]);
    let y = net.transpose(&format!("{name}/in_rows"), y, [0, 2, 1, 3]);
    let y = net.reshape(&format!("{name}/map"), y, &[1, width, h, w]);

    let y = net.conv(&format!("{name}/narrow"), y, silu(channels, 1));
    let y = net.concat(&format!("{name}/concat"), &[x, y]);
    net.conv(&format!("{name}/fusion"), y, silu(channels, 3))
}

/// Self-attention of four heads and a fully connected network of twice the width, each after a layer
/// normalisation and beside a shortcut.
fn transformer(net: &mut Network, name: &str, x: Tensor) -> Tensor {
    let width = net.features(x);
    let y = net.layer_norm(&format!("{name}/norm1"), x, NORM_EPSILON);
    let y = net.self_attention(&format!("{name}/attention"), y, 4);
    let x = net.add(&format!("{name}/add1"), x, y);
    let y = net.layer_norm(&format!("{name}/norm2"), x, NORM_EPSILON);
    let y = net.linear_of_tokens(&format!("{name}/fc1"), y, 2 * width);
    let y = net.activation(&format!("{name}/fc1"), y, Activation::Silu);
    let y = net.linear_of_tokens(&format!("{name}/fc2"), y, width);
    net.add(&format!("{name}/add2"), x, y)
}
