//! Elementwise subgraphs of one variable: whatever composition of TOSA's elementwise ops it is (LeakyReLU,
//! SiLU, hard swish, Mish, GELU, …), it is a function of a real number, which a table of 256 entries computes
//! exactly as well as it can be quantised.
//!
//! Constants are scalars or repeated values; those that vary along the last axis alone make one function a
//! channel. Functions are evaluated in double precision with a portable mathematical library, so that tables
//! are the same on every machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_ir::{Attribute, ElemType, Module, Op, OpId, Tensor, ValueId};

/// Whether an op acts on each element alone and has a scalar meaning here.
pub(crate) fn is_elementwise(op: &Op) -> bool {
    matches!(
        op,
        Op::Add(_)
            | Op::Sub(_)
            | Op::Mul(_)
            | Op::Maximum(_)
            | Op::Minimum(_)
            | Op::Pow(_)
            | Op::LogicalAnd(_)
            | Op::LogicalOr(_)
            | Op::LogicalXor(_)
            | Op::LogicalNot(_)
            | Op::Equal(_)
            | Op::Greater(_)
            | Op::GreaterEqual(_)
            | Op::Abs(_)
            | Op::Ceil(_)
            | Op::Floor(_)
            | Op::Exp(_)
            | Op::Log(_)
            | Op::Reciprocal(_)
            | Op::Rsqrt(_)
            | Op::Sigmoid(_)
            | Op::Tanh(_)
            | Op::Erf(_)
            | Op::Sin(_)
            | Op::Cos(_)
            | Op::Identity(_)
            | Op::Negate(_)
            | Op::Clamp(_)
            | Op::Select(_)
            | Op::Cast(_)
            | Op::ArithmeticRightShift(_)
            | Op::IntDiv(_)
    )
}

/// The operands of an elementwise op that carry data: not zero points or shifts.
pub(super) fn data_operands<'a>(op: &Op, operands: &'a [ValueId]) -> &'a [ValueId] {
    match op {
        Op::Negate(_) => &operands[..1],
        Op::Mul(_) => &operands[..2],
        _ => operands,
    }
}

/// What an elementwise op whose result is of `elem` computes of real numbers, of which it takes as many as it
/// has operands; `i1` is 0 or 1. `None` for ops without a scalar meaning.
#[inline(always)]
fn scalar(op: &Op, elem: ElemType, x: &[f64; MOST_OPERANDS]) -> Option<f64> {
    let truth = |b: bool| f64::from(u8::from(b));
    Some(match op {
        Op::Add(_) => x[0] + x[1],
        Op::Sub(_) => x[0] - x[1],
        Op::Mul(_) => x[0] * x[1],
        Op::Maximum(_) => x[0].max(x[1]),
        Op::Minimum(_) => x[0].min(x[1]),
        Op::Pow(_) => libm::pow(x[0], x[1]),
        Op::LogicalAnd(_) => truth(x[0] != 0.0 && x[1] != 0.0),
        Op::LogicalOr(_) => truth(x[0] != 0.0 || x[1] != 0.0),
        Op::LogicalXor(_) => truth((x[0] != 0.0) != (x[1] != 0.0)),
        Op::LogicalNot(_) => truth(x[0] == 0.0),
        Op::Equal(_) => truth(x[0] == x[1]),
        Op::Greater(_) => truth(x[0] > x[1]),
        Op::GreaterEqual(_) => truth(x[0] >= x[1]),
        Op::Abs(_) => x[0].abs(),
        Op::Ceil(_) => x[0].ceil(),
        Op::Floor(_) => x[0].floor(),
        Op::Exp(_) => libm::exp(x[0]),
        Op::Log(_) => libm::log(x[0]),
        Op::Reciprocal(_) => x[0].recip(),
        Op::Rsqrt(_) => x[0].sqrt().recip(),
        Op::Sigmoid(_) => (1.0 + libm::exp(-x[0])).recip(),
        Op::Tanh(_) => libm::tanh(x[0]),
        Op::Erf(_) => libm::erf(x[0]),
        Op::Sin(_) => libm::sin(x[0]),
        Op::Cos(_) => libm::cos(x[0]),
        Op::Identity(_) => x[0],
        Op::Negate(_) => -x[0],
        Op::Clamp(op) => x[0].max(bound(&op.min_val)?).min(bound(&op.max_val)?),
        Op::Cast(_) => match elem {
            ElemType::F32 => x[0],
            ElemType::I32 => x[0].round_ties_even().clamp(f64::from(i32::MIN), f64::from(i32::MAX)),
            ElemType::I1 => truth(x[0] != 0.0),
            _ => return None,
        },
        Op::ArithmeticRightShift(op) if !op.round => (x[0] / libm::pow(2.0, x[1])).floor(),
        Op::IntDiv(_) if x[1] != 0.0 => (x[0] / x[1]).trunc(),
        Op::Select(_) => {
            if x[0] != 0.0 {
                x[1]
            } else {
                x[2]
            }
        }
        _ => return None,
    })
}

