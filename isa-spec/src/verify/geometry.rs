//! Shapes and types of a stage: what each head makes of its inputs, and what each tail takes and gives.

use super::{Check, Rule};
use crate::demand::MAX_WINDOW;
use crate::inst::{
    AvgPool2d, Axis, Conv2d, Elem, Head, MatMul, Permute, ReduceKind, Resize, ResizeMode, Tail,
    TransposeConv2d, View, Window,
};
use crate::program::StageCode;
use crate::timing::winograd_eligible;

/// Type of the accumulator row: that of a stream, or the 48 bits in which products of `i16` are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acc {
    I8,
    I16,
    I32,
    I48,
}

impl From<Elem> for Acc {
    fn from(elem: Elem) -> Self {
        match elem {
            Elem::I8 => Self::I8,
            Elem::I16 => Self::I16,
            Elem::I32 => Self::I32,
        }
    }
}

/// `[rows, cols, chs]`, wide.
type Shape = [i128; 3];

fn shape(view: &View) -> Shape {
    [i128::from(view.rows), i128::from(view.cols), i128::from(view.chs)]
}

/// Output extent of a window: `floor((in + pads - dilation * (kernel - 1) - 1) / stride) + 1`.
fn window_extent(extent: u32, pads: (u32, u32), kernel: u32, stride: u32, dilation: u32) -> i128 {
    let room = i128::from(extent) + i128::from(pads.0) + i128::from(pads.1)
        - i128::from(dilation) * (i128::from(kernel) - 1)
        - 1;
    if room < 0 { 0 } else { room / i128::from(stride.max(1)) + 1 }
}

/// What a window makes of a view, in `chs` channels.
fn windowed(src: &View, w: &Window, chs: i128) -> Shape {
    [
        window_extent(src.rows, (w.pad_top, w.pad_bottom), w.kernel_h, w.stride_h, w.dilation_h),
        window_extent(src.cols, (w.pad_left, w.pad_right), w.kernel_w, w.stride_w, w.dilation_w),
        chs,
    ]
}

