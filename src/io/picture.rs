//! The pixels of a PNG or JPEG, and their scaling.
//!
//! Decoders are those of the `png` and `zune-jpeg` crates, and what comes of them is to the bit what the
//! `image` crate made of them: its luma, and its triangle filter, columns first, in `f32`, then rows, rounded
//! once. That crate is not used for the sake of the time that it takes to build, with all its formats and
//! colour spaces.

use std::io::Cursor;

use png::{BitDepth, Limits, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Pixels of a picture's side at most, and bytes of its decoded form.
pub(super) const MAX_SIDE: u32 = 1 << 15;
const MAX_DECODED_BYTES: usize = 1 << 30;

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG_SIGNATURE: &[u8] = b"\xff\xd8\xff";

/// Red, green, blue and alpha of every pixel, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) pixels: Vec<[u8; 4]>,
}

/// What a decoder leaves: samples of 8 or 16 bits, and how many a pixel has (grey, grey and alpha, colours,
/// colours and alpha).
struct Samples {
    width: u32,
    height: u32,
    channels: usize,
    wide: bool,
    bytes: Vec<u8>,
}

impl Picture {
    /// The picture that a PNG's or JPEG's bytes stand for. A `grey` one has the colours' luma in all three.
    ///
    /// # Errors
    /// What is wrong with the bytes, in words.
    pub(super) fn decode(bytes: &[u8], grey: bool) -> Result<Self, String> {
        let samples = if bytes.starts_with(PNG_SIGNATURE) {
            png(bytes)?
        } else if bytes.starts_with(JPEG_SIGNATURE) {
            jpeg(bytes)?
        } else {
            return Err("the file begins as neither".to_owned());
        };
        Ok(samples.picture(grey))
    }

    /// A picture of one colour.
    pub(super) fn plain(width: u32, height: u32, colour: [u8; 4]) -> Self {
        Self { width, height, pixels: vec![colour; width as usize * height as usize] }
    }

    fn rows(&self) -> impl Iterator<Item = &[[u8; 4]]> {
        self.pixels.chunks_exact(self.width as usize)
    }

    /// The rectangle of `width` and `height` that begins at a column `x` and a row `y`.
    pub(super) fn cut(&self, x: u32, y: u32, width: u32, height: u32) -> Self {
        let rows = self.rows().skip(y as usize).take(height as usize);
        let pixels = rows.flat_map(|row| &row[x as usize..][..width as usize]).copied().collect();
        Self { width, height, pixels }
    }

    /// Puts another picture, which must fit, over the pixels from column `x` and row `y` on.
    pub(super) fn put(&mut self, other: &Self, x: u32, y: u32) {
        let (whole, part) = (self.width as usize, other.width as usize);
        let below = self.pixels.chunks_exact_mut(whole).skip(y as usize);
        for (under, over) in below.zip(other.rows()) {
            under[x as usize..][..part].copy_from_slice(over);
        }
    }

    /// The picture scaled to a width and height, bilinear over the area that a pixel covers.
    pub(super) fn scaled(&self, width: u32, height: u32) -> Self {
        if (self.width, self.height) == (width, height) {
            return self.clone();
        }
        let columns = taps(self.width, width);
        let mut sums = vec![[0f32; 4]; self.width as usize];
        let mut pixels = Vec::with_capacity(width as usize * height as usize);
        for tap in taps(self.height, height) {
            sums.fill([0.0; 4]);
            for (row, weight) in self.rows().skip(tap.first).zip(&tap.weights) {
                for (sum, pixel) in sums.iter_mut().zip(row) {
                    for (sum, &sample) in sum.iter_mut().zip(pixel) {
                        *sum += f32::from(sample) * weight;
                    }
                }
            }
            for tap in &columns {
                let mut pixel = [0f32; 4];
                for (sum, weight) in sums[tap.first..].iter().zip(&tap.weights) {
                    for (sample, sum) in pixel.iter_mut().zip(sum) {
                        *sample += sum * weight;
                    }
                }
                pixels.push(pixel.map(|sample| sample.clamp(0.0, 255.0).round() as u8));
            }
        }
        Self { width, height, pixels }
    }
}