fn bound(attr: &Attribute) -> Option<f64> {
    if let Attribute::Float(value, _) = attr { Some(*value) } else { None }
}

/// The steps of a function of one variable, in order.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    steps: Vec<Step>,
    /// Channels for which it differs; 1 if it is the same for all.
    pub(super) n_channels: usize,
}

#[derive(Clone, Debug)]
struct Step {
    op: Op,
    /// The element type of its result.
    elem: ElemType,
    operands: Vec<Operand>,
}

#[derive(Clone, Debug)]
enum Operand {
    Variable,
    Step(usize),
    /// One value for all channels, or one a channel.
    Constant(Vec<f64>),
}

/// Operands of an elementwise op at most.
const MOST_OPERANDS: usize = 3;
/// Steps whose results need no memory of their own.
const FEW_STEPS: usize = 16;
/// Places at which a step is made before the next step is.
const BLOCK: usize = 64;

/// `f` of the operands at each place.
fn each(results: &mut [f64; BLOCK], a: &[f64; BLOCK], b: &[f64; BLOCK], f: impl Fn(f64, f64) -> f64) {
    for ((result, &a), &b) in results.iter_mut().zip(a).zip(b) {
        *result = f(a, b);
    }
}

impl Step {
    /// The step's results at the places `xs` of the first channel, of which there are at most [`BLOCK`];
    /// `known` are those of the steps before it.
    fn at_block(&self, xs: &[f64], known: &[[f64; BLOCK]], results: &mut [f64; BLOCK]) {
        let mut operands = [[0.0; BLOCK]; MOST_OPERANDS];
        for (values, operand) in operands.iter_mut().zip(&self.operands) {
            match operand {
                Operand::Variable => values[..xs.len()].copy_from_slice(xs),
                Operand::Step(step) => *values = known[*step],
                Operand::Constant(constant) => *values = [constant[0]; BLOCK],
            }
        }
        let [a, b, c] = &operands;
        // What functions mostly consist of, as loops that become vector instructions.
        match &self.op {
            Op::Add(_) => return each(results, a, b, |a, b| a + b),
            Op::Sub(_) => return each(results, a, b, |a, b| a - b),
            Op::Mul(_) => return each(results, a, b, |a, b| a * b),
            _ => {}
        }
        for (at, result) in results.iter_mut().enumerate().take(xs.len()) {
            *result = scalar(&self.op, self.elem, &[a[at], b[at], c[at]]).unwrap_or(f64::NAN);
        }
    }
}

/// A constant that has one value, or one for each index of the last axis: those values.
pub(super) fn channel_values(tensor: &Tensor) -> Option<Vec<f64>> {
    let value = |i: usize| match tensor.as_f32() {
        Some(data) => Some(f64::from(data[i])),
        None => tensor.data().int_at(i).map(|v| v as f64),
    };
    let n = tensor.n_elements();
    let first = (n > 0).then(|| value(0))??;
    // A large tensor is not a repeated value; do not look through all of one that begins otherwise.
    if (1..n).all(|i| value(i) == Some(first)) {
        return Some(vec![first]);
    }
    (tensor.shape().last() == Some(&n)).then(|| (0..n).map(value).collect::<Option<_>>())?
}

