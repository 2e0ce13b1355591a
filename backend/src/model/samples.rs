//! Stage graphs of published networks, built by hand, for tests of the planner: shapes only, no weights.

use cranelift_entity::packed_option::PackedOption;
use cranelift_entity::{EntityRef as _, SecondaryMap};
use strata_ir::OpId;
use strata_isa_spec::inst::{
    Axis, Binary, BinaryKind, Conv2d, DepthwiseConv2d, Elem, MaxPool2d, Reduce, ReduceKind, Resize,
    ResizeMode, Window,
};
use strata_isa_spec::{Head, Tail};

use crate::model::{
    Buffer, BufferId, BufferRole, BufferView, StageGraph, StageNode, StageTemplate, TableId, TemplateHead,
    TemplateTail,
};

/// Output channels of a convolution whose tables are split over several stages, as `split-channels` does.
const CHUNK_BYTES: u32 = 2 << 20;

/// A graph under construction.
#[derive(Debug, Default)]
pub struct Net {
    graph: StageGraph,
    /// The buffer that a buffer is a part of, and its first channel there.
    part_of: SecondaryMap<BufferId, Option<(BufferId, u32)>>,
}

impl Net {
    fn buffer(&mut self, name: String, [rows, cols, chs]: [u32; 3], role: BufferRole) -> BufferView {
        let id = self.graph.buffers.push(Buffer { name, elem: Elem::I8, rows, cols, chs, role });
        BufferView::whole(id, rows, cols, chs)
    }

    /// An argument.
    pub fn input(&mut self, shape: [u32; 3]) -> BufferView {
        self.buffer("input".to_owned(), shape, BufferRole::Input(0))
    }

    fn stage(
        &mut self,
        name: String,
        head: TemplateHead,
        tail: Vec<TemplateTail>,
        out: BufferView,
        table_bytes: Vec<u32>,
    ) -> BufferView {
        let code = StageTemplate { head, tail, out };
        self.graph.stages.push(StageNode {
            name,
            op: OpId::new(0),
            code,
            table_bytes: table_bytes.into_iter().collect(),
            table_set: None,
            by_columns: true,
        });
        out
    }

    /// A convolution, padded so that it gives a pixel for each `stride` in either direction.
    pub fn conv(&mut self, src: BufferView, chs: u32, kernel: u32, stride: u32) -> BufferView {
        self.conv_with(src, chs, kernel, stride, None)
    }

    /// A convolution, the shortcut added to it.
    pub fn conv_add(&mut self, src: BufferView, chs: u32, kernel: u32, skip: BufferView) -> BufferView {
        self.conv_with(src, chs, kernel, 1, Some(skip))
    }

    /// A convolution, a shortcut added to it if there is one.
    pub fn conv_with(
        &mut self,
        src: BufferView,
        chs: u32,
        kernel: u32,
        stride: u32,
        skip: Option<BufferView>,
    ) -> BufferView {
        let (rows, cols) = (src.rows.div_ceil(stride), src.cols.div_ceil(stride));
        let name = format!("conv{}", self.graph.stages.len());
        let out = self.buffer(name.clone(), [rows, cols, chs], BufferRole::Internal);
        let channel_bytes = kernel * kernel * src.chs + 4 + 4 + 1;
        let parts = (channel_bytes * chs).div_ceil(CHUNK_BYTES);
        let part_chs = chs.div_ceil(parts).next_multiple_of(64).min(chs);
        let mut ch0 = 0;
        while ch0 < chs {
            let n = part_chs.min(chs - ch0);
            let head = Head::Conv2d(Conv2d {
                src,
                window: window(kernel, stride),
                groups: 1,
                input_zp: 0,
                weight_zp: 0,
                weights: TableId::from_u32(0),
                bias: TableId::from_u32(1),
                winograd: false,
            });
            let tail = skip.map(|skip| {
                let src = BufferView { ch0: skip.ch0 + ch0, chs: n, ..skip };
                Tail::Binary(Binary { kind: BinaryKind::Add, src, rescale: None, shift: 0 })
            });
            let view = BufferView { ch0, chs: n, ..out };
            let tables = vec![kernel * kernel * src.chs * n, 4 * n, 4 * n, n];
            self.stage(format!("{name}.{ch0}"), head, tail.into_iter().collect(), view, tables);
            ch0 += n;
        }
        out
    }

    /// A depthwise convolution of 3x3.
    pub fn depthwise(&mut self, src: BufferView, stride: u32) -> BufferView {
        let (rows, cols) = (src.rows.div_ceil(stride), src.cols.div_ceil(stride));
        let name = format!("depthwise{}", self.graph.stages.len());
        let out = self.buffer(name.clone(), [rows, cols, src.chs], BufferRole::Internal);
        let head = Head::DepthwiseConv2d(DepthwiseConv2d {
            src,
            window: window(3, stride),
            multiplier: 1,
            input_zp: 0,
            weight_zp: 0,
            weights: TableId::from_u32(0),
            bias: TableId::from_u32(1),
        });
        self.stage(name, head, vec![], out, vec![9 * src.chs, 4 * src.chs, 4 * src.chs, src.chs])
    }