/// The samples along an axis that make up one of a scaled axis, from the first on.
struct Tap {
    first: usize,
    weights: Vec<f32>,
}

/// How each of `to` samples is made up of `from`: weights fall linearly with the distance from its centre.
fn taps(from: u32, to: u32) -> Vec<Tap> {
    let ratio = from as f32 / to as f32;
    let reach = ratio.max(1.0);
    let tap = |at: u32| {
        let centre = (at as f32 + 0.5) * ratio;
        let first = ((centre - reach).floor() as i64).clamp(0, i64::from(from) - 1);
        let end = ((centre + reach).ceil() as i64).clamp(first + 1, i64::from(from));
        let centre = centre - 0.5;
        let weight = |i: i64| (1.0 - ((i as f32 - centre) / reach).abs()).max(0.0);
        let mut weights: Vec<f32> = (first..end).map(weight).collect();
        let sum = weights.iter().fold(0.0, |sum, weight| sum + weight);
        weights.iter_mut().for_each(|weight| *weight /= sum);
        Tap { first: first as usize, weights }
    };
    (0..to).map(tap).collect()
}

/// How much red, green and blue each add to the luminance of BT.709's colours.
const LUMINANCE: [f32; 3] = [0.21264784, 0.7151792, 0.07217304];

impl Samples {
    fn picture(&self, grey: bool) -> Picture {
        let opaque = if self.wide { u16::MAX } else { u8::MAX.into() };
        let sample = |pixel: &[u8], i: usize| match self.wide {
            true => u16::from_be_bytes([pixel[2 * i], pixel[2 * i + 1]]),
            false => pixel[i].into(),
        };
        // The nearest of 256 levels.
        let narrow =
            |sample: u16| if self.wide { (u32::from(sample) + 128) / 257 } else { sample.into() } as u8;
        let luma = |colour: [u16; 3]| {
            let parts = colour.map(|sample| f32::from(sample) * (1.0 / f32::from(opaque)));
            let luma = parts.iter().zip(LUMINANCE).fold(0.0, |sum, (part, share)| sum + part * share);
            (luma * 255.0).round() as u8
        };
        let pixel = |pixel: &[u8]| {
            let coloured = self.channels >= 3;
            let colour = if coloured { [0, 1, 2] } else { [0; 3] }.map(|i| sample(pixel, i));
            let [r, g, b] = if grey && coloured { [luma(colour); 3] } else { colour.map(narrow) };
            let has_alpha = self.channels.is_multiple_of(2);
            [r, g, b, if has_alpha { narrow(sample(pixel, self.channels - 1)) } else { u8::MAX }]
        };
        let size = self.channels * if self.wide { 2 } else { 1 };
        let pixels = self.bytes.chunks_exact(size).map(pixel).collect();
        Picture { width: self.width, height: self.height, pixels }
    }
}

fn within_limits(width: u32, height: u32) -> Result<(), String> {
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(format!("{width}x{height} pixels, where {MAX_SIDE} a side are read"));
    }
    Ok(())
}

fn png(bytes: &[u8]) -> Result<Samples, String> {
    let words = |error: png::DecodingError| error.to_string();
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: MAX_DECODED_BYTES });
    decoder.set_ignore_text_chunk(true);
    // Palettes and samples of few bits become bytes; 16 bits stay.
    decoder.set_transformations(Transformations::EXPAND);
    let header = decoder.read_header_info().map_err(words)?;
    within_limits(header.width, header.height)?;
    let mut reader = decoder.read_info().map_err(words)?;
    let size = reader.output_buffer_size().filter(|&size| size <= MAX_DECODED_BYTES);
    let mut samples = vec![0; size.ok_or("too large")?];
    let frame = reader.next_frame(&mut samples).map_err(words)?;
    Ok(Samples {
        width: frame.width,
        height: frame.height,
        channels: frame.color_type.samples(),
        wide: frame.bit_depth == BitDepth::Sixteen,
        bytes: samples,
    })
}

