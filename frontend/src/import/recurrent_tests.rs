//! Recurrent layers against their equations, worked out here one number at a time.

use strata_ir::Tensor;

use super::tests::{Attr, Net, noise, run};
use super::*;

const N_STEPS: usize = 5;
const N_BATCH: usize = 2;
const N_INPUTS: usize = 3;
const N_HIDDEN: usize = 4;

/// A layer of which the equations are worked out.
#[derive(Clone, Debug, Default)]
struct Layer {
    op: &'static str,
    directions: Vec<bool>,
    clip: Option<f32>,
    coupled: bool,
    linear_before_reset: bool,
    has_bias: bool,
    has_peepholes: bool,
    has_first_state: bool,
    batch_first: bool,
    lengths: Option<[usize; N_BATCH]>,
    /// What stands for the sigmoid.
    gate: Gate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Gate {
    #[default]
    Sigmoid,
    /// `clamp(0.3 x + 0.6, 0, 1)`.
    HardSigmoid,
}

/// Rows of noise of a given name and size, as the model has them.
fn weights(name: &str, n: usize) -> Vec<f32> {
    noise(n, name.bytes().fold(11, |sum, b| sum * 31 + u32::from(b)))
}

impl Layer {
    fn n_gates(&self) -> usize {
        match self.op {
            "RNN" => 1,
            "GRU" => 3,
            _ => 4,
        }
    }

    fn model(&self) -> tract_onnx::pb::ModelProto {
        let (d, h, g) = (self.directions.len() as i64, N_HIDDEN as i64, self.n_gates() as i64);
        let extents = [N_STEPS as i64, N_BATCH as i64, N_INPUTS as i64];
        let [t, b, i] = extents;
        let input = if self.batch_first { [b, t, i] } else { extents };
        let floats = |net: Net, name: &str, dims: &[i64]| {
            net.floats(name, dims, weights(name, dims.iter().product::<i64>() as usize))
        };
        let mut net = Net::new(14, &input);
        net = floats(net, "w", &[d, g * h, i]);
        net = floats(net, "r", &[d, g * h, h]);
        net = floats(net, "b", &[d, 2 * g * h]);
        net = floats(net, "p", &[d, 3 * h]);
        let state = if self.batch_first { [b, d, h] } else { [d, b, h] };
        net = floats(net, "h", &state);
        net = floats(net, "c", &state);
        net = net.ints("l", &self.lengths.unwrap_or_default().map(|n| n as i64));
        let given = |is: bool, name: &'static str| if is { name } else { "_" };
        let mut operands = vec![
            "x",
            "w",
            "r",
            given(self.has_bias, "b"),
            given(self.lengths.is_some(), "l"),
            given(self.has_first_state, "h"),
        ];
        if self.op == "LSTM" {
            operands.extend([given(self.has_first_state, "c"), given(self.has_peepholes, "p")]);
        }
        let direction = match self.directions[..] {
            [false] => "forward",
            [true] => "reverse",
            _ => "bidirectional",
        };
        let mut attributes = vec![
            ("hidden_size", Attr::Int(h)),
            ("direction", Attr::Text(direction)),
            ("layout", Attr::Int(i64::from(self.batch_first))),
        ];
        attributes.extend(self.clip.map(|clip| ("clip", Attr::Float(clip))));
        if self.coupled {
            attributes.push(("input_forget", Attr::Int(1)));
        }
        if self.linear_before_reset {
            attributes.push(("linear_before_reset", Attr::Int(1)));
        }
        let functions = [&["HardSigmoid", "Tanh", "Tanh"][..self.n_gates().min(3)]].concat();
        let functions = functions[..if self.op == "GRU" { 2 } else { functions.len() }].repeat(d as usize);
        let (alphas, betas) = (vec![0.3; d as usize], vec![0.6; d as usize]);
        if self.gate == Gate::HardSigmoid {
            attributes.push(("activations", Attr::Texts(&functions)));
            attributes.push(("activation_alpha", Attr::Floats(&alphas)));
            attributes.push(("activation_beta", Attr::Floats(&betas)));
        }
        let outputs = if self.op == "LSTM" { "y yh yc" } else { "y yh" };
        net.node(self.op, &operands.join(" "), outputs, &attributes).model(outputs)
    }