    /// A max pool.
    pub fn max_pool(&mut self, src: BufferView, kernel: u32, stride: u32) -> BufferView {
        let (rows, cols) = (src.rows.div_ceil(stride), src.cols.div_ceil(stride));
        let name = format!("pool{}", self.graph.stages.len());
        let out = self.buffer(name.clone(), [rows, cols, src.chs], BufferRole::Internal);
        let window = if kernel == stride {
            Window { pad_top: 0, pad_left: 0, ..window(kernel, stride) }
        } else {
            window(kernel, stride)
        };
        self.stage(name, Head::MaxPool2d(MaxPool2d { src, window }), vec![], out, vec![])
    }

    /// The mean of all pixels.
    pub fn mean(&mut self, src: BufferView) -> BufferView {
        let name = format!("mean{}", self.graph.stages.len());
        let rows = self.buffer(name.clone(), [1, src.cols, src.chs], BufferRole::Internal);
        let head = |src, axis| Head::Reduce(Reduce { src, axis, kind: ReduceKind::Sum });
        let rows = self.stage(name.clone(), head(src, Axis::H), vec![], rows, vec![]);
        let out = self.buffer(name.clone(), [1, 1, src.chs], BufferRole::Internal);
        self.stage(name, head(rows, Axis::W), vec![], out, vec![])
    }

    /// A nearest upsample by two.
    pub fn upsample(&mut self, src: BufferView) -> BufferView {
        let name = format!("upsample{}", self.graph.stages.len());
        let out = self.buffer(name.clone(), [src.rows * 2, src.cols * 2, src.chs], BufferRole::Internal);
        let head = Head::Resize(Resize {
            src,
            mode: ResizeMode::Nearest,
            scale_y_n: 4,
            scale_y_d: 2,
            scale_x_n: 4,
            scale_x_d: 2,
            offset_y: -1,
            offset_x: -1,
        });
        self.stage(name, head, vec![], out, vec![])
    }

    /// Two tensors side by side in channels: they become parts of one buffer.
    pub fn concat(&mut self, a: BufferView, b: BufferView) -> BufferView {
        let out = self.buffer("concat".to_owned(), [a.rows, a.cols, a.chs + b.chs], BufferRole::Internal);
        self.part_of[a.tensor] = Some((out.tensor, 0));
        self.part_of[b.tensor] = Some((out.tensor, a.chs));
        out
    }

    /// The levels of a U-Net and the one below them, of twice the channels.
    fn levels(&mut self, input: BufferView, channels: &[u32]) -> BufferView {
        let mut x = input;
        let mut skips = Vec::new();
        for &chs in channels {
            x = self.conv(x, chs, 3, 1);
            x = self.conv(x, chs, 3, 1);
            skips.push(x);
            x = self.max_pool(x, 2, 2);
        }
        let chs = 2 * x.chs;
        x = self.conv(x, chs, 3, 1);
        x = self.conv(x, chs, 3, 1);
        for skip in skips.into_iter().rev() {
            let up = self.upsample(x);
            let up = self.conv(up, skip.chs, 1, 1);
            x = self.concat(skip, up);
            x = self.conv(x, skip.chs, 3, 1);
            x = self.conv(x, skip.chs, 3, 1);
        }
        x
    }

    /// Makes a tensor a result.
    pub fn output(&mut self, view: BufferView, index: u32) {
        self.graph.buffers[view.tensor].role = BufferRole::Output(index);
    }

    /// The graph, with parts as views of what they are part of.
    pub fn finish(self) -> StageGraph {
        let Self { graph, part_of } = self;
        let mut number: SecondaryMap<BufferId, PackedOption<BufferId>> = SecondaryMap::new();
        let mut finished = StageGraph::default();
        for (id, buffer) in &graph.buffers {
            if part_of[id].is_none() {
                number[id] = finished.buffers.push(buffer.clone()).into();
            }
        }
        let resolve = |view: &BufferView| {
            let mut view = *view;
            while let Some((whole, ch0)) = part_of[view.tensor] {
                view = BufferView { ch0: view.ch0 + ch0, ..view.of(whole) };
            }
            view.of(number[view.tensor].expect("what is no part has a number"))
        };
        for stage in graph.stages.values() {
            let code = stage.code.map_views(resolve);
            finished.stages.push(StageNode { code, ..stage.clone() });
        }
        finished
    }
}

fn window(kernel: u32, stride: u32) -> Window {
    let pad = (kernel - 1) / 2;
    Window {
        kernel_h: kernel,
        kernel_w: kernel,
        stride_h: stride,
        stride_w: stride,
        dilation_h: 1,
        dilation_w: 1,
        pad_top: pad,
        pad_bottom: pad,
        pad_left: pad,
        pad_right: pad,
    }
}

