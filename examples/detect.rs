//! Decodes what a YOLO of the zoo says of a picture: from the heads that `strata run` wrote to boxes and
//! names.
//!
//! ```text
//! strata zoo yolov3-tiny --size 320x320 --weights yolov3-tiny.weights -o tiny.onnx
//! strata run tiny.onnx --input image=street.png --output-dir heads
//! cargo run --release --example detect -- yolov3-tiny --size 320x320 --picture 741x500 heads/*.npy
//! ```
//!
//! Prints a line `class score x0 y0 x1 y1` for every object, best first, in pixels of the original picture.
//!
//! A head is a `[1, 3 * (5 + classes), h, w]` array of f32: for each of its three anchors the offset and
//! logarithmic size of a box, the logit that there is an object, and the logits of the classes.
//!
//! # Source
//! Redmon, Farhadi: "YOLOv3: An incremental improvement", 2018, section 2; anchors of `cfg/yolov3.cfg` and
//! `cfg/yolov3-tiny.cfg` of Darknet.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: detect MODEL --size WxH --picture WxH [--letterbox] [--threshold P] [--overlap IOU] HEAD.npy...

  MODEL            yolov3 or yolov3-tiny
  --size WxH       width and height of the network's input
  --picture WxH    width and height of the picture that it was shown
  --letterbox      the picture was scaled evenly and centred (default: stretched to the input)
  --threshold P    least score to print (default 0.3)
  --overlap IOU    boxes of one class that overlap by more are one object (default 0.45)";

/// Width and height of the anchors in input pixels, three for each head, the head of the finest grid first.
const YOLOV3_ANCHORS: &[[(f32, f32); 3]] = &[
    [(10.0, 13.0), (16.0, 30.0), (33.0, 23.0)],
    [(30.0, 61.0), (62.0, 45.0), (59.0, 119.0)],
    [(116.0, 90.0), (156.0, 198.0), (373.0, 326.0)],
];
const YOLOV3_TINY_ANCHORS: &[[(f32, f32); 3]] =
    &[[(10.0, 14.0), (23.0, 27.0), (37.0, 58.0)], [(81.0, 82.0), (135.0, 169.0), (344.0, 319.0)]];

/// The 80 classes of COCO in Darknet's order, with `_` for blanks.
const COCO: &str = "person bicycle car motorbike aeroplane bus train truck boat traffic_light fire_hydrant \
    stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella \
    handbag \
    tie suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard \
    tennis_racket bottle wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot \
    hot_dog \
    pizza donut cake chair sofa pottedplant bed diningtable toilet tvmonitor laptop mouse remote keyboard \
    cell_phone \
    microwave oven toaster sink refrigerator book clock vase scissors teddy_bear hair_drier toothbrush";

/// Width and height.
type Size = (f32, f32);

/// What the command line asks for.
#[derive(Debug, PartialEq)]
struct Options {
    anchors: &'static [[(f32, f32); 3]],
    input: Size,
    picture: Size,
    letterbox: bool,
    threshold: f32,
    overlap: f32,
    heads: Vec<PathBuf>,
}

/// One output of the network.
#[derive(Debug, PartialEq)]
struct Head {
    channels: usize,
    height: usize,
    width: usize,
    values: Vec<f32>,
}

/// An object found, in pixels of the picture.
#[derive(Debug, Clone, PartialEq)]
struct Detection {
    class: usize,
    score: f32,
    /// Left, top, right, bottom.
    bounds: [f32; 4],
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let options = match parse_args(&args) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("detect: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match detect(&options) {
        Ok(detections) => {
            let names: Vec<&str> = COCO.split_whitespace().collect();
            for Detection { class, score, bounds: [x0, y0, x1, y1] } in detections {
                let name = names.get(class).map_or_else(|| format!("class_{class}"), ToString::to_string);
                println!("{name} {score:.3} {x0:.1} {y0:.1} {x1:.1} {y1:.1}");
            }
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("detect: {message}");
            ExitCode::FAILURE
        }
    }
}

fn parse_args(args: &[String]) -> Result<Options, String> {
    let (mut model, mut input, mut picture) = (None, None, None);
    let (mut letterbox, mut threshold, mut overlap, mut heads) = (false, 0.3, 0.45, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match &**arg {
            "--size" => input = Some(parse_size(value()?)?),
            "--picture" => picture = Some(parse_size(value()?)?),
            "--threshold" => threshold = parse_fraction(value()?)?,
            "--overlap" => overlap = parse_fraction(value()?)?,
            "--letterbox" => letterbox = true,
            option if option.starts_with('-') => return Err(format!("there is no option {option}")),
            positional if model.is_none() => model = Some(positional),
            positional => heads.push(PathBuf::from(positional)),
        }
    }
    let anchors = match model {
        Some("yolov3") => YOLOV3_ANCHORS,
        Some("yolov3-tiny") => YOLOV3_TINY_ANCHORS,
        Some(other) => return Err(format!("the model is yolov3 or yolov3-tiny, not {other}")),
        None => return Err("no model is named".to_owned()),
    };
    if heads.len() != anchors.len() {
        return Err(format!("this model has {} heads, but {} files are named", anchors.len(), heads.len()));
    }
    let input = input.ok_or("--size is missing")?;
    let picture = picture.ok_or("--picture is missing")?;
    Ok(Options { anchors, input, picture, letterbox, threshold, overlap, heads })
}