impl Function {
    /// The function that leads from `variable` to `result`; `constant` gives the data of values that are
    /// constant. `None` if something else than `variable` and constants enters, or an op has no scalar
    /// meaning.
    pub(crate) fn between(
        module: &Module,
        constant: &dyn Fn(ValueId) -> Option<Arc<Tensor>>,
        variable: ValueId,
        result: ValueId,
    ) -> Option<Self> {
        let mut function = Self { steps: Vec::new(), n_channels: 1 };
        let mut known = BTreeMap::new();
        function.visit(module, constant, variable, result, &mut known)?;
        Some(function)
    }

    fn visit(
        &mut self,
        module: &Module,
        constant: &dyn Fn(ValueId) -> Option<Arc<Tensor>>,
        variable: ValueId,
        value: ValueId,
        known: &mut BTreeMap<OpId, usize>,
    ) -> Option<Operand> {
        if value == variable {
            return Some(Operand::Variable);
        }
        if let Some(tensor) = constant(value) {
            let values = channel_values(&tensor)?;
            if values.len() > 1 {
                if self.n_channels > 1 && self.n_channels != values.len() {
                    return None;
                }
                self.n_channels = values.len();
            }
            return Some(Operand::Constant(values));
        }
        let op = module.defining_op(value)?;
        if let Some(&step) = known.get(&op) {
            return Some(Operand::Step(step));
        }
        let data = module.op(op);
        if !is_elementwise(&data.op) {
            return None;
        }
        let operands = data_operands(&data.op, data.operands())
            .iter()
            .map(|&operand| self.visit(module, constant, variable, operand, known))
            .collect::<Option<Vec<_>>>()?;
        let elem = module.ty(value).as_tensor()?.elem;
        scalar(&data.op, elem, &[1.0; 3])?;
        self.steps.push(Step { op: data.op.clone(), elem, operands });
        known.insert(op, self.steps.len() - 1);
        Some(Operand::Step(self.steps.len() - 1))
    }

    /// The function's value at `x` in a channel.
    pub(super) fn at(&self, x: f64, channel: usize) -> f64 {
        self.steps_at(x, channel, |value| value)
    }

    /// The function's value at `x`, every step rounded to single precision.
    pub(super) fn at_single(&self, x: f32) -> f32 {
        self.steps_at(f64::from(x), 0, |value| f64::from(value as f32)) as f32
    }

    fn steps_at(&self, x: f64, channel: usize, round: impl Fn(f64) -> f64) -> f64 {
        let (mut few, mut many);
        let results: &mut [f64] = if self.steps.len() <= FEW_STEPS {
            few = [0.0; FEW_STEPS];
            &mut few
        } else {
            many = vec![0.0; self.steps.len()];
            &mut many
        };
        let mut last = x;
        for (at, step) in self.steps.iter().enumerate() {
            let mut operands = [0.0; MOST_OPERANDS];
            for (value, operand) in operands.iter_mut().zip(&step.operands) {
                *value = match operand {
                    Operand::Variable => x,
                    Operand::Step(step) => results[*step],
                    Operand::Constant(values) => values[if values.len() == 1 { 0 } else { channel }],
                };
            }
            last = round(scalar(&step.op, step.elem, &operands).unwrap_or(f64::NAN));
            results[at] = last;
        }
        last
    }

    /// The values in the first channel at many places, the very bits that [`at`](Self::at) gives: each step
    /// is made at [`BLOCK`] places before the next.
    ///
    /// # Shapes
    /// `xs` and `ys` are equally long.
    pub(super) fn at_all(&self, xs: &[f64], ys: &mut [f64]) {
        let mut results = vec![[0.0; BLOCK]; self.steps.len()];
        for (xs, ys) in xs.chunks(BLOCK).zip(ys.chunks_mut(BLOCK)) {
            for (at, step) in self.steps.iter().enumerate() {
                let (known, result) = results.split_at_mut(at);
                step.at_block(xs, known, &mut result[0]);
            }
            ys.copy_from_slice(results.last().map_or(xs, |last| &last[..xs.len()]));
        }
    }

