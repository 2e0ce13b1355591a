//! Layers of integers, each a function of TOSA by itself, and the programs of the machine that run them.

use strata::Target;
use strata_backend::emit::{self, Lowered};
use strata_ir::pass::{self, DriverOptions, PassContext};
use strata_ir::text;

/// The passes from integers to a schedule.
const PASSES: &str = "form-stages,split-channels,fuse-layers,schedule";

/// The attributes of a rescale from 32 bits or to them.
const RESCALE: &str = "{input_unsigned = false, output_unsigned = false, per_channel = false, \
    rounding_mode = #tosa.rounding_mode<SINGLE_ROUND>, scale32 = true}";

/// Rows, columns and channels.
pub(crate) type Extents = [usize; 3];

/// A square window of a convolution or a pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Rows and columns.
    pub(crate) kernel: usize,
    /// Rows and columns from one place to the next.
    pub(crate) stride: usize,
}

impl Window {
    /// Rows and columns of padding before the image, and after it, with which an image of an even size that
    /// the stride divides has as many places as its size divided by the stride.
    fn padding(self) -> (usize, usize) {
        let both = self.kernel - self.stride.min(self.kernel);
        (both / 2, both - both / 2)
    }

    fn attributes(self) -> String {
        let (before, after) = self.padding();
        let stride = self.stride;
        format!(
            "pad = array<i64: {before}, {after}, {before}, {after}>, stride = array<i64: {stride}, {stride}>"
        )
    }
}

/// A program of the machine for one layer, what it runs on, and inputs.
#[derive(Debug)]
pub(crate) struct LayerProgram {
    /// The program and its weights.
    pub(crate) lowered: Lowered,
    /// The machine.
    pub(crate) target: Target,
    /// The content of each input segment.
    pub(crate) inputs: Vec<Vec<u8>>,
}

impl LayerProgram {
    /// Multiply-accumulates of an inference.
    pub(crate) fn macs(&self) -> u64 {
        let stages = self.lowered.program.phases.iter().flat_map(|phase| &phase.stages);
        stages.map(|stage| stage.code.macs_direct()).sum()
    }

    /// Bytes of all inputs.
    pub(crate) fn input_bytes(&self) -> u64 {
        self.inputs.iter().map(|input| input.len() as u64).sum()
    }
}

/// A function of TOSA that is being written.
#[derive(Debug, Default)]
struct Function {
    body: String,
    arguments: Vec<String>,
    n_constants: usize,
    drawn: u32,
}

impl Function {
    /// A new argument, and its name.
    fn argument(&mut self, ty: &str) -> String {
        let name = format!("%x{}", self.arguments.len());
        self.arguments.push(format!("{name}: {ty}"));
        name
    }

    fn line(&mut self, line: &str) {
        self.body += &format!("    {line}\n");
    }

    /// A constant, given as MLIR writes its values.
    fn constant(&mut self, values: &str, ty: &str) -> String {
        let name = format!("%c{}", self.n_constants);
        self.n_constants += 1;
        self.line(&format!("{name} = \"tosa.const\"() <{{values = dense<{values}> : {ty}}}> : () -> {ty}"));
        name
    }

    /// A constant of drawn bytes.
    fn drawn(&mut self, shape: &[usize]) -> String {
        let digits: String =
            drawn_bytes(&mut self.drawn, shape.iter().product()).iter().map(|b| format!("{b:02X}")).collect();
        self.constant(&format!("\"0x{digits}\""), &tensor(shape, "i8"))
    }

    /// A rescale by `2^30 / 2^shift`.
    fn rescale(&mut self, result: &str, value: &str, (from, to): (&str, &str), shift: u32, shape: &[usize]) {
        let multiplier = self.constant("1073741824", "tensor<1xi32>");
        let shift = self.constant(&shift.to_string(), "tensor<1xi8>");
        let zero_in = self.constant("0", &tensor(&[1], from));
        let zero_out = self.constant("0", &tensor(&[1], to));
        self.line(&format!(
            "{result} = \"tosa.rescale\"({value}, {multiplier}, {shift}, {zero_in}, {zero_out}) \
             <{RESCALE}> : ({}, tensor<1xi32>, tensor<1xi8>, tensor<1x{from}>, tensor<1x{to}>) -> {}",
            tensor(shape, from),
            tensor(shape, to)
        ));
    }

    /// A convolution of any kind with drawn weights, its rescale, and a clamp at 0.
    fn convolution(
        mut self,
        op: &str,
        attributes: &str,
        source: Extents,
        weights: &[usize],
        out: Extents,
    ) -> String {
        let (source, shape) = (image(source), image(out));
        let x = self.argument(&tensor(&source, "i8"));
        let w = self.drawn(weights);
        let bias = tensor(&[out[2]], "i32");
        let b = self.constant("100", &bias);
        let zero_x = self.constant("3", "tensor<1xi8>");
        let zero_w = self.constant("0", "tensor<1xi8>");
        let (types, sums) = (tensor(&source, "i8"), tensor(&shape, "i32"));
        self.line(&format!(
            "%sums = \"tosa.{op}\"({x}, {w}, {b}, {zero_x}, {zero_w}) <{{acc_type = i32, {attributes}}}> : \
             ({types}, {}, {bias}, tensor<1xi8>, tensor<1xi8>) -> {sums}",
            tensor(weights, "i8")
        ));
        self.rescale("%bytes", "%sums", ("i32", "i8"), 44, &shape);
        let ty = tensor(&shape, "i8");
        self.line(&format!(
            "%out = \"tosa.clamp\"(%bytes) <{{max_val = 127 : i8, min_val = 0 : i8}}> : ({ty}) -> {ty}"
        ));
        self.returning("%out", &ty)
    }