/// YOLOv3 with 80 classes.
pub fn yolov3(rows: u32, cols: u32) -> StageGraph {
    let mut net = Net::default();
    let input = net.input([rows, cols, 3]);
    let mut x = net.conv(input, 32, 3, 1);
    let mut routes = Vec::new();
    for (chs, blocks) in [(64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)] {
        x = net.conv(x, chs, 3, 2);
        for _ in 0..blocks {
            let half = net.conv(x, chs / 2, 1, 1);
            x = net.conv_add(half, chs, 3, x);
        }
        routes.push(x);
    }
    for (scale, chs) in [512, 256, 128].into_iter().enumerate() {
        for _ in 0..2 {
            x = net.conv(x, chs, 1, 1);
            x = net.conv(x, chs * 2, 3, 1);
        }
        x = net.conv(x, chs, 1, 1);
        let head = net.conv(x, chs * 2, 3, 1);
        let detect = net.conv(head, 255, 1, 1);
        net.output(detect, scale as u32);
        if scale < 2 {
            let up = net.conv(x, chs / 2, 1, 1);
            let up = net.upsample(up);
            x = net.concat(up, routes[3 - scale]);
        }
    }
    net.finish()
}

/// ResNet-50.
pub fn resnet50(rows: u32, cols: u32) -> StageGraph {
    let mut net = Net::default();
    let input = net.input([rows, cols, 3]);
    let x = net.conv(input, 64, 7, 2);
    let mut x = net.max_pool(x, 3, 2);
    for (chs, blocks, first_stride) in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)] {
        for block in 0..blocks {
            let stride = if block == 0 { first_stride } else { 1 };
            let skip = if block == 0 { net.conv(x, chs * 4, 1, stride) } else { x };
            let a = net.conv(x, chs, 1, 1);
            let b = net.conv(a, chs, 3, stride);
            x = net.conv_add(b, chs * 4, 1, skip);
        }
    }
    let x = net.mean(x);
    let x = net.conv(x, 1000, 1, 1);
    net.output(x, 0);
    net.finish()
}

/// VGG-16, its fully connected layers as convolutions.
pub fn vgg16(rows: u32, cols: u32) -> StageGraph {
    let mut net = Net::default();
    let mut x = net.input([rows, cols, 3]);
    for (chs, convs) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)] {
        for _ in 0..convs {
            x = net.conv(x, chs, 3, 1);
        }
        x = net.max_pool(x, 2, 2);
    }
    net.output(x, 0);
    net.finish()
}

/// MobileNetV2.
pub fn mobilenetv2(rows: u32, cols: u32) -> StageGraph {
    let mut net = Net::default();
    let input = net.input([rows, cols, 3]);
    let x = net.conv(input, 32, 3, 2);
    let x = net.depthwise(x, 1);
    let mut x = net.conv(x, 16, 1, 1);
    for (chs, blocks, first_stride) in
        [(24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)]
    {
        for block in 0..blocks {
            let stride = if block == 0 { first_stride } else { 1 };
            let wide = net.conv(x, x.chs * 6, 1, 1);
            let deep = net.depthwise(wide, stride);
            x = if block == 0 { net.conv(deep, chs, 1, 1) } else { net.conv_add(deep, chs, 1, x) };
        }
    }
    let x = net.conv(x, 1280, 1, 1);
    let x = net.mean(x);
    let x = net.conv(x, 1000, 1, 1);
    net.output(x, 0);
    net.finish()
}

/// A U-Net of four levels.
pub fn unet(rows: u32, cols: u32) -> StageGraph {
    let mut net = Net::default();
    let input = net.input([rows, cols, 3]);
    let x = net.levels(input, &[64, 128, 256, 512]);
    let x = net.conv(x, 2, 1, 1);
    net.output(x, 0);
    net.finish()
}

/// Two narrow U-Nets, of which the second refines what the first makes, beside the input.
pub fn two_unets(rows: u32, cols: u32) -> StageGraph {
    let mut net = Net::default();
    let input = net.input([rows, cols, 3]);
    let x = net.conv(input, 8, 3, 1);
    let coarse = net.levels(x, &[8, 16, 32]);
    let again = net.concat(coarse, x);
    let x = net.levels(again, &[16, 24, 32]);
    let x = net.conv(x, 2, 1, 1);
    net.output(x, 0);
    net.finish()
}

/// A single-shot detector: a narrow backbone of depthwise and pointwise convolutions, of whose last four
/// scales each has a head for classes and one for boxes.
pub fn single_shot(rows: u32, cols: u32) -> StageGraph {
    let mut net = Net::default();
    let input = net.input([rows, cols, 3]);
    let mut x = net.conv(input, 16, 3, 2);
    let mut scales = Vec::new();
    for (chs, blocks) in [(32, 2), (64, 3), (128, 3), (256, 2), (256, 1)] {
        for block in 0..blocks {
            let deep = net.depthwise(x, if block == 0 { 2 } else { 1 });
            x = if block == 0 { net.conv(deep, chs, 1, 1) } else { net.conv_add(deep, chs, 1, x) };
        }
        scales.push(x);
    }
    for (scale, x) in scales.into_iter().skip(1).enumerate() {
        for (head, chs) in [6, 12].into_iter().enumerate() {
            let deep = net.depthwise(x, 1);
            let out = net.conv(deep, chs, 1, 1);
            net.output(out, (2 * scale + head) as u32);
        }
    }
    net.finish()
}