fn jpeg(bytes: &[u8]) -> Result<Samples, String> {
    let words = |error: zune_jpeg::errors::DecodeErrors| error.to_string();
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(MAX_SIDE as usize)
        .set_max_height(MAX_SIDE as usize);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(words)?;
    let (space, channels) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (ColorSpace::Luma, 1),
        _ => (ColorSpace::RGB, 3),
    };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let (width, height) = decoder.dimensions().ok_or("no dimensions")?;
    if width * height * channels > MAX_DECODED_BYTES {
        return Err("too large".to_owned());
    }
    let bytes = decoder.decode().map_err(words)?;
    // A side is 65,535 at most.
    Ok(Samples { width: width as u32, height: height as u32, channels, wide: false, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(width: u32, height: u32, colour: png::ColorType, depth: BitDepth, samples: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        let mut writer = encoder.write_header().expect("memory takes it");
        writer.write_image_data(samples).expect("memory takes it");
        drop(writer);
        bytes
    }

    #[test]
    fn samples_of_every_kind_are_bytes_of_four_channels() {
        let pixel = |colour, depth, samples: &[u8], grey| {
            Picture::decode(&encoded(1, 1, colour, depth, samples), grey).expect("a picture").pixels[0]
        };
        let rgba = [10, 20, 30, 40];
        assert_eq!(pixel(png::ColorType::Rgba, BitDepth::Eight, &rgba, false), rgba);
        assert_eq!(pixel(png::ColorType::Rgba, BitDepth::Eight, &rgba, true), [19, 19, 19, 40]);
        assert_eq!(pixel(png::ColorType::Rgb, BitDepth::Eight, &rgba[..3], false), [10, 20, 30, 255]);
        assert_eq!(pixel(png::ColorType::GrayscaleAlpha, BitDepth::Eight, &[9, 8], true), [9, 9, 9, 8]);
        // Four levels are thirds of the range; 0x7f7f is 127 of 255, and half a level more is 128.
        assert_eq!(
            pixel(png::ColorType::Grayscale, BitDepth::Two, &[0b1000_0000], false),
            [170, 170, 170, 255]
        );
        assert_eq!(pixel(png::ColorType::Grayscale, BitDepth::Sixteen, &[0x7f, 0x7f], false)[0], 127);
        assert_eq!(pixel(png::ColorType::Grayscale, BitDepth::Sixteen, &[0x80, 0x00], false)[0], 128);
    }

    #[test]
    fn scaling_weighs_by_distance_and_keeps_what_is_even() {
        let row = Picture { width: 2, height: 1, pixels: vec![[0, 0, 0, 255], [100, 200, 40, 255]] };
        let wider = [[0, 0, 0, 255], [25, 50, 10, 255], [75, 150, 30, 255], [100, 200, 40, 255]];
        assert_eq!(row.scaled(4, 1).pixels, wider);
        assert_eq!(row.scaled(1, 1).pixels, [[50, 100, 20, 255]]);
        let even = Picture::plain(7, 5, [3, 200, 77, 255]);
        for (width, height) in [(3, 9), (14, 2), (1, 1)] {
            assert_eq!(even.scaled(width, height), Picture::plain(width, height, [3, 200, 77, 255]));
        }
    }

    #[test]
    fn a_cut_put_back_changes_nothing() {
        let pixels = (0..12).map(|i| [i, 0, 0, 255]).collect();
        let picture = Picture { width: 4, height: 3, pixels };
        let part = picture.cut(1, 1, 2, 2);
        assert_eq!(part.pixels.iter().map(|pixel| pixel[0]).collect::<Vec<_>>(), [5, 6, 9, 10]);
        let mut again = picture.clone();
        again.put(&part, 1, 1);
        assert_eq!(again, picture);
    }

    #[test]
    fn more_pixels_than_are_read_are_refused() {
        let samples = vec![0; MAX_SIDE as usize + 1];
        let wide = encoded(MAX_SIDE + 1, 1, png::ColorType::Grayscale, BitDepth::Eight, &samples);
        assert!(Picture::decode(&wide, false).is_err());
        let most = encoded(MAX_SIDE, 1, png::ColorType::Grayscale, BitDepth::Eight, &samples[1..]);
        assert!(Picture::decode(&most, false).is_ok());
    }
}
