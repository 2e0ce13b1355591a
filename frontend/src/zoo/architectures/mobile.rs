//! Networks of depthwise convolutions.

use super::{Dimensions, LARGE_NORM_EPSILON, NORM_EPSILON, classifier, of_normalised_image};
use crate::zoo::network::{Activation, Conv, Network, Tensor};

/// MobileNetV2 of width 1.0.
///
/// # Source
/// Sandler et al.: "MobileNetV2: Inverted residuals and linear bottlenecks", 2018, table 2.
pub(in crate::zoo) fn mobilenetv2(dimensions: Dimensions) -> Network {
    let (mut net, image) = of_normalised_image(dimensions);
    let x = mobilenetv2_features(&mut net, image, MobileNetV2Dilations::NONE);
    classifier(&mut net, x, "classifier", dimensions.classes);
    net
}

/// From which of its seven groups of blocks on a MobileNetV2 does not halve its maps any more, but moves the
/// taps of its depthwise convolutions apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct MobileNetV2Dilations {
    /// The distance of the taps of each group.
    of_groups: [usize; 7],
}

impl MobileNetV2Dilations {
    const NONE: Self = Self { of_groups: [1; 7] };
    /// As in segmentation networks: the last maps are an eighth of the image.
    pub(super) const TO_AN_EIGHTH: Self = Self { of_groups: [1, 1, 1, 2, 2, 4, 4] };
}

/// The network up to its last map.
pub(super) fn mobilenetv2_features(
    net: &mut Network,
    image: Tensor,
    dilations: MobileNetV2Dilations,
) -> Tensor {
    let conv = |out, kernel| Conv::new(out, kernel).batch_norm(NORM_EPSILON);
    let mut x = net.conv("stem", image, conv(32, 3).stride(2).activation(Activation::Relu6));
    let mut index = 0;
    // Expansion, output channels, repeats, stride of the first.
    let groups = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ];
    for ((expansion, out, n_blocks, first_stride), dilation) in groups.into_iter().zip(dilations.of_groups) {
        for block in 0..n_blocks {
            let name = format!("block_{index}");
            let stride = if block == 0 && dilation == 1 { first_stride } else { 1 };
            let hidden = net.channels(x) * expansion;
            let mut y = x;
            if expansion > 1 {
                y = net.conv(&format!("{name}/expand"), y, conv(hidden, 1).activation(Activation::Relu6));
            }
            let depthwise = conv(hidden, 3).stride(stride).dilation(dilation).groups(hidden);
            y = net.conv(&format!("{name}/depthwise"), y, depthwise.activation(Activation::Relu6));
            y = net.conv(&format!("{name}/project"), y, conv(out, 1));
            x = if block == 0 { y } else { net.add(&format!("{name}/add"), x, y) };
            index += 1;
        }
    }
    net.conv("last", x, conv(1280, 1).activation(Activation::Relu6))
}

/// MobileNetV3-Large of width 1.0, without the dropout.
///
/// # Source
/// Howard et al.: "Searching for MobileNetV3", 2019, table 1; as in torchvision.
pub(in crate::zoo) fn mobilenetv3_large(dimensions: Dimensions) -> Network {
    use Activation::{HardSigmoid, HardSwish, Relu};
    let (mut net, image) = of_normalised_image(dimensions);
    let conv = |out, kernel| Conv::new(out, kernel).batch_norm(LARGE_NORM_EPSILON);
    let mut x = net.conv("stem", image, conv(16, 3).stride(2).activation(HardSwish));
    // Kernel, expanded channels, output channels, channels of a squeeze, activation, stride.
    let blocks = [
        (3, 16, 16, None, Relu, 1),
        (3, 64, 24, None, Relu, 2),
        (3, 72, 24, None, Relu, 1),
        (5, 72, 40, Some(24), Relu, 2),
        (5, 120, 40, Some(32), Relu, 1),
        (5, 120, 40, Some(32), Relu, 1),
        (3, 240, 80, None, HardSwish, 2),
        (3, 200, 80, None, HardSwish, 1),
        (3, 184, 80, None, HardSwish, 1),
        (3, 184, 80, None, HardSwish, 1),
        (3, 480, 112, Some(120), HardSwish, 1),
        (3, 672, 112, Some(168), HardSwish, 1),
        (5, 672, 160, Some(168), HardSwish, 2),
        (5, 960, 160, Some(240), HardSwish, 1),
        (5, 960, 160, Some(240), HardSwish, 1),
    ];
    for (index, (kernel, hidden, out, squeezed, activation, stride)) in (1..).zip(blocks) {
        let name = format!("block_{index}");
        let mut y = x;
        if hidden != net.channels(x) {
            y = net.conv(&format!("{name}/expand"), y, conv(hidden, 1).activation(activation));
        }
        let depthwise = conv(hidden, kernel).stride(stride).groups(hidden).activation(activation);
        y = net.conv(&format!("{name}/depthwise"), y, depthwise);
        if let Some(squeezed) = squeezed {
            let pooled = net.global_average_pool(&format!("{name}/squeeze"), y);
            let reduce = Conv::new(squeezed, 1).activation(Relu);
            let reduced = net.conv(&format!("{name}/reduce"), pooled, reduce);
            let excite = Conv::new(hidden, 1).activation(HardSigmoid);
            let gate = net.conv(&format!("{name}/excite"), reduced, excite);
            y = net.gated(&format!("{name}/gated"), y, gate, true);
        }
        y = net.conv(&format!("{name}/project"), y, conv(out, 1));
        let is_residual = stride == 1 && out == net.channels(x);
        x = if is_residual { net.add(&format!("{name}/add"), y, x) } else { y };
    }
    x = net.conv("last", x, conv(960, 1).activation(HardSwish));
    x = net.global_average_pool("avgpool", x);
    x = net.flatten("flatten", x);
    x = net.linear("hidden", x, 1280);
    x = net.activation("hidden", x, HardSwish);
    x = net.linear("classifier", x, dimensions.classes);
    net.output(x, "logits");
    net
}