    /// The whole text.
    fn returning(self, value: &str, ty: &str) -> String {
        let Self { body, arguments, .. } = self;
        let arguments = arguments.join(", ");
        format!(
            "module {{\n  func.func @main({arguments}) -> ({ty}) {{\n{body}    return {value} : {ty}\n  \
             }}\n}}\n"
        )
    }
}

/// A convolution with padding.
pub(crate) fn conv(source: Extents, window: Window, channels: usize) -> LayerProgram {
    let Window { kernel, stride } = window;
    let attributes = format!("dilation = array<i64: 1, 1>, {}", window.attributes());
    let weights = [channels, kernel, kernel, source[2]];
    let out = [source[0] / stride, source[1] / stride, channels];
    compiled(&Function::default().convolution("conv2d", &attributes, source, &weights, out))
}

/// A convolution of each channel by itself, with padding.
pub(crate) fn depthwise(source: Extents, window: Window) -> LayerProgram {
    let Window { kernel, stride } = window;
    let attributes = format!("dilation = array<i64: 1, 1>, {}", window.attributes());
    let out = [source[0] / stride, source[1] / stride, source[2]];
    let weights = [kernel, kernel, source[2], 1];
    compiled(&Function::default().convolution("depthwise_conv2d", &attributes, source, &weights, out))
}

/// A transposed convolution whose windows do not overlap.
pub(crate) fn transposed(source: Extents, stride: usize, channels: usize) -> LayerProgram {
    let attributes = format!("out_pad = array<i64: 0, 0, 0, 0>, stride = array<i64: {stride}, {stride}>");
    let weights = [channels, stride, stride, source[2]];
    let out = [source[0] * stride, source[1] * stride, channels];
    compiled(&Function::default().convolution("transpose_conv2d", &attributes, source, &weights, out))
}

/// The greatest of each window.
pub(crate) fn max_pool(source: Extents, window: Window) -> LayerProgram {
    let Window { kernel, stride } = window;
    let mut function = Function::default();
    let from = tensor(&image(source), "i8");
    let to = tensor(&image([source[0] / stride, source[1] / stride, source[2]]), "i8");
    let x = function.argument(&from);
    let attributes = format!("kernel = array<i64: {kernel}, {kernel}>, {}", window.attributes());
    function.line(&format!("%out = \"tosa.max_pool2d\"({x}) <{{{attributes}}}> : ({from}) -> {to}"));
    compiled(&function.returning("%out", &to))
}

/// The sum of two tensors of different scales.
pub(crate) fn add(extents: Extents) -> LayerProgram {
    let mut function = Function::default();
    let shape = image(extents);
    let (bytes, words) = (tensor(&shape, "i8"), tensor(&shape, "i32"));
    let (a, b) = (function.argument(&bytes), function.argument(&bytes));
    function.rescale("%a", &a, ("i8", "i32"), 20, &shape);
    function.rescale("%b", &b, ("i8", "i32"), 21, &shape);
    function.line(&format!("%sum = \"tosa.add\"(%a, %b) : ({words}, {words}) -> {words}"));
    function.rescale("%out", "%sum", ("i32", "i8"), 41, &shape);
    compiled(&function.returning("%out", &bytes))
}

/// A batch of one image.
fn image([rows, columns, channels]: Extents) -> [usize; 4] {
    [1, rows, columns, channels]
}

fn tensor(shape: &[usize], elem: &str) -> String {
    let extents: String = shape.iter().map(|extent| format!("{extent}x")).collect();
    format!("tensor<{extents}{elem}>")
}

/// The next bytes of a linear congruential generator, the same on every run.
fn drawn_bytes(state: &mut u32, n: usize) -> Vec<u8> {
    let mut next = || {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 24) as u8
    };
    (0..n).map(|_| next()).collect()
}

/// The program of a function, for the preset `x1`.
fn compiled(text: &str) -> LayerProgram {
    let mut module = text::parse(text, None).unwrap_or_else(|errors| panic!("{errors}\n{text:.2000}"));
    let target = Target::preset("x1", &[]).expect("x1 is a preset");
    let pipeline = strata::registry().parse(PASSES).expect("these are passes");
    let mut context = PassContext::new();
    context.insert(target.clone());
    pass::run(&mut module, &pipeline, &mut context, &DriverOptions::default(), &mut |_| {})
        .expect("the machine has a form of the layer");
    let lowered = emit::lower(&module).expect("the module is scheduled");
    let mut state = 1;
    let inputs = lowered.program.segments.iter();
    let inputs = inputs.filter(|segment| segment.kind == strata_isa_spec::SegmentKind::Input);
    let inputs = inputs.map(|segment| drawn_bytes(&mut state, segment.bytes as usize)).collect();
    LayerProgram { lowered, target, inputs }
}