impl Check<'_> {
    fn window(&mut self, w: &Window, pooling: bool) -> bool {
        let fields = [w.kernel_h, w.kernel_w, w.stride_h, w.stride_w, w.dilation_h, w.dilation_w];
        let ok = fields.iter().all(|&f| (1..=MAX_WINDOW).contains(&f))
            && [w.pad_top, w.pad_bottom, w.pad_left, w.pad_right].iter().all(|&p| p <= MAX_WINDOW);
        let ok =
            self.need(ok, Rule::Shape, || format!("the window has an extent of zero or beyond 2^20: {w:?}"));
        let covered = !pooling
            || (w.pad_top < w.kernel_h
                && w.pad_bottom < w.kernel_h
                && w.pad_left < w.kernel_w
                && w.pad_right < w.kernel_w
                && w.dilation_h == 1
                && w.dilation_w == 1);
        ok & self.need(covered, Rule::Shape, || {
            "a pooling window must not be dilated or padded by its extent or more".to_owned()
        })
    }

    /// Checks the element type of an input and gives it back.
    fn input(&mut self, what: &str, view: &View, allowed: &[Elem]) -> Elem {
        let elem = self.elem(view);
        self.need(allowed.contains(&elem), Rule::Shape, || {
            let allowed: Vec<_> = allowed.iter().map(|e| format!("{e:?}")).collect();
            format!("{what} has elements {elem:?}, expected {}", allowed.join(" or "))
        });
        elem
    }

    /// Zero points are `i8`; what is `i16` has none.
    fn zero_point(&mut self, what: &str, zp: i32, elem: Elem) {
        let (least, most) = if elem == Elem::I16 { (0, 0) } else { (-128, 127) };
        self.need((least..=most).contains(&zp), Rule::Shape, || {
            format!("{what} is {zp}, expected {least} to {most}")
        });
    }

    /// Checks input and zero points of a convolution and gives the accumulator's type.
    fn convolution(&mut self, head: &Head, src: &View, input_zp: i32, weight_zp: i32) -> Acc {
        let wide =
            matches!(head, Head::Conv2dI16(_) | Head::DepthwiseConv2dI16(_) | Head::TransposeConv2dI16(_));
        let elem = if wide { Elem::I16 } else { Elem::I8 };
        self.input("the input", src, &[elem]);
        self.zero_point("the input zero point", input_zp, elem);
        self.zero_point("the weight zero point", weight_zp, elem);
        if wide { Acc::I48 } else { Acc::I32 }
    }

    /// Shape and type that the head makes, if its own parameters are sane.
    fn head(&mut self, code: &StageCode) -> Option<(Shape, Acc)> {
        match &code.head {
            Head::Load(h) => {
                let (from, to) = (shape(&h.src), shape(&code.out));
                let broadcast = from.iter().zip(&to).all(|(f, t)| f == t || *f == 1);
                self.need(broadcast, Rule::Shape, || format!("{from:?} does not broadcast to {to:?}"));
                Some((to, self.elem(&h.src).into()))
            }
            Head::Conv2d(h) | Head::Conv2dI16(h) => self.conv2d(code, h),
            Head::DepthwiseConv2d(h) | Head::DepthwiseConv2dI16(h) => {
                let acc = self.convolution(&code.head, &h.src, h.input_zp, h.weight_zp);
                let chs = i128::from(h.src.chs) * i128::from(h.multiplier);
                self.window(&h.window, false).then(|| (windowed(&h.src, &h.window, chs), acc))
            }
            Head::TransposeConv2d(h) | Head::TransposeConv2dI16(h) => self.transpose_conv2d(code, h),
            Head::MatMul(h) => self.matmul(h, Elem::I8, Acc::I32),
            Head::MatMulI16(h) => self.matmul(h, Elem::I16, Acc::I48),
            Head::MaxPool2d(h) => {
                let acc = self.elem(&h.src).into();
                let chs = i128::from(h.src.chs);
                self.window(&h.window, true).then(|| (windowed(&h.src, &h.window, chs), acc))
            }
            Head::AvgPool2d(h) => self.avg_pool2d(h),
            Head::Resize(h) => self.resize(code, h),
            Head::Pad(h) => {
                let (from, to) = (shape(&h.src), shape(&code.out));
                let before = [h.top, h.left, h.front].map(i128::from);
                let fits = (0..3).all(|axis| before[axis] + from[axis] <= to[axis]);
                self.need(fits, Rule::Shape, || format!("{from:?} padded by {before:?} is beyond {to:?}"));
                Some((to, self.elem(&h.src).into()))
            }
            Head::Permute(h) => self.permute(code, h),
            Head::Reduce(h) => {
                let mut made = shape(&h.src);
                match h.axis {
                    Axis::H => made[0] = 1,
                    Axis::W => made[1] = 1,
                    Axis::C => made[2] = 1,
                }
                let wide = matches!(h.kind, ReduceKind::Sum | ReduceKind::Product);
                Some((made, if wide { Acc::I32 } else { self.elem(&h.src).into() }))
            }
            Head::Argmax(h) => Some(([i128::from(h.src.rows), i128::from(h.src.cols), 1], Acc::I32)),
            Head::DmaIn(_) => Some((shape(&code.out), self.elem(&code.out).into())),
            Head::DmaOut(_) => None,
        }
    }

    /// What a convolution makes.
    fn conv2d(&mut self, code: &StageCode, h: &Conv2d) -> Option<(Shape, Acc)> {
        let acc = self.convolution(&code.head, &h.src, h.input_zp, h.weight_zp);
        let (inputs, outputs, groups) = (h.src.chs, code.out.chs, h.groups);
        let divides = groups > 0 && inputs.is_multiple_of(groups) && outputs.is_multiple_of(groups);
        if !self.need(divides, Rule::Shape, || {
            format!("{groups} groups do not divide {inputs} input and {outputs} output channels")
        }) || !self.window(&h.window, false)
        {
            return None;
        }
        let winograd = !h.winograd
            || (acc == Acc::I32
                && self.target.array.winograd
                && winograd_eligible(&h.window, groups, inputs));
        self.need(winograd, Rule::Shape, || {
            "Winograd needs a target that has it and an ungrouped 3x3 convolution of i8 of stride and \
                dilation 1"
                .to_owned()
        });
        Some((windowed(&h.src, &h.window, outputs.into()), acc))
    }

    /// What a transposed convolution makes.
    fn transpose_conv2d(&mut self, code: &StageCode, h: &TransposeConv2d) -> Option<(Shape, Acc)> {
        let acc = self.convolution(&code.head, &h.src, h.input_zp, h.weight_zp);
        let fields = [h.kernel_h, h.kernel_w, h.stride_h, h.stride_w];
        let sane = fields.iter().all(|&f| (1..=MAX_WINDOW).contains(&f))
            && i64::from(h.out_pad_top) > -i64::from(h.kernel_h)
            && i64::from(h.out_pad_left) > -i64::from(h.kernel_w);
        if !self.need(sane, Rule::Shape, || "kernel, stride or output padding out of range".to_owned()) {
            return None;
        }
        // Bottom and right padding are what the output view says; they must be greater than minus the kernel.
        let natural = |n: u32, stride: u32, pad: i32, kernel: u32| {
            i128::from(n - 1) * i128::from(stride) + i128::from(pad) + i128::from(kernel)
        };
        let rows = natural(h.src.rows, h.stride_h, h.out_pad_top, h.kernel_h);
        let cols = natural(h.src.cols, h.stride_w, h.out_pad_left, h.kernel_w);
        let made = shape(&code.out);
        let enough = made[0] > rows - i128::from(h.kernel_h) && made[1] > cols - i128::from(h.kernel_w);
        self.need(enough, Rule::Shape, || {
            format!(
                "the output of a transposed convolution is cropped by a whole kernel: natural size \
                    [{rows}, {cols}]"
            )
        });
        Some((made, acc))
    }

    /// What a product of matrices of `elem` makes, summed in `acc`.
    fn matmul(&mut self, h: &MatMul, elem: Elem, acc: Acc) -> Option<(Shape, Acc)> {
        self.input("a", &h.a, &[elem]);
        self.input("b", &h.b, &[elem]);
        self.zero_point("the zero point of a", h.a_zp, elem);
        self.zero_point("the zero point of b", h.b_zp, elem);
        let fits = h.batches > 0
            && h.a.rows.is_multiple_of(h.batches)
            && h.b.rows.is_multiple_of(h.batches)
            && h.a.chs == h.b.rows / h.batches
            && h.a.cols == 1
            && h.b.cols == 1;
        self.need(fits, Rule::Shape, || "the operands of the matrix product do not fit".to_owned())
            .then(|| ([i128::from(h.a.rows), 1, i128::from(h.b.chs)], acc))
    }

    /// What an average pool makes.
    fn avg_pool2d(&mut self, h: &AvgPool2d) -> Option<(Shape, Acc)> {
        let elem = self.input("the input", &h.src, &[Elem::I8, Elem::I16]);
        self.zero_point("the input zero point", h.input_zp, elem);
        self.zero_point("the output zero point", h.output_zp, elem);
        if !self.window(&h.window, true) {
            return None;
        }
        let taps = u64::from(h.window.kernel_h) * u64::from(h.window.kernel_w);
        self.need(taps <= 1 << 20, Rule::Limit, || format!("a window of {taps} taps"));
        Some((windowed(&h.src, &h.window, h.src.chs.into()), elem.into()))
    }

    /// What a resize makes.
    fn resize(&mut self, code: &StageCode, h: &Resize) -> Option<(Shape, Acc)> {
        let nearest = h.mode == ResizeMode::Nearest;
        let elems: &[Elem] = if nearest { &[Elem::I8, Elem::I16, Elem::I32] } else { &[Elem::I8, Elem::I16] };
        let elem = self.input("the input", &h.src, elems);
        let scales = [h.scale_y_n, h.scale_y_d, h.scale_x_n, h.scale_x_d];
        let sane = scales.iter().all(|s| (1..=2048).contains(s))
            && [h.offset_y, h.offset_x].iter().all(|o| (-(1 << 20)..=1 << 20).contains(o));
        if !self.need(sane, Rule::Shape, || "scale or offset of the resize out of range".to_owned()) {
            return None;
        }
        let acc = match (h.mode, elem) {
            (ResizeMode::Nearest, elem) => elem.into(),
            (ResizeMode::Bilinear, Elem::I16) => Acc::I48,
            (ResizeMode::Bilinear, _) => Acc::I32,
        };
        Some(([code.out.rows, code.out.cols, h.src.chs].map(i128::from), acc))
    }

    /// What a permutation makes.
    fn permute(&mut self, code: &StageCode, h: &Permute) -> Option<(Shape, Acc)> {
        if !self.need(h.rearranges(&code.out), Rule::Shape, || {
            format!("dims {:?} and perm {:?} do not rearrange the input to the output", h.dims, h.perm)
        }) {
            return None;
        }
        Some((shape(&code.out), self.elem(&h.src).into()))
    }

    /// Checks a stage whose views are in bounds.
    pub(super) fn geometry(&mut self, code: &StageCode) {
        let moves = matches!(code.head, Head::DmaIn(_) | Head::DmaOut(_));
        if moves {
            self.need(code.tail.is_empty(), Rule::Shape, || "a DMA stage has no tails".to_owned());
        }
        let Some((made, mut acc)) = self.head(code) else { return };
        let out = shape(&code.out);
        self.need(made == out, Rule::Shape, || {
            format!("the head makes {made:?}, the output view is {out:?}")
        });
        for tail in &code.tail {
            self.need(acc != Acc::I48 || matches!(tail, Tail::Rescale16(_)), Rule::Shape, || {
                "an accumulator of I48 must be rescaled with 16-bit multipliers".to_owned()
            });
            match tail {
                Tail::Rescale(t) => acc = t.to.into(),
                Tail::Rescale16(t) => acc = t.to.into(),
                Tail::RescaleBySign(t) => {
                    self.need(acc == Acc::I32, Rule::Shape, || {
                        format!("rescale_by_sign of {acc:?}, not of I32")
                    });
                    acc = t.to.into();
                }
                Tail::Clamp(t) => {
                    self.need(t.min <= t.max, Rule::Shape, || format!("clamp to {}..{}", t.min, t.max));
                }
                Tail::Table(_) => {
                    self.need(acc == Acc::I8, Rule::Shape, || format!("a table look-up of {acc:?}"));
                }
                Tail::TableI16(_) => {
                    self.need(acc == Acc::I16, Rule::Shape, || format!("a 16-bit table look-up of {acc:?}"));
                    acc = Acc::I32;
                }
                Tail::Binary(t) => {
                    let from = shape(&t.src);
                    let broadcast = from.iter().zip(&out).all(|(f, t)| f == t || *f == 1);
                    self.need(broadcast, Rule::Shape, || {
                        format!("operand {from:?} does not broadcast to {out:?}")
                    });
                    let operand = if t.rescale.is_some() { Acc::I32 } else { self.elem(&t.src).into() };
                    self.need(operand == acc, Rule::Shape, || {
                        format!("operand of {operand:?} with an accumulator of {acc:?}")
                    });
                    let sane = t.rescale.is_none_or(|r| r.multiplier >= 0 && (2..=62).contains(&r.shift));
                    self.need(sane && t.shift < 64, Rule::Shape, || "a scale out of range".to_owned());
                    if t.kind == crate::inst::BinaryKind::Mul {
                        acc = Acc::I32;
                    }
                }
                Tail::BinaryConst(t) => {
                    let operand = Acc::from(t.elem);
                    self.need(operand == acc && t.shift < 64, Rule::Shape, || {
                        format!("operand of {operand:?} with an accumulator of {acc:?}")
                    });
                    if t.kind == crate::inst::BinaryKind::Mul {
                        acc = Acc::I32;
                    }
                }
            }
        }
        let stored = Acc::from(self.elem(&code.out));
        self.need(acc == stored, Rule::Shape, || {
            format!("the stage makes {acc:?}, its output stream holds {stored:?}")
        });
    }
}