    fn gate(&self, x: f32) -> f32 {
        let x = self.clipped(x);
        match self.gate {
            Gate::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Gate::HardSigmoid => (0.3 * x + 0.6).clamp(0.0, 1.0),
        }
    }

    fn clipped(&self, x: f32) -> f32 {
        self.clip.map_or(x, |clip| x.clamp(-clip, clip))
    }

    /// Runs one sequence in one direction: the states of all steps, and the last state and cell.
    fn sequence(&self, x: &dyn Fn(usize) -> Vec<f32>, direction: usize, sequence: usize) -> Sequence {
        let (g, h) = (self.n_gates(), N_HIDDEN);
        let w = weights("w", self.directions.len() * g * h * N_INPUTS);
        let r = weights("r", self.directions.len() * g * h * h);
        let b = weights("b", self.directions.len() * 2 * g * h);
        let p = weights("p", self.directions.len() * 3 * h);
        let dot = |matrix: &[f32], row: usize, x: &[f32]| -> f32 {
            let row = &matrix[(direction * g * h + row) * x.len()..][..x.len()];
            row.iter().zip(x).map(|(a, b)| a * b).sum()
        };
        let bias = |row: usize| if self.has_bias { b[direction * 2 * g * h + row] } else { 0.0 };
        let peephole = |row: usize| if self.has_peepholes { p[direction * 3 * h + row] } else { 0.0 };
        let first = |name: &str| -> Vec<f32> {
            let all = weights(name, self.directions.len() * N_BATCH * h);
            let at = if self.batch_first {
                sequence * self.directions.len() + direction
            } else {
                direction * N_BATCH + sequence
            };
            if self.has_first_state { all[at * h..(at + 1) * h].to_vec() } else { vec![0.0; h] }
        };
        let (mut state, mut cell) = (first("h"), first("c"));
        let length = self.lengths.map_or(N_STEPS, |lengths| lengths[sequence]);
        let mut all = vec![vec![0.0; h]; N_STEPS];
        for step in 0..length {
            let at = if self.directions[direction] { length - 1 - step } else { step };
            let x = x(at);
            let input = |gate: usize, k: usize| dot(&w, gate * h + k, &x) + bias(gate * h + k);
            let before = state.clone();
            let hidden =
                |gate: usize, k: usize, s: &[f32]| dot(&r, gate * h + k, s) + bias(g * h + gate * h + k);
            let sum = |gate: usize, k: usize| input(gate, k) + hidden(gate, k, &before);
            match self.op {
                "RNN" => {
                    for (k, out) in state.iter_mut().enumerate() {
                        *out = match self.gate {
                            Gate::Sigmoid => self.clipped(sum(0, k)).tanh(),
                            Gate::HardSigmoid => self.gate(sum(0, k)),
                        };
                    }
                }
                "GRU" => {
                    let reset: Vec<f32> = (0..h).map(|k| self.gate(sum(1, k))).collect();
                    let kept: Vec<f32> = reset.iter().zip(&before).map(|(a, b)| a * b).collect();
                    for (k, out) in state.iter_mut().enumerate() {
                        let update = self.gate(sum(0, k));
                        let candidate = if self.linear_before_reset {
                            input(2, k) + reset[k] * hidden(2, k, &before)
                        } else {
                            input(2, k) + hidden(2, k, &kept)
                        };
                        *out = (1.0 - update) * self.clipped(candidate).tanh() + update * before[k];
                    }
                }
                _ => {
                    for k in 0..h {
                        let entering = self.gate(sum(0, k) + peephole(k) * cell[k]);
                        let forget = self.gate(sum(2, k) + peephole(2 * h + k) * cell[k]);
                        let forget = if self.coupled { 1.0 - entering } else { forget };
                        cell[k] = forget * cell[k] + entering * self.clipped(sum(3, k)).tanh();
                        let leaving = self.gate(sum(1, k) + peephole(h + k) * cell[k]);
                        state[k] = leaving * cell[k].tanh();
                    }
                }
            }
            all[at].clone_from(&state);
        }
        Sequence { all, state, cell }
    }