fn parse_size(text: &str) -> Result<Size, String> {
    let side = |text: &str| text.parse::<u16>().ok().filter(|&side| side > 0).map(f32::from);
    let size = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    size.ok_or_else(|| format!("'{text}' is not a size such as 416x416"))
}

fn parse_fraction(text: &str) -> Result<f32, String> {
    let value = text.parse().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or_else(|| format!("'{text}' is not a number from 0 to 1"))
}

/// All objects in the heads that the options name, best first.
fn detect(options: &Options) -> Result<Vec<Detection>, String> {
    let mut heads = Vec::new();
    for path in &options.heads {
        heads.push(read_head(path).map_err(|message| format!("{}: {message}", path.display()))?);
    }
    // Heads may come in any order; anchors go by how fine the grid is.
    heads.sort_by_key(|head| std::cmp::Reverse(head.width * head.height));
    let decoded =
        heads.iter().zip(options.anchors).flat_map(|(head, anchors)| decode(head, anchors, options));
    Ok(suppress(decoded.collect(), options.overlap))
}

/// The boxes of one head whose score is above the threshold.
fn decode(head: &Head, anchors: &[(f32, f32); 3], options: &Options) -> Vec<Detection> {
    let area = head.height * head.width;
    let per_anchor = head.channels / anchors.len();
    let mut detections = Vec::new();
    for (a, &(anchor_width, anchor_height)) in anchors.iter().enumerate() {
        for cell in 0..area {
            let logit = |k: usize| head.values[(a * per_anchor + k) * area + cell];
            let (mut class, mut best) = (0, f32::NEG_INFINITY);
            for k in 0..per_anchor - 5 {
                if logit(5 + k) > best {
                    (class, best) = (k, logit(5 + k));
                }
            }
            let score = sigmoid(logit(4)) * sigmoid(best);
            if score.is_nan() || score <= options.threshold {
                continue;
            }
            let (row, column) = (cell / head.width, cell % head.width);
            let x = (column as f32 + sigmoid(logit(0))) / head.width as f32 * options.input.0;
            let y = (row as f32 + sigmoid(logit(1))) / head.height as f32 * options.input.1;
            let (half_width, half_height) =
                (logit(2).exp() * anchor_width / 2.0, logit(3).exp() * anchor_height / 2.0);
            let corners = [x - half_width, y - half_height, x + half_width, y + half_height];
            detections.push(Detection { class, score, bounds: to_picture(corners, options) });
        }
    }
    detections
}

/// Bounds in pixels of the network's input as bounds in pixels of the picture, cut off at its edges.
fn to_picture(bounds: [f32; 4], options: &Options) -> [f32; 4] {
    let (stretch_x, stretch_y) = (options.input.0 / options.picture.0, options.input.1 / options.picture.1);
    let even = stretch_x.min(stretch_y);
    let map = |value: f32, input: f32, picture: f32, stretch: f32| {
        let (scale, margin) = if options.letterbox {
            (even, ((input - (picture * even).round()) / 2.0).floor())
        } else {
            (stretch, 0.0)
        };
        ((value - margin) / scale).clamp(0.0, picture)
    };
    let [x0, y0, x1, y1] = bounds;
    let x = |value| map(value, options.input.0, options.picture.0, stretch_x);
    let y = |value| map(value, options.input.1, options.picture.1, stretch_y);
    [x(x0), y(y0), x(x1), y(y1)]
}

/// Non-maximum suppression: of boxes of one class that overlap by more than `overlap`, only the best stays.
fn suppress(mut detections: Vec<Detection>, overlap: f32) -> Vec<Detection> {
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for detection in detections {
        let is_known = |k: &Detection| {
            k.class == detection.class && intersection_over_union(&k.bounds, &detection.bounds) > overlap
        };
        if !kept.iter().any(is_known) {
            kept.push(detection);
        }
    }
    kept
}

fn intersection_over_union(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |[x0, y0, x1, y1]: [f32; 4]| (x1 - x0).max(0.0) * (y1 - y0).max(0.0);
    let shared = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let union = area(*a) + area(*b) - shared;
    if union > 0.0 { shared / union } else { 0.0 }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn read_head(path: &Path) -> Result<Head, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let (shape, values) = parse_npy(&bytes)?;
    match shape[..] {
        [1, channels, height, width] if channels > 15 && channels % 3 == 0 && height * width > 0 => {
            Ok(Head { channels, height, width, values })
        }
        _ => Err(format!("shape {shape:?} is not that of a head, [1, 3 * (5 + classes), h, w]")),
    }
}