    /// If the function is `min(max(x, low), high)`: its bounds, infinite where it has none; of bounds that
    /// differ from channel to channel the tightest, within which it changes no channel.
    pub(super) fn as_clamp(&self) -> Option<(f64, f64)> {
        if self.n_channels > 1 {
            return self.as_channel_clamp();
        }
        let mut bounds = (f64::NEG_INFINITY, f64::INFINITY);
        for (at, step) in self.steps.iter().enumerate() {
            let is_chained = |operand: &Operand| match operand {
                Operand::Variable => at == 0,
                Operand::Step(step) => step + 1 == at,
                Operand::Constant(_) => false,
            };
            let one = |operand: &Operand| match operand {
                Operand::Constant(values) if values.len() == 1 => Some(values[0]),
                _ => None,
            };
            let against = || match step.operands.as_slice() {
                [x, y] if is_chained(x) => one(y),
                [y, x] if is_chained(x) => one(y),
                _ => None,
            };
            let (low, high) = match &step.op {
                Op::Identity(_) if is_chained(&step.operands[0]) => (f64::NEG_INFINITY, f64::INFINITY),
                Op::Clamp(op) if is_chained(&step.operands[0]) => (bound(&op.min_val)?, bound(&op.max_val)?),
                Op::Maximum(_) => (against()?, f64::INFINITY),
                Op::Minimum(_) => (f64::NEG_INFINITY, against()?),
                _ => return None,
            };
            bounds = (bounds.0.max(low).min(high), bounds.1.max(low).min(high));
        }
        Some(bounds)
    }

    fn as_channel_clamp(&self) -> Option<(f64, f64)> {
        let one_channel = |channel: usize| {
            let step = |step: &Step| {
                let one = |operand: &Operand| match operand {
                    Operand::Constant(values) if values.len() > 1 => Operand::Constant(vec![values[channel]]),
                    other => other.clone(),
                };
                Step { operands: step.operands.iter().map(one).collect(), ..step.clone() }
            };
            Self { steps: self.steps.iter().map(step).collect(), n_channels: 1 }.as_clamp()
        };
        (0..self.n_channels).try_fold((f64::NEG_INFINITY, f64::INFINITY), |bounds, channel| {
            let (low, high) = one_channel(channel)?;
            Some((bounds.0.max(low), bounds.1.min(high)))
        })
    }

    /// Whether the function changes nothing.
    pub(super) fn is_identity(&self) -> bool {
        self.as_clamp() == Some((f64::NEG_INFINITY, f64::INFINITY))
    }

    /// If the function is `k * x` for one positive `k`: that `k`.
    pub(super) fn as_gain(&self) -> Option<f64> {
        let [Step { op: Op::Mul(_), operands, .. }] = self.steps.as_slice() else { return None };
        match operands.as_slice() {
            [Operand::Variable, Operand::Constant(k)] | [Operand::Constant(k), Operand::Variable] => {
                (k.len() == 1 && k[0] > 0.0 && k[0].is_finite()).then_some(k[0])
            }
            _ => None,
        }
    }

    /// For how many channels it differs; 1 if it is the same for all.
    pub(crate) fn n_channels(&self) -> usize {
        self.n_channels
    }

    /// If the function is one for all channels, and at last multiplied by a positive factor a channel: that
    /// function, and the factors.
    pub(super) fn as_gained(&self) -> Option<(Self, Vec<f64>)> {
        let (last, before) = self.steps.split_last()?;
        let (Op::Mul(_), [Operand::Step(from), Operand::Constant(gains)]) = (&last.op, &last.operands[..])
        else {
            return None;
        };
        let is_uniform =
            |operand: &Operand| !matches!(operand, Operand::Constant(values) if values.len() > 1);
        let gains_well = gains.len() == self.n_channels && gains.iter().all(|&k| k > 0.0 && k.is_finite());
        let one_for_all = from + 1 == before.len() && before.iter().flat_map(|s| &s.operands).all(is_uniform);
        (gains_well && one_for_all).then(|| (Self { steps: before.to_vec(), n_channels: 1 }, gains.clone()))
    }