    /// The outputs for an input `[steps, batch, inputs]`.
    fn expected(&self, x: &[f32]) -> Vec<Vec<f32>> {
        let d = self.directions.len();
        let mut y = vec![0.0; N_STEPS * d * N_BATCH * N_HIDDEN];
        let mut yh = vec![0.0; d * N_BATCH * N_HIDDEN];
        let mut yc = yh.clone();
        for direction in 0..d {
            for sequence in 0..N_BATCH {
                let row = |step: usize| {
                    let at =
                        if self.batch_first { sequence * N_STEPS + step } else { step * N_BATCH + sequence };
                    x[at * N_INPUTS..(at + 1) * N_INPUTS].to_vec()
                };
                let ran = self.sequence(&row, direction, sequence);
                for (step, state) in ran.all.iter().enumerate() {
                    let at = if self.batch_first {
                        (sequence * N_STEPS + step) * d + direction
                    } else {
                        (step * d + direction) * N_BATCH + sequence
                    };
                    y[at * N_HIDDEN..(at + 1) * N_HIDDEN].copy_from_slice(state);
                }
                let at =
                    if self.batch_first { sequence * d + direction } else { direction * N_BATCH + sequence };
                yh[at * N_HIDDEN..(at + 1) * N_HIDDEN].copy_from_slice(&ran.state);
                yc[at * N_HIDDEN..(at + 1) * N_HIDDEN].copy_from_slice(&ran.cell);
            }
        }
        if self.op == "LSTM" { vec![y, yh, yc] } else { vec![y, yh] }
    }

    fn check(&self) {
        let imported =
            import_proto(&self.model(), &ImportOptions { cross_check: false, ..Default::default() });
        let imported = imported.expect("the layer imports");
        let x = noise(N_STEPS * N_BATCH * N_INPUTS, 5);
        let outputs = run(&imported, &[Tensor::f32(imported.inputs[0].shape.clone(), x.clone())]);
        for (got, want) in outputs.iter().zip(self.expected(&x)) {
            let got = got.as_f32().expect("floats");
            assert_eq!(got.len(), want.len());
            for (a, b) in got.iter().zip(&want) {
                assert!((a - b).abs() < 1e-5, "{self:?}: {a}, not {b}");
            }
        }
    }
}

/// What a sequence gives.
struct Sequence {
    all: Vec<Vec<f32>>,
    state: Vec<f32>,
    cell: Vec<f32>,
}

#[test]
fn recurrent_layers_are_what_their_equations_say() {
    for op in ["LSTM", "GRU", "RNN"] {
        for directions in [vec![false], vec![true], vec![false, true]] {
            let plain = Layer { op, directions, ..Layer::default() };
            plain.check();
            let full = Layer { has_bias: true, has_first_state: true, ..plain };
            full.check();
            Layer { clip: Some(0.3), ..full.clone() }.check();
            Layer { batch_first: true, ..full.clone() }.check();
            Layer { lengths: Some([3, 5]), ..full.clone() }.check();
            Layer { lengths: Some([4, 4]), batch_first: true, ..full.clone() }.check();
            Layer { gate: Gate::HardSigmoid, ..full }.check();
        }
    }
}

#[test]
fn lstm_cells_with_peepholes_and_coupled_gates() {
    let full = Layer {
        op: "LSTM",
        directions: vec![false, true],
        has_bias: true,
        has_peepholes: true,
        ..Layer::default()
    };
    full.check();
    Layer { has_first_state: true, ..full.clone() }.check();
    Layer { coupled: true, clip: Some(0.4), ..full }.check();
}

#[test]
fn a_candidate_may_be_reset_after_its_product() {
    let plain =
        Layer { op: "GRU", directions: vec![false, true], linear_before_reset: true, ..Layer::default() };
    plain.check();
    let biased = Layer { has_bias: true, ..plain };
    biased.check();
    Layer { has_first_state: true, clip: Some(0.5), lengths: Some([2, 4]), ..biased }.check();
}

#[test]
fn what_is_not_known_of_a_recurrent_layer_is_declined() {
    let attributes: [&[(&str, Attr<'_>)]; 3] = [
        &[("direction", Attr::Text("sideways"))],
        &[("activations", Attr::Texts(&["Sigmoid", "Sine", "Tanh"]))],
        &[("activations", Attr::Texts(&["Sigmoid", "Affine", "Tanh"]))],
    ];
    for attributes in attributes {
        let net = Net::new(14, &[4, 1, 3]).weight("w", &[1, 8, 3]).weight("r", &[1, 8, 2]);
        let model = net.node("LSTM", "x w r", "y", attributes).model("y");
        assert!(import_proto(&model, &ImportOptions::default()).is_err());
    }
}