/// EfficientNet-Lite0, without the dropout: EfficientNet-B0 without squeezes, with ReLU6.
///
/// # Source
/// Tan, Le: "EfficientNet: Rethinking model scaling for convolutional neural networks", 2019, table 1; Lite0
/// as in timm, from TensorFlow's repository.
pub(in crate::zoo) fn efficientnet_lite0(dimensions: Dimensions) -> Network {
    let (mut net, image) = of_normalised_image(dimensions);
    let [.., x] = efficientnet_b0_features(&mut net, image, EfficientNetKind::Lite);
    let last = Conv::new(1280, 1).batch_norm(NORM_EPSILON).activation(Activation::Relu6);
    let x = net.conv("last", x, last);
    classifier(&mut net, x, "classifier", dimensions.classes);
    net
}

/// The two forms of an EfficientNet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum EfficientNetKind {
    /// SiLU, and a squeeze of a quarter of a block's input channels in each block.
    Full,
    /// ReLU6, and no squeezes.
    Lite,
}

/// The last maps at an eighth, a sixteenth and a thirty-second of the image.
pub(super) fn efficientnet_b0_features(
    net: &mut Network,
    image: Tensor,
    kind: EfficientNetKind,
) -> [Tensor; 3] {
    let activation = match kind {
        EfficientNetKind::Full => Activation::Silu,
        EfficientNetKind::Lite => Activation::Relu6,
    };
    let conv = |out, kernel| Conv::new(out, kernel).batch_norm(NORM_EPSILON);
    let mut x = net.conv("stem", image, conv(32, 3).stride(2).activation(activation));
    let mut ends = Vec::new();
    // Expansion, kernel, output channels, repeats, stride of the first.
    let stages = [
        (1, 3, 16, 1, 1),
        (6, 3, 24, 2, 2),
        (6, 5, 40, 2, 2),
        (6, 3, 80, 3, 2),
        (6, 5, 112, 3, 1),
        (6, 5, 192, 4, 2),
        (6, 3, 320, 1, 1),
    ];
    for (stage, (expansion, kernel, out, n_blocks, first_stride)) in stages.into_iter().enumerate() {
        for block in 0..n_blocks {
            let name = format!("block_{stage}.{block}");
            let stride = if block == 0 { first_stride } else { 1 };
            let narrow = net.channels(x);
            let hidden = narrow * expansion;
            let mut y = x;
            if expansion > 1 {
                y = net.conv(&format!("{name}/expand"), y, conv(hidden, 1).activation(activation));
            }
            let depthwise = conv(hidden, kernel).stride(stride).groups(hidden).activation(activation);
            y = net.conv(&format!("{name}/depthwise"), y, depthwise);
            if kind == EfficientNetKind::Full {
                let pooled = net.spatial_mean(&format!("{name}/squeeze"), y);
                let reduce = Conv::new(narrow / 4, 1).activation(activation);
                let reduced = net.conv(&format!("{name}/reduce"), pooled, reduce);
                let excite = Conv::new(hidden, 1).activation(Activation::Sigmoid);
                let gate = net.conv(&format!("{name}/excite"), reduced, excite);
                y = net.gated(&format!("{name}/gated"), y, gate, false);
            }
            y = net.conv(&format!("{name}/project"), y, conv(out, 1));
            x = if block == 0 { y } else { net.add(&format!("{name}/add"), y, x) };
        }
        ends.push(x);
    }
    [ends[2], ends[4], ends[6]]
}