    /// If the function is linear on either side of 0, in every channel: the slopes below and above it, a
    /// channel each.
    pub(crate) fn as_two_slopes(&self) -> Option<Vec<[f64; 2]>> {
        let slopes = |channel| {
            let slope = |x: f64| self.at(x, channel) / x;
            let (below, above) = (slope(-1.0), slope(1.0));
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * (a.abs() + b.abs());
            let linear = [0.01, 0.37, 5.0, 300.0];
            let linear = linear.iter().all(|&x| near(slope(-x), below) && near(slope(x), above));
            (linear && self.at(0.0, channel) == 0.0).then_some([below, above])
        };
        (0..self.n_channels).map(slopes).collect()
    }
}

/// The function of a value that alone is used of it.
#[derive(Clone, Debug)]
pub(super) enum OnlyFunction<'a> {
    /// A function that is one for all channels.
    Plain(&'a Function),
    /// One for all channels, times a factor.
    Scaled {
        /// The function.
        function: Function,
        /// The factor.
        factor: f64,
    },
    /// A slope below 0 and one above it.
    Slopes {
        /// That below.
        below: f64,
        /// That above.
        above: f64,
    },
}

impl OnlyFunction<'_> {
    /// The function's values at many places.
    ///
    /// # Shapes
    /// `xs` and `ys` are equally long.
    pub(super) fn at_all(&self, xs: &[f64], ys: &mut [f64]) {
        match self {
            Self::Plain(function) => function.at_all(xs, ys),
            Self::Scaled { function, factor } => {
                function.at_all(xs, ys);
                ys.iter_mut().for_each(|y| *y *= factor);
            }
            Self::Slopes { below, above } => {
                for (x, y) in xs.iter().zip(ys) {
                    *y = if *x < 0.0 { below * x } else { above * x };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use strata_ir::dialect::{Add, Exp, Log, Mul, Sigmoid, Tanh};

    use super::*;

    impl Function {
        /// The function that an op of one operand is.
        pub(in crate::quantise) fn of_op(name: &str) -> Self {
            let op = match name {
                "exp" => Exp {}.into(),
                "log" => Log {}.into(),
                "sigmoid" => Sigmoid {}.into(),
                "tanh" => Tanh {}.into(),
                other => panic!("no function `{other}`"),
            };
            let step = Step { op, elem: ElemType::F32, operands: vec![Operand::Variable] };
            Self { steps: vec![step], n_channels: 1 }
        }
    }

    /// `x * sigmoid(x + 0.3)` with `n` steps more that add 0.1.
    fn swish(n: usize) -> Function {
        let step = |op: Op, operands: Vec<Operand>| Step { op, elem: ElemType::F32, operands };
        let mut steps = vec![
            step(Add {}.into(), vec![Operand::Variable, Operand::Constant(vec![0.3])]),
            step(Sigmoid {}.into(), vec![Operand::Step(0)]),
            step(Mul {}.into(), vec![Operand::Variable, Operand::Step(1)]),
        ];
        for at in 0..n {
            steps.push(step(Add {}.into(), vec![Operand::Step(at + 2), Operand::Constant(vec![0.1])]));
        }
        Function { steps, n_channels: 1 }
    }

    #[test]
    fn many_places_at_once_are_as_one_by_one() {
        let xs: Vec<f64> = (0..3 * BLOCK + 7).map(|i| i as f64 * 0.17 - 12.0).collect();
        for n in [0, 1, FEW_STEPS - 3, FEW_STEPS] {
            let function = swish(n);
            let mut ys = vec![0.0; xs.len()];
            function.at_all(&xs, &mut ys);
            let want: Vec<f64> = xs.iter().map(|&x| function.at(x, 0)).collect();
            assert!(ys.iter().zip(&want).all(|(y, want)| y.to_bits() == want.to_bits()), "{n} steps more");
            let by_hand = xs[5] * (1.0 + libm::exp(-(xs[5] + 0.3))).recip() + 0.1 * n as f64;
            assert!((want[5] - by_hand).abs() < 1e-9, "{} is not {by_hand}", want[5]);
        }
    }

    #[test]
    fn a_function_of_no_step_changes_nothing() {
        let mut ys = [0.0; 2];
        Function { steps: Vec::new(), n_channels: 1 }.at_all(&[-1.5, 2.5], &mut ys);
        assert_eq!(ys, [-1.5, 2.5]);
    }
}
