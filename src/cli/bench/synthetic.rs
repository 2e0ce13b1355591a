//! Graphs of any size, to see how planning grows: functions of integers, whose convolutions share one set of
//! weights.
//!
//! All tensors are 256x256x16, 1 MiB each, so that a handful fills the activation SRAM of the preset `x1`.

use std::fmt::Write as _;

use strata_ir::{Module, text};

use crate::cli::failure::Failure;
use strata_frontend::tosa::entry;

/// The type of every activation.
const TENSOR: &str = "tensor<1x256x256x16xi8>";
const SUM: &str = "tensor<1x256x256x16xi32>";

/// How far back a convolution of a random graph looks for its input, and how far for a shortcut.
const INPUT_REACH: u64 = 6;
const SHORTCUT_REACH: u64 = 16;

/// A chain of convolutions, 3x3 and 1x1 by turns.
pub(super) fn chain(n: usize) -> Result<Module, Failure> {
    let mut text = Text::new();
    for at in 0..n {
        text.convolution(at, if at % 2 == 0 { 3 } else { 1 }, None);
    }
    text.finish(&[n])
}

/// A random graph of `n` convolutions, half of them with a shortcut added. What nothing reads is an output.
pub(super) fn random(n: usize, seed: u64) -> Result<Module, Failure> {
    let mut text = Text::new();
    let mut read = vec![false; n + 1];
    let mut draws = (0..).map(|at| mix(seed ^ mix(at)));
    let mut draw = |bound: u64| (draws.next().unwrap_or_default() % bound.max(1)) as usize;
    for at in 0..n {
        // What has waited longest is read half of the time, so that few branches end early.
        let waiting = read[..=at].iter().position(|read| !read).filter(|_| draw(2) == 0);
        let src = waiting.unwrap_or_else(|| at - draw(INPUT_REACH.min(at as u64 + 1)));
        let skip = (at > 0 && draw(2) == 0).then(|| at - draw(SHORTCUT_REACH.min(at as u64 + 1)));
        let skip = skip.filter(|&skip| skip != src && skip > 0);
        let kernel = if draw(2) == 0 { 3 } else { 1 };
        read[src] = true;
        if let Some(skip) = skip {
            read[skip] = true;
        }
        text.convolution(src, kernel, skip);
    }
    let outputs: Vec<usize> = (1..=n).filter(|&value| !read[value]).collect();
    text.finish(&outputs)
}

/// The finaliser of SplitMix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The body of a function under construction; value 0 is its argument.
#[derive(Debug)]
struct Text {
    body: String,
    values: usize,
}

impl Text {
    fn new() -> Self {
        let mut body = String::new();
        let constants = [
            ("w1", "1", "tensor<16x1x1x16xi8>"),
            ("w3", "1", "tensor<16x3x3x16xi8>"),
            ("b", "0", "tensor<16xi32>"),
            ("z8", "0", "tensor<1xi8>"),
            ("z32", "0", "tensor<1xi32>"),
            ("m", "1073741824", "tensor<1xi32>"),
            ("s", "37", "tensor<1xi8>"),
            ("up", "20", "tensor<1xi8>"),
            ("down", "41", "tensor<1xi8>"),
        ];
        for (name, value, ty) in constants {
            // Writing to a `String` cannot fail.
            let _ = writeln!(
                body,
                "%{name} = \"tosa.const\"() <{{values = dense<{value}> : {ty}}}> : () -> {ty}"
            );
        }
        Self { body, values: 1 }
    }

    /// A convolution of value `src`, to which value `skip` is added.
    fn convolution(&mut self, src: usize, kernel: usize, skip: Option<usize>) {
        let (n, pad) = (self.values, kernel / 2);
        self.values += 1;
        let sum = if skip.is_some() { format!("c{n}") } else { n.to_string() };
        let _ = writeln!(
            self.body,
            "%a{n} = \"tosa.conv2d\"(%{src}, %w{kernel}, %b, %z8, %z8) <{{acc_type = i32, dilation = \
                array<i64: 1, 1>, \
             pad = array<i64: {pad}, {pad}, {pad}, {pad}>, stride = array<i64: 1, 1>}}> : ({TENSOR}, \
             tensor<16x{kernel}x{kernel}x16xi8>, tensor<16xi32>, tensor<1xi8>, tensor<1xi8>) -> {SUM} \
             loc(\"conv{n}\")"
        );
        self.narrow(&sum, &format!("a{n}"), "s");
        let Some(skip) = skip else { return };
        for (wide, narrow) in [(format!("p{n}"), sum), (format!("q{n}"), skip.to_string())] {
            let _ = writeln!(
                self.body,
                "%{wide} = \"tosa.rescale\"(%{narrow}, %m, %up, %z8, %z32) {RESCALE} : ({TENSOR}, \
                    tensor<1xi32>, \
                 tensor<1xi8>, tensor<1xi8>, tensor<1xi32>) -> {SUM}"
            );
        }
        let _ = writeln!(self.body, "%t{n} = \"tosa.add\"(%p{n}, %q{n}) : ({SUM}, {SUM}) -> {SUM}");
        self.narrow(&n.to_string(), &format!("t{n}"), "down");
    }

    /// A sum of 32 bits to 8.
    fn narrow(&mut self, result: &str, sum: &str, shift: &str) {
        let _ = writeln!(
            self.body,
            "%{result} = \"tosa.rescale\"(%{sum}, %m, %{shift}, %z32, %z8) {RESCALE} : ({SUM}, \
                tensor<1xi32>, tensor<1xi8>, \
             tensor<1xi32>, tensor<1xi8>) -> {TENSOR}"
        );
    }

    /// The module that gives these values.
    fn finish(self, outputs: &[usize]) -> Result<Module, Failure> {
        let types = vec![TENSOR; outputs.len()].join(", ");
        let values: Vec<String> = outputs.iter().map(|value| format!("%{value}")).collect();
        let source = format!(
            "\"builtin.module\"() ({{\n\"func.func\"() <{{function_type = ({TENSOR}) -> ({types}), sym_name \
                = \"main\"}}> ({{\n\
             ^bb0(%0: {TENSOR}):\n{}\"func.return\"({}) : ({types}) -> ()\n}}) : () -> ()\n}}) : () -> ()\n",
            self.body,
            values.join(", ")
        );
        let defect = |what: String| Failure::Failed(format!("a synthetic graph is no module: {what}"));
        let mut module = text::parse(&source, None).map_err(|errors| {
            defect(strata_ir::diag::render(&errors.0, Some(("synthetic", &source)), false))
        })?;
        entry::prepare(&mut module).map_err(|error| defect(error.to_string()))?;
        Ok(module)
    }
}

const RESCALE: &str = "<{input_unsigned = false, output_unsigned = false, per_channel = false, \
                       rounding_mode = #tosa.rounding_mode<SINGLE_ROUND>, scale32 = true}>";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::subject::Subject;
    use crate::cli::console::{Console, MessageFormat};
    use strata_isa_spec::Target;

    fn stages(module: Module) -> usize {
        let console = Console::new(true, MessageFormat::Human);
        let subject =
            Subject::module("synthetic".to_owned(), module, &console.progress(None)).expect("integers");
        let target = Target::preset("x1", &[]).expect("a preset");
        subject.plan(&target).expect("it can be planned").stages
    }

    #[test]
    fn every_convolution_is_one_stage() {
        assert_eq!(stages(chain(5).expect("a module")), 5);
        assert_eq!(stages(random(12, 1).expect("a module")), 12);
    }
}
