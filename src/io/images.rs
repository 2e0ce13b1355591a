//! Pictures as network inputs.
//!
//! A PNG or JPEG is brought to the width, height and channels of an input's shape; every sample `x` of 0 to
//! 255 then becomes `(x - mean) * scale`. Scaling is bilinear over the area that a pixel covers (as Pillow's
//! and TensorFlow's antialiased bilinear), and pixels stand at the centres of their squares.
//!
//! Colour profiles and the rotation that cameras note in a file are ignored; an alpha channel is dropped
//! unless the input has four channels.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::array::{Array, DType, show_shape};
use super::picture::{MAX_SIDE, Picture};

/// Why a picture is no input.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not a PNG or JPEG, or a damaged one.
    #[error("not a PNG or JPEG picture: {0}")]
    Malformed(String),
    /// The input's shape is not that of a picture.
    #[error(
        "an input of shape {} takes no picture: expected 1xCxHxW or 1xHxWxC with 1, 3 or 4 channels",
        show_shape(.0)
    )]
    Shape(Vec<usize>),
    /// `mean` or `scale` has a value count that suits no input, or this one.
    #[error("`{what}` has {found} values, expected 1 or {channels}, one a channel")]
    Values {
        /// `mean` or `scale`.
        what: &'static str,
        /// How many values it has.
        found: usize,
        /// Channels of the input.
        channels: usize,
    },
}

/// The order of colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red, as OpenCV has it.
    Bgr,
}

/// Where the channels stand in an input's shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Where the extent is 1, 3 or 4; `nchw` if that is so for both.
    #[default]
    Auto,
    /// Before height and width.
    Nchw,
    /// After them.
    Nhwc,
}

/// How a picture of other proportions fills the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Width and height are scaled each by its own factor.
    #[default]
    Stretch,
    /// Scaled evenly to fit inside, centred on mid-grey.
    Letterbox,
    /// Scaled evenly to cover, the middle cut out.
    Crop,
}