/// Shape and elements of an `.npy` file of little-endian f32 in C order.
///
/// # Source
/// `numpy.lib.format`, versions 1.0 to 3.0.
fn parse_npy(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>), String> {
    let cut_off = || "the file is cut off".to_owned();
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("not an .npy file")?;
    let (&[major, _minor], rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
    let (header_len, rest) = if major == 1 {
        let (len, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
        (usize::from(u16::from_le_bytes(*len)), rest)
    } else {
        let (len, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
        (u32::from_le_bytes(*len) as usize, rest)
    };
    let (header, data) = rest.split_at_checked(header_len).ok_or_else(cut_off)?;
    let header = String::from_utf8_lossy(header);
    let field = |key: &str| header.split_once(&format!("'{key}':")).map(|(_, value)| value.trim_start());
    if !field("descr").is_some_and(|value| value.starts_with("'<f4'")) {
        return Err("the elements are not little-endian f32".to_owned());
    }
    if !field("fortran_order").is_some_and(|value| value.starts_with("False")) {
        return Err("the elements are in Fortran order".to_owned());
    }
    let shape =
        field("shape").and_then(|value| value.strip_prefix('(')?.split_once(')')).map(|(shape, _)| shape);
    let shape: Vec<usize> = shape
        .and_then(|shape| {
            let sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty());
            sides.map(|side| side.parse().ok()).collect()
        })
        .ok_or("the header tells no shape")?;
    let expected = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
    let (values, odd) = data.as_chunks::<4>();
    if expected != Some(values.len()) || !odd.is_empty() {
        return Err(format!("{} bytes of data do not make an array of shape {shape:?}", data.len()));
    }
    Ok((shape, values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        parse_args(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    /// A head of one class on a grid of 2 x 3 whose logits are all -20, but for one box.
    fn head_with_one_box(anchor: usize, row: usize, column: usize, logits: [f32; 6]) -> Head {
        let mut values = vec![-20.0; 18 * 6];
        for (k, logit) in logits.into_iter().enumerate() {
            values[(anchor * 6 + k) * 6 + row * 3 + column] = logit;
        }
        Head { channels: 18, height: 2, width: 3, values }
    }

    #[test]
    fn a_box_is_decoded_by_the_formula_of_the_paper() {
        let options = options("yolov3-tiny --size 96x64 --picture 192x64 a b").expect("a good line");
        let head = head_with_one_box(1, 1, 2, [0.0, 0.0, 0.0, -(2f32.ln()), 20.0, 20.0]);
        let found = decode(&head, &[(1.0, 1.0), (16.0, 20.0), (1.0, 1.0)], &options);
        // The middle of the last cell is at (80, 48); the box is 16 wide and half of 20 high; x counts
        // double.
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].class, 0);
        assert!(found[0].score > 0.999);
        for (got, expected) in found[0].bounds.into_iter().zip([144.0, 43.0, 176.0, 53.0]) {
            assert!((got - expected).abs() < 1e-3, "{:?}", found[0].bounds);
        }
    }

    #[test]
    fn a_letterbox_is_undone() {
        // 741x500 becomes 320x216, with 52 rows above.
        let options =
            options("yolov3-tiny --size 320x320 --picture 741x500 --letterbox a b").expect("a good line");
        let [x0, y0, x1, y1] = to_picture([0.0, 52.0, 320.0, 268.0], &options);
        assert_eq!((x0, y0, x1), (0.0, 0.0, 741.0));
        assert!((y1 - 500.0).abs() < 0.5, "{y1}");
    }

    #[test]
    fn only_the_best_of_overlapping_boxes_of_a_class_stays() {
        let found = |class, score, x0| Detection { class, score, bounds: [x0, 0.0, x0 + 10.0, 10.0] };
        let kept = suppress(
            vec![found(0, 0.5, 1.0), found(0, 0.9, 0.0), found(1, 0.4, 0.0), found(0, 0.3, 9.0)],
            0.45,
        );
        assert_eq!(kept, [found(0, 0.9, 0.0), found(1, 0.4, 0.0), found(0, 0.3, 9.0)]);
    }

    #[test]
    fn npy_files_are_read_and_bad_ones_refused() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n";
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend([1.5f32, -2.0].into_iter().flat_map(f32::to_le_bytes));
        assert_eq!(parse_npy(&file), Ok((vec![1, 2], vec![1.5, -2.0])));
        for len in 0..file.len() {
            assert!(parse_npy(&file[..len]).is_err(), "cut off at {len}");
        }
        let integers = String::from_utf8_lossy(&file).replace("<f4", "<i4").into_bytes();
        assert!(parse_npy(&integers).is_err());
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "",
            "yolov9 --size 32x32 --picture 32x32 a b",
            "yolov3-tiny --size 32 --picture 32x32 a b",
            "yolov3-tiny --picture 32x32 a b",
            "yolov3 --size 32x32 --picture 32x32 a b",
            "yolov3-tiny --size 32x32 --picture 32x32 --threshold 1.5 a b",
            "yolov3-tiny --sise 32x32 --picture 32x32 a b",
            "yolov3-tiny a b --size",
        ] {
            assert!(options(line).is_err(), "{line}");
        }
    }

    #[test]
    fn there_are_eighty_classes() {
        let names: Vec<&str> = COCO.split_whitespace().collect();
        assert_eq!((names.len(), names[3], names[41], names[79]), (80, "motorbike", "cup", "toothbrush"));
    }
}
