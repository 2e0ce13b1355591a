//! The binary form and the text of operands.

use super::{
    Axis, BinaryKind, Elem, Mapping, OperandRescale, ReduceKind, ResizeMode, SegmentKind, View, WeightAddr,
    Window,
};
use crate::field::{DecodeError, Field, Reader, enum_field, record_field};
use crate::form::{Case, Form, Member};

impl Field for WeightAddr {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        u32::get(reader).map(Self)
    }
    fn text(&self) -> String {
        format!("w{:#x}", self.0)
    }
    fn parse(text: &str) -> Result<Self, String> {
        text.strip_prefix("w0x")
            .and_then(|hex| u32::from_str_radix(hex, 16).ok())
            .map(Self)
            .ok_or_else(|| format!("expected an address such as w0x40, found `{text}`"))
    }
    fn form() -> Form {
        Form::Integer { bits: u32::BITS, signed: false, text: "w0x{hexadecimal}" }
    }
}

enum_field!(SegmentKind {
    Weights = 0 "weights", Input = 1 "input", Output = 2 "output", Scratch = 3 "scratch",
});
enum_field!(Elem { I8 = 0 "i8", I16 = 1 "i16", I32 = 2 "i32" });
enum_field!(ResizeMode { Nearest = 0 "nearest", Bilinear = 1 "bilinear" });
enum_field!(Axis { H = 0 "h", W = 1 "w", C = 2 "c" });
enum_field!(ReduceKind { Sum = 0 "sum", Max = 1 "max", Min = 2 "min", Product = 3 "product" });
enum_field!(BinaryKind {
    Add = 0 "add", Sub = 1 "sub", ReverseSub = 2 "reverse_sub", Mul = 3 "mul",
    Maximum = 4 "maximum", Minimum = 5 "minimum",
});

record_field!(Window {
    kernel_h: u32,
    kernel_w: u32,
    stride_h: u32,
    stride_w: u32,
    dilation_h: u32,
    dilation_w: u32,
    pad_top: u32,
    pad_bottom: u32,
    pad_left: u32,
    pad_right: u32,
});
record_field!(OperandRescale { multiplier: i32, shift: u8, input_zp: i32, double_round: bool });
record_field!(Mapping {
    lanes_reduction: u32,
    clusters_reduction: u32,
    clusters_channels: u32,
    clusters_pixels: u32,
});

/// A view is written `s3[row0+rows,col0+cols,ch0+chs]`.
impl Field for View {
    fn put(&self, out: &mut Vec<u8>) {
        for value in [self.tensor, self.row0, self.rows, self.col0, self.cols, self.ch0, self.chs] {
            value.put(out);
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            tensor: Field::get(reader)?,
            row0: Field::get(reader)?,
            rows: Field::get(reader)?,
            col0: Field::get(reader)?,
            cols: Field::get(reader)?,
            ch0: Field::get(reader)?,
            chs: Field::get(reader)?,
        })
    }
    fn text(&self) -> String {
        format!(
            "s{}[{}+{},{}+{},{}+{}]",
            self.tensor, self.row0, self.rows, self.col0, self.cols, self.ch0, self.chs
        )
    }
    fn parse(text: &str) -> Result<Self, String> {
        let parts = || {
            let (stream, rest) = text.strip_prefix('s')?.split_once('[')?;
            let mut axes = rest.strip_suffix(']')?.split(',').map(|axis| {
                let (from, n) = axis.split_once('+')?;
                Some((from.parse().ok()?, n.parse().ok()?))
            });
            let (row0, rows) = axes.next()??;
            let (col0, cols) = axes.next()??;
            let (ch0, chs) = axes.next()??;
            let view = Self { tensor: stream.parse().ok()?, row0, rows, col0, cols, ch0, chs };
            axes.next().is_none().then_some(view)
        };
        parts().ok_or_else(|| format!("expected a view such as s0[0+4,0+4,0+16], found `{text}`"))
    }
    fn form() -> Form {
        let names = ["tensor", "row0", "rows", "col0", "cols", "ch0", "chs"];
        Form::Record {
            fields: names.map(|name| Member { name, form: u32::form() }).into(),
            text: "s{tensor}[{row0}+{rows},{col0}+{cols},{ch0}+{chs}]".to_owned(),
        }
    }
}