macro_rules! words {
    ($type:ident, $($word:literal => $variant:ident),+) => {
        impl FromStr for $type {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("`{word}` is none of {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}
words!(ChannelOrder, "rgb" => Rgb, "bgr" => Bgr);
words!(Layout, "auto" => Auto, "nchw" => Nchw, "nhwc" => Nhwc);
words!(Fit, "stretch" => Stretch, "letterbox" => Letterbox, "crop" => Crop);

/// How a picture becomes numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageOptions {
    /// Subtracted from a sample of 0 to 255: one value, or one a channel in the input's order.
    pub mean: Vec<f32>,
    /// The difference is multiplied by it: one value, or one a channel in the input's order.
    pub scale: Vec<f32>,
    /// The order of colours.
    pub order: ChannelOrder,
    /// Where the channels stand.
    pub layout: Layout,
    /// How other proportions are dealt with.
    pub fit: Fit,
}

impl Default for ImageOptions {
    /// Red, green and blue from 0 to 1, stretched to the input.
    fn default() -> Self {
        Self {
            mean: vec![0.0],
            scale: vec![1.0 / 255.0],
            order: ChannelOrder::default(),
            layout: Layout::default(),
            fit: Fit::default(),
        }
    }
}

/// What surrounds a letterboxed picture.
const GREY: u8 = 128;

/// Extents of an input as a picture's: channels, height, width, and whether channels come last.
fn picture_shape(shape: &[usize], layout: Layout) -> Result<(usize, u32, u32, bool), ImageError> {
    let refused = || ImageError::Shape(shape.to_vec());
    let &[a, b, c] = shape.strip_prefix(&[1]).filter(|rest| rest.len() == 3).unwrap_or(shape) else {
        return Err(refused());
    };
    let suits = |channels: usize| matches!(channels, 1 | 3 | 4);
    let last = match layout {
        Layout::Nchw => false,
        Layout::Nhwc => true,
        Layout::Auto => !suits(a) && suits(c),
    };
    let (channels, height, width) = if last { (c, a, b) } else { (a, b, c) };
    let side = |extent: usize| u32::try_from(extent).ok().filter(|e| (1..=MAX_SIDE).contains(e));
    match (side(height), side(width)) {
        (Some(height), Some(width)) if suits(channels) => Ok((channels, height, width, last)),
        _ => Err(refused()),
    }
}

/// Brings a picture to a width and height.
fn fit(picture: Picture, width: u32, height: u32, how: Fit) -> Picture {
    let (w, h) = (picture.width, picture.height);
    if (w, h) == (width, height) {
        return picture;
    }
    let by_width = f64::from(width) / f64::from(w);
    let by_height = f64::from(height) / f64::from(h);
    match how {
        Fit::Stretch => picture.scaled(width, height),
        Fit::Letterbox => {
            let factor = by_width.min(by_height);
            let side = |extent: u32| ((f64::from(extent) * factor).round() as u32).max(1);
            let (w, h) = (side(w).min(width), side(h).min(height));
            let mut canvas = Picture::plain(width, height, [GREY, GREY, GREY, 255]);
            canvas.put(&picture.scaled(w, h), (width - w) / 2, (height - h) / 2);
            canvas
        }
        Fit::Crop => {
            // The part that is seen is cut out first: what is cut away need not be scaled.
            let factor = by_width.max(by_height);
            let side =
                |extent: u32, whole: u32| ((f64::from(extent) / factor).round() as u32).clamp(1, whole);
            let (w_cut, h_cut) = (side(width, w), side(height, h));
            picture.cut((w - w_cut) / 2, (h - h_cut) / 2, w_cut, h_cut).scaled(width, height)
        }
    }
}

/// The `f32` array of `shape` that a PNG's or JPEG's bytes stand for.
///
/// # Errors
/// If the bytes are no such picture, the shape is not that of one, or the options do not suit the shape.
pub fn decode(bytes: &[u8], options: &ImageOptions, shape: &[usize]) -> Result<Array, ImageError> {
    let (channels, height, width, last) = picture_shape(shape, options.layout)?;
    for (what, values) in [("mean", &options.mean), ("scale", &options.scale)] {
        if values.len() != 1 && values.len() != channels {
            return Err(ImageError::Values { what, found: values.len(), channels });
        }
    }
    let picture = Picture::decode(bytes, channels == 1).map_err(ImageError::Malformed)?;
    let picture = fit(picture, width, height, options.fit);

    let n_pixels = width as usize * height as usize;
    let mut values = vec![0f64; n_pixels * channels];
    for channel in 0..channels {
        let pick = |values: &[f32]| if values.len() == 1 { values[0] } else { values[channel] };
        let (mean, scale) = (pick(&options.mean), pick(&options.scale));
        let from = match (options.order, channel) {
            (ChannelOrder::Bgr, 0..=2) if channels > 1 => 2 - channel,
            _ => channel,
        };
        for (pixel, samples) in picture.pixels.iter().enumerate() {
            let at = if last { pixel * channels + channel } else { channel * n_pixels + pixel };
            values[at] = f64::from((f32::from(samples[from]) - mean) * scale);
        }
    }
    Ok(Array { shape: shape.to_vec(), dtype: DType::F32, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red on the left half, blue on the right.
    fn flag(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        let row = (0..width).flat_map(|x| if x < width / 2 { [255, 0, 0] } else { [0, 0, 255] });
        let samples = row.collect::<Vec<u8>>().repeat(height as usize);
        let mut writer = encoder.write_header().expect("memory takes it");
        writer.write_image_data(&samples).expect("memory takes it");
        drop(writer);
        bytes
    }

    #[test]
    fn layouts_and_colours_are_where_they_belong() {
        let plain = ImageOptions { scale: vec![1.0], ..ImageOptions::default() };
        let nchw = decode(&flag(2, 1), &plain, &[1, 3, 1, 2]).expect("an input");
        assert_eq!(nchw.values, [255.0, 0.0, 0.0, 0.0, 0.0, 255.0]);
        let ambiguous = decode(&flag(3, 2), &plain, &[1, 1, 2, 3]).expect("one channel of 2x3");
        assert_eq!(ambiguous.values, [54.0, 18.0, 18.0, 54.0, 18.0, 18.0]);
        let options = ImageOptions { layout: Layout::Nhwc, order: ChannelOrder::Bgr, ..plain };
        let nhwc = decode(&flag(2, 1), &options, &[1, 1, 2, 3]).expect("an input");
        assert_eq!(nhwc.values, [0.0, 0.0, 255.0, 255.0, 0.0, 0.0]);
    }

    #[test]
    fn mean_and_scale_are_one_or_one_a_channel() {
        let options =
            ImageOptions { mean: vec![255.0, 0.0, 5.0], scale: vec![2.0], ..ImageOptions::default() };
        let array = decode(&flag(2, 1), &options, &[3, 1, 2]).expect("an input");
        assert_eq!(array.values, [0.0, -510.0, 0.0, 0.0, -10.0, 500.0]);
        let options = ImageOptions { mean: vec![1.0, 2.0], ..ImageOptions::default() };
        let refused = decode(&flag(2, 1), &options, &[3, 1, 2]);
        assert!(matches!(refused, Err(ImageError::Values { what: "mean", found: 2, channels: 3 })));
    }

    #[test]
    fn proportions_are_dealt_with_as_asked() {
        let with = |fit| {
            let options = ImageOptions { scale: vec![1.0], fit, ..ImageOptions::default() };
            decode(&flag(8, 4), &options, &[1, 3, 4, 4]).expect("an input").values
        };
        // Rows of the red plane.
        assert_eq!(with(Fit::Letterbox)[..4], [128.0; 4]);
        assert_eq!(with(Fit::Letterbox)[4], 255.0);
        assert_eq!(with(Fit::Crop)[..4], [255.0, 255.0, 0.0, 0.0]);
        assert_eq!(with(Fit::Stretch)[0], 255.0);
        assert_eq!(with(Fit::Stretch)[3], 0.0);
    }

    #[test]
    fn what_is_no_picture_is_an_error() {
        let options = ImageOptions::default();
        for bytes in [&b""[..], b"GIF89a", &flag(4, 4)[..40]] {
            assert!(matches!(decode(bytes, &options, &[1, 3, 4, 4]), Err(ImageError::Malformed(_))));
        }
        for shape in [&[1usize, 2, 5, 5][..], &[4, 4], &[2, 3, 4, 4], &[1, 3, 0, 4], &[]] {
            assert!(matches!(decode(&flag(4, 4), &options, shape), Err(ImageError::Shape(_))), "{shape:?}");
        }
    }

    #[test]
    fn grey_is_the_luma_of_colours() {
        let options = ImageOptions { scale: vec![1.0], ..ImageOptions::default() };
        let array = decode(&flag(2, 1), &options, &[1, 1, 1, 2]).expect("an input");
        assert_eq!(array.values, [54.0, 18.0]);
    }
}
