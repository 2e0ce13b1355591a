//! Darknet's two halves of a YOLO: the layer list of its `.cfg` file, and the trained `.weights` file.
//!
//! A `.weights` file holds no names and no shapes, only the floats of one layer after the other, so it can be
//! read only against a network: every convolution's biases (or batch normalisation shifts), then batch
//! normalisation scales, means and variances, then its weights in output, input, row, column order.
//! [`Network`] asks for its parameters in the same order, and the bytes are taken over as they are.

use super::network::{Activation, Conv, Network, Parameter, Tensor};

/// What Darknet adds to the variance before it takes the root.
///
/// # Source
/// `normalize_kernel` in `src/blas_kernels.cu`, the code path that YOLOv3 was trained and measured with.
pub(super) const NORM_EPSILON: f32 = 1e-5;

/// One layer of a `.cfg` file. Layers are numbered from zero; negative references are relative.
#[derive(Debug, Clone, Copy)]
pub(super) enum Layer {
    /// Convolution with batch normalisation and leaky ReLU: output channels, kernel size, stride.
    Conv(usize, usize, usize),
    /// Convolution with bias, linear, 1x1, with as many outputs as the detection head after it takes.
    Head,
    /// The sum of the layer before and of the one referred to.
    Shortcut(isize),
    /// The channels of the layers referred to, concatenated.
    Route(&'static [isize]),
    /// Nearest-neighbour upsampling by two.
    Upsample,
    /// Max pooling of a 2x2 window with this stride.
    MaxPool(usize),
    /// A detection head: the layer before it is an output of the network.
    Yolo,
}

/// Appends `layers` to the network, whose nodes are named after the layers' kinds and numbers.
pub(super) fn build(network: &mut Network, image: Tensor, layers: &[Layer], classes: usize) {
    let mut outputs: Vec<Tensor> = Vec::with_capacity(layers.len());
    for (index, &layer) in layers.iter().enumerate() {
        let back = |reference: isize| match usize::try_from(reference) {
            Ok(absolute) => outputs[absolute],
            Err(_) => outputs[index - reference.unsigned_abs()],
        };
        let x = outputs.last().copied().unwrap_or(image);
        let output = match layer {
            Layer::Conv(out, kernel, stride) => {
                let conv = Conv::new(out, kernel).stride(stride).batch_norm(NORM_EPSILON);
                network.conv(&format!("conv_{index}"), x, conv.activation(Activation::LeakyRelu))
            }
            Layer::Head => network.conv(&format!("conv_{index}"), x, Conv::new(3 * (5 + classes), 1)),
            Layer::Shortcut(from) => network.add(&format!("shortcut_{index}"), x, back(from)),
            Layer::Route(&[from]) => back(from),
            Layer::Route(from) => {
                let parts: Vec<Tensor> = from.iter().map(|&from| back(from)).collect();
                network.concat(&format!("route_{index}"), &parts)
            }
            Layer::Upsample => network.upsample(&format!("upsample_{index}"), x, 2),
            Layer::MaxPool(stride) => {
                // Darknet pads by one in all and only behind, which an even map at stride 2 never reaches.
                let behind = usize::from(stride == 1);
                network.max_pool(&format!("maxpool_{index}"), x, 2, stride, [0, 0, behind, behind])
            }
            Layer::Yolo => {
                network.output(x, &format!("yolo_{index}"));
                x
            }
        };
        outputs.push(output);
    }
}

/// Why a `.weights` file does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// The file ends within its header.
    #[error("Darknet weights of {found} bytes are too short for the header of {expected}")]
    Header {
        /// Length of the file in bytes.
        found: usize,
        /// Length of the header in bytes.
        expected: usize,
    },
    /// The file is of another network, truncated, or too long.
    #[error(
        "Darknet weights hold {found} floats{}, but the network takes {expected}",
        if *odd_bytes == 0 { String::new() } else { format!(" and {odd_bytes} bytes") }
    )]
    Length {
        /// Whole floats in the file after its header.
        found: usize,
        /// Bytes after the last whole float.
        odd_bytes: usize,
        /// Floats that the network has.
        expected: usize,
    },
    /// A weight is infinite or not a number, or a variance is negative.
    #[error("Darknet weights have the value {value} for {parameter}, element {element}")]
    Value {
        /// The parameter's name in the ONNX file.
        parameter: String,
        /// Which element of it, counted in row-major order.
        element: usize,
        /// The value found, as text.
        value: String,
    },
}

/// The bytes of the floats in `file`, checked against the parameters that they are for.
///
/// # Errors
/// The header is cut off, the number of floats is another, or a value makes no sense.
///
/// # Source
/// `load_weights_upto` in Darknet's `src/parser.c`.
pub(super) fn floats<'a>(file: &'a [u8], parameters: &[Parameter]) -> Result<&'a [u8], WeightsError> {
    let field = |index: usize| -> Option<i64> {
        let bytes = file.get(4 * index..4 * index + 4)?;
        bytes.try_into().ok().map(|bytes| i64::from(i32::from_le_bytes(bytes)))
    };
    // Major, minor and revision, then the number of images seen in training, which became 64 bits wide with
    // 0.2.
    let header = match (field(0), field(1)) {
        (Some(major), Some(minor)) if major * 10 + minor < 2 => 4 * 4,
        _ => 5 * 4,
    };
    let Some(bytes) = file.get(header..) else {
        return Err(WeightsError::Header { found: file.len(), expected: header });
    };
    let expected: usize = parameters.iter().filter(|p| p.is_trained()).map(Parameter::len).sum();
    let (values, odd) = bytes.as_chunks::<4>();
    if values.len() != expected || !odd.is_empty() {
        return Err(WeightsError::Length { found: values.len(), odd_bytes: odd.len(), expected });
    }
    let mut rest = values;
    for parameter in parameters.iter().filter(|p| p.is_trained()) {
        let (own, others) = rest.split_at(parameter.len());
        rest = others;
        let may_be_negative = !parameter.name.ends_with(".variance");
        let sound = |v: f32| v.is_finite() && (may_be_negative || v >= 0.0);
        let bad = own.iter().map(|&bytes| f32::from_le_bytes(bytes)).enumerate().find(|&(_, v)| !sound(v));
        if let Some((element, value)) = bad {
            let (parameter, value) = (parameter.name.clone(), value.to_string());
            return Err(WeightsError::Value { parameter, element, value });
        }
    }
    Ok(bytes)
}
