//! Recurrent layers: `LSTM`, `GRU` and `RNN`, unrolled.
//!
//! The product of the inputs of all steps with the input weights is one convolution. Each step then
//! multiplies the state with the state weights, adds, and passes the gates through their activation
//! functions. Values of one direction are `[1, steps, batch, channels]`, so that a step is a row.
//!
//! Where the batch's sequences differ in length each runs by itself. `clip` bounds what goes into the
//! functions of the gates but not into that of the cell's output, as in onnxruntime.

use strata_ir::ValueId;
use tract_onnx::pb::tensor_proto::DataType;

use super::linear::POINT;
use super::recurrent_functions::{Function, functions};
use super::{Lowering, single};
use crate::import::array::{Array, strides};
use crate::import::emit::Emitter;
use crate::import::error::{Lowered, invalid, unsupported};
use crate::import::graph::Node;
use crate::import::layout::{Value, View};

/// Steps of both directions together up to which a layer is unrolled: each becomes some ten ops.
pub(super) const MAX_STEPS: usize = 1024;

/// What happens in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Rnn,
    Gru { linear_before_reset: bool },
    Lstm { coupled: bool },
}

impl Cell {
    fn of(node: &Node<'_>) -> Lowered<Self> {
        Ok(match node.proto.op_type.as_str() {
            "RNN" => Self::Rnn,
            "GRU" => Self::Gru { linear_before_reset: node.flag("linear_before_reset", false)? },
            _ => Self::Lstm { coupled: node.flag("input_forget", false)? },
        })
    }

    fn n_gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru { .. } => 3,
            Self::Lstm { .. } => 4,
        }
    }

    /// The functions that a direction has if the model names none.
    fn usual_functions(self) -> &'static [&'static str] {
        match self {
            Self::Rnn => &["Tanh"],
            Self::Gru { .. } => &["Sigmoid", "Tanh"],
            Self::Lstm { .. } => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

/// The extents of a layer.
#[derive(Clone, Copy, Debug)]
struct Extents {
    n_steps: usize,
    n_batch: usize,
    n_inputs: usize,
    n_hidden: usize,
}

/// One direction of a layer, with its constants.
struct Direction {
    cell: Cell,
    extents: Extents,
    backwards: bool,
    clip: Option<f32>,
    functions: Vec<Function>,
    /// `[gates * hidden, 1, 1, inputs]`.
    input_weight: Array,
    /// One matrix, or two where the last gate's operand is not the state itself:
    /// `[gates * hidden, 1, 1, hidden]`.
    state_weights: Vec<Array>,
    input_bias: Vec<f32>,
    /// Of the state's product: zero but for a gate that is reset after it.
    state_bias: Vec<f32>,
    /// Of the input, the output and the forget gate.
    peepholes: Option<[Vec<f32>; 3]>,
}

/// The constants of a direction as values.
struct Weights {
    /// Of each product with the state: weight and bias.
    products: Vec<Product>,
    peepholes: Option<[ValueId; 3]>,
}

#[derive(Clone, Copy)]
struct Product {
    weight: ValueId,
    bias: ValueId,
}

/// What a step hands to the next; `None` is zero.
#[derive(Clone, Copy, Default)]
struct State {
    hidden: Option<ValueId>,
    cell: Option<ValueId>,
}

/// What a direction gives.
struct Results {
    /// `[1, steps, batch, hidden]`.
    all: ValueId,
    /// `[1, 1, batch, hidden]`.
    last: State,
}

/// `LSTM`, `GRU` and `RNN`.
pub(super) fn recurrent(lo: &mut Lowering, node: &Node<'_>) -> Lowered<Vec<Value>> {
    let cell = Cell::of(node)?;
    let batch_first = node.flag("layout", false)?;
    let x = lo.view(node.input(0)?)?;
    let x = if batch_first && x.shape.len() == 3 { x.transposed(&[1, 0, 2]) } else { x };
    let extents = extents(node, &x)?;
    let backwards: &[bool] = match node.string("direction", "forward")?.as_str() {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => invalid!("direction `{other}`"),
    };
    if extents.n_steps * backwards.len() > MAX_STEPS {
        unsupported!("{} steps; up to {MAX_STEPS} are unrolled", extents.n_steps * backwards.len());
    }
    let lengths = lengths(node, &extents)?;
    let Extents { n_steps, n_batch, n_inputs, .. } = extents;
    let input = lo.in_order_as(&x, &[0, 1, 2], &[1, n_steps, n_batch, n_inputs]);
    let mut results = Vec::new();
    for (index, &backwards) in backwards.iter().enumerate() {
        let direction = direction(node, cell, extents, index, backwards)?;
        let first = State {
            hidden: first_state(lo, node, 5, index, &extents)?,
            cell: if matches!(cell, Cell::Lstm { .. }) {
                first_state(lo, node, 6, index, &extents)?
            } else {
                None
            },
        };
        results.push(direction.run(&mut lo.em, input, first, &lengths)?);
    }
    outputs(lo, &results, &extents, batch_first)
}

/// The layer's extents, held against its weights.
fn extents(node: &Node<'_>, x: &View) -> Lowered<Extents> {
    if x.dtype != DataType::Float {
        unsupported!("on {:?}", x.dtype);
    }
    let &[n_steps, n_batch, n_inputs] = &x.shape[..] else { invalid!("an input of shape {:?}", x.shape) };
    let &[_, _, n_hidden] = &node.constant(2, "the recurrent weight")?.shape[..] else {
        invalid!("a recurrent weight that is not of rank 3")
    };
    if n_hidden == 0 {
        invalid!("a recurrent weight for no hidden state");
    }
    let declared = node.int("hidden_size", n_hidden as i64)?;
    if declared != n_hidden as i64 {
        invalid!("`hidden_size` is {declared}, but the recurrent weight is for {n_hidden}");
    }
    Ok(Extents { n_steps, n_batch, n_inputs, n_hidden })
}

/// How many steps each sequence of the batch has.
fn lengths(node: &Node<'_>, extents: &Extents) -> Lowered<Vec<usize>> {
    let Some(given) = node.optional_constant(4, "the list of lengths")? else {
        return Ok(vec![extents.n_steps; extents.n_batch]);
    };
    let given = given.as_ints()?;
    if given.len() != extents.n_batch {
        invalid!("{} lengths for a batch of {}", given.len(), extents.n_batch);
    }
    let mut lengths = Vec::new();
    for &length in given {
        match usize::try_from(length) {
            Ok(0) => unsupported!("a sequence without steps"),
            Ok(length) if length <= extents.n_steps => lengths.push(length),
            _ => invalid!("a sequence of {length} steps among {}", extents.n_steps),
        }
    }
    Ok(lengths)
}

/// Rows of one direction of a constant operand `[directions, rows, ...]`.
fn of_direction(array: &Array, index: usize, want: &[usize], what: &str) -> Lowered<Vec<f32>> {
    if array.shape.len() != want.len() + 1 || array.shape[1..] != *want || index >= array.shape[0] {
        invalid!("{what} of shape {:?} where every direction has {want:?}", array.shape);
    }
    let size: usize = want.iter().product();
    Ok(array.as_floats()?[index * size..(index + 1) * size].to_vec())
}

/// Reads one direction of a layer.
fn direction(
    node: &Node<'_>,
    cell: Cell,
    extents: Extents,
    index: usize,
    backwards: bool,
) -> Lowered<Direction> {
    let Extents { n_inputs, n_hidden, .. } = extents;
    let rows = cell.n_gates() * n_hidden;
    let weight = node.constant(1, "the weight")?;
    let input_weight = of_direction(weight, index, &[rows, n_inputs], "a weight")?;
    let recurrent = node.constant(2, "the recurrent weight")?;
    let state_weight = of_direction(recurrent, index, &[rows, n_hidden], "a recurrent weight")?;
    let (mut input_bias, mut state_bias) = (vec![0.0; rows], vec![0.0; rows]);
    if let Some(bias) = node.optional_constant(3, "the bias")? {
        let both = of_direction(bias, index, &[2 * rows], "a bias")?;
        input_bias.copy_from_slice(&both[..rows]);
        // The state's bias may be added with the input's, unless what it belongs to is reset first.
        let kept = match cell {
            Cell::Gru { linear_before_reset: true } => 2 * n_hidden,
            _ => rows,
        };
        for (sum, &term) in input_bias.iter_mut().zip(&both[rows..rows + kept]) {
            *sum += term;
        }
        state_bias[kept..].copy_from_slice(&both[rows + kept..]);
    }
    let peepholes = match (cell, node.optional_constant(7, "the peepholes")?) {
        (Cell::Lstm { .. }, Some(array)) => {
            let all = of_direction(array, index, &[3 * n_hidden], "peepholes")?;
            let part = |at: usize| all[at * n_hidden..(at + 1) * n_hidden].to_vec();
            Some([part(0), part(1), part(2)])
        }
        _ => None,
    };
    let matrix = |data: &[f32]| Array::floats([data.len() / n_hidden, 1, 1, n_hidden], data.to_vec());
    let state_weights = match cell {
        Cell::Gru { linear_before_reset: false } => {
            let (gates, candidate) = state_weight.split_at(2 * n_hidden * n_hidden);
            vec![matrix(gates), matrix(candidate)]
        }
        _ => vec![matrix(&state_weight)],
    };
    Ok(Direction {
        cell,
        extents,
        backwards,
        clip: node.optional_float("clip")?.filter(|clip| *clip > 0.0),
        functions: functions(node, index, cell.usual_functions())?,
        input_weight: Array::floats([rows, 1, 1, n_inputs], input_weight),
        state_weights,
        input_bias,
        state_bias,
        peepholes,
    })
}

/// The first state of one direction as `[1, 1, batch, hidden]`; `None` if it is absent or zero.
fn first_state(
    lo: &mut Lowering,
    node: &Node<'_>,
    operand: usize,
    index: usize,
    extents: &Extents,
) -> Lowered<Option<ValueId>> {
    let Some(given) = node.optional_input(operand) else { return Ok(None) };
    let Extents { n_batch, n_hidden, .. } = *extents;
    let batch_first = node.flag("layout", false)?;
    let &[a, b, c] = given.shape() else { invalid!("a first state of shape {:?}", given.shape()) };
    let [n_directions, batch] = if batch_first { [b, a] } else { [a, b] };
    if [batch, c] != [n_batch, n_hidden] || index >= n_directions {
        invalid!("a first state of shape {:?} for {n_batch} sequences of {n_hidden} units", given.shape());
    }
    let shape = [1, 1, n_batch, n_hidden];
    match given {
        Value::Const(array) => {
            let array = if batch_first { array.transposed(&[1, 0, 2]) } else { array.as_ref().clone() };
            let size = strides(&array.shape)[0];
            let own = array.as_floats()?[index * size..(index + 1) * size].to_vec();
            let is_zero = own.iter().all(|&v| v == 0.0);
            Ok((!is_zero).then(|| lo.em.floats(shape, own)))
        }
        Value::View(view) => {
            let view = if batch_first { view.transposed(&[1, 0, 2]) } else { view.clone() };
            let whole = lo.in_order_as(&view, &[0, 1, 2], &[1, n_directions, n_batch, n_hidden]);
            Ok(Some(lo.em.slice_axis(whole, 1, index, 1)))
        }
    }
}

impl Direction {
    /// Runs the sequences of a batch.
    fn run(&self, em: &mut Emitter, input: ValueId, first: State, lengths: &[usize]) -> Lowered<Results> {
        let weight = em.array(self.input_weight.clone())?;
        let bias = em.floats([self.input_bias.len()], self.input_bias.clone());
        let gates = em.conv2d(input, weight, bias, &POINT);
        let weights = self.weights(em)?;
        if lengths.iter().all(|length| *length == lengths[0]) {
            return Ok(self.run_alike(em, &weights, gates, first, lengths[0]));
        }
        let mut parts = Vec::new();
        for (index, &length) in lengths.iter().enumerate() {
            let own = State {
                hidden: first.hidden.map(|value| em.slice_axis(value, 2, index, 1)),
                cell: first.cell.map(|value| em.slice_axis(value, 2, index, 1)),
            };
            let gates = em.slice_axis(gates, 2, index, 1);
            parts.push(self.run_alike(em, &weights, gates, own, length));
        }
        let all: Vec<ValueId> = parts.iter().map(|part| part.all).collect();
        let hidden: Option<Vec<ValueId>> = parts.iter().map(|part| part.last.hidden).collect();
        let cell: Option<Vec<ValueId>> = parts.iter().map(|part| part.last.cell).collect();
        let last = State {
            hidden: hidden.map(|values| em.concat(&values, 2)),
            cell: cell.map(|values| em.concat(&values, 2)),
        };
        Ok(Results { all: em.concat(&all, 2), last })
    }

    /// Emits the constants of the steps.
    fn weights(&self, em: &mut Emitter) -> Lowered<Weights> {
        let mut products = Vec::new();
        let mut bias = &self.state_bias[..];
        for weight in &self.state_weights {
            let (own, rest) = bias.split_at(weight.shape[0]);
            let weight = em.array(weight.clone())?;
            products.push(Product { weight, bias: em.floats([own.len()], own.to_vec()) });
            bias = rest;
        }
        let n_hidden = self.extents.n_hidden;
        let peepholes = self.peepholes.clone();
        let peepholes = peepholes.map(|gates| gates.map(|gate| em.floats([1, 1, 1, n_hidden], gate)));
        Ok(Weights { products, peepholes })
    }

    /// Runs sequences of `length` steps, of which `gates` are the products of the inputs.
    fn run_alike(
        &self,
        em: &mut Emitter,
        weights: &Weights,
        gates: ValueId,
        first: State,
        length: usize,
    ) -> Results {
        let mut state = first;
        let mut made = Vec::new();
        for step in 0..length {
            let at = if self.backwards { length - 1 - step } else { step };
            let row = em.slice_axis(gates, 1, at, 1);
            state = match self.cell {
                Cell::Rnn => self.rnn_step(em, weights, row, state),
                Cell::Gru { linear_before_reset } => {
                    self.gru_step(em, weights, row, state, linear_before_reset)
                }
                Cell::Lstm { coupled } => self.lstm_step(em, weights, row, state, coupled),
            };
            made.extend(state.hidden);
        }
        if self.backwards {
            made.reverse();
        }
        let all = em.concat(&made, 1);
        let all = em.pad_axis(all, 1, (0, self.extents.n_steps - length), 0.0);
        Results { all, last: state }
    }

    /// The sum of a step's input product and the product of a state.
    fn with_state(
        &self,
        em: &mut Emitter,
        input: ValueId,
        product: Product,
        state: Option<ValueId>,
    ) -> ValueId {
        let Some(state) = state else { return input };
        let term = em.conv2d(state, product.weight, product.bias, &POINT);
        em.add(input, term)
    }

    fn gate(&self, em: &mut Emitter, gates: ValueId, index: usize) -> ValueId {
        let n = self.extents.n_hidden;
        em.slice_axis(gates, 3, index * n, n)
    }

    /// Clips, and applies one of the direction's functions.
    fn activated(&self, em: &mut Emitter, x: ValueId, function: usize) -> ValueId {
        let x = self.clip.map_or(x, |clip| em.clamp(x, -clip, clip));
        self.functions[function].emit(em, x)
    }

    fn rnn_step(&self, em: &mut Emitter, weights: &Weights, input: ValueId, state: State) -> State {
        let sum = self.with_state(em, input, weights.products[0], state.hidden);
        State { hidden: Some(self.activated(em, sum, 0)), cell: None }
    }

    /// Gates are in the order update, reset, candidate.
    fn gru_step(
        &self,
        em: &mut Emitter,
        weights: &Weights,
        input: ValueId,
        state: State,
        linear_before_reset: bool,
    ) -> State {
        let n = self.extents.n_hidden;
        let from_input = self.gate(em, input, 2);
        let (update, candidate) = if linear_before_reset {
            let product = weights.products[0];
            // A state of zero still leaves the bias of what is reset.
            let term = match state.hidden {
                Some(state) => em.conv2d(state, product.weight, product.bias, &POINT),
                None => em.floats([1, 1, 1, 3 * n], self.state_bias.clone()),
            };
            let sum = em.add(input, term);
            let update = self.gate(em, sum, 0);
            let reset = self.gate(em, sum, 1);
            let reset = self.activated(em, reset, 0);
            let from_state = self.gate(em, term, 2);
            let kept = em.mul(reset, from_state);
            (update, em.add(from_input, kept))
        } else {
            let gates = em.slice_axis(input, 3, 0, 2 * n);
            let sum = self.with_state(em, gates, weights.products[0], state.hidden);
            let reset = self.gate(em, sum, 1);
            let reset = self.activated(em, reset, 0);
            let kept = state.hidden.map(|state| em.mul(reset, state));
            let update = self.gate(em, sum, 0);
            (update, self.with_state(em, from_input, weights.products[1], kept))
        };
        let update = self.activated(em, update, 0);
        let candidate = self.activated(em, candidate, 1);
        // (1 - z) * n + z * h, with one product less.
        let hidden = match state.hidden {
            None => {
                let share = one_minus(em, update);
                em.mul(share, candidate)
            }
            Some(state) => {
                let difference = em.sub(state, candidate);
                let moved = em.mul(update, difference);
                em.add(candidate, moved)
            }
        };
        State { hidden: Some(hidden), cell: None }
    }

    /// Gates are in the order input, output, forget, cell.
    fn lstm_step(
        &self,
        em: &mut Emitter,
        weights: &Weights,
        input: ValueId,
        state: State,
        coupled: bool,
    ) -> State {
        let sum = self.with_state(em, input, weights.products[0], state.hidden);
        let peep = |em: &mut Emitter, gate: ValueId, index: usize, cell: Option<ValueId>| {
            let (Some(peepholes), Some(cell)) = (&weights.peepholes, cell) else { return gate };
            let term = em.mul(cell, peepholes[index]);
            em.add(gate, term)
        };
        let gate = self.gate(em, sum, 0);
        let gate = peep(em, gate, 0, state.cell);
        let entering = self.activated(em, gate, 0);
        let gate = self.gate(em, sum, 3);
        let candidate = self.activated(em, gate, 1);
        let mut cell = em.mul(entering, candidate);
        if let Some(before) = state.cell {
            let kept = if coupled {
                one_minus(em, entering)
            } else {
                let gate = self.gate(em, sum, 2);
                let gate = peep(em, gate, 2, state.cell);
                self.activated(em, gate, 0)
            };
            let kept = em.mul(kept, before);
            cell = em.add(kept, cell);
        }
        let gate = self.gate(em, sum, 1);
        let gate = peep(em, gate, 1, Some(cell));
        let leaving = self.activated(em, gate, 0);
        let shown = self.functions[2].emit(em, cell);
        State { hidden: Some(em.mul(leaving, shown)), cell: Some(cell) }
    }
}

fn one_minus(em: &mut Emitter, x: ValueId) -> ValueId {
    let one = em.scalar_like(x, 1.0);
    em.sub(one, x)
}

/// The layer's outputs: all hidden states, the last ones, and an LSTM's last cells.
fn outputs(
    lo: &mut Lowering,
    results: &[Results],
    extents: &Extents,
    batch_first: bool,
) -> Lowered<Vec<Value>> {
    let Extents { n_steps, n_batch, n_hidden, .. } = *extents;
    let n_directions = results.len();
    let em = &mut lo.em;
    // Directions are joined as channels, which moves nothing: of the axes, the directions then lie next to
    // last.
    let all: Vec<ValueId> = results.iter().map(|result| result.all).collect();
    let all = em.concat(&all, 3);
    let shape = vec![n_steps, n_directions, n_batch, n_hidden];
    let all = View::plain(all, shape, &[0, 2, 1, 3], DataType::Float);
    let mut outputs = single(if batch_first { all.transposed(&[2, 0, 1, 3]) } else { all })?;
    let hidden: Option<Vec<ValueId>> = results.iter().map(|result| result.last.hidden).collect();
    let cell: Option<Vec<ValueId>> = results.iter().map(|result| result.last.cell).collect();
    for last in [hidden, cell].into_iter().flatten() {
        let joined = em.concat(&last, 3);
        let view = View::plain(joined, vec![n_directions, n_batch, n_hidden], &[1, 0, 2], DataType::Float);
        outputs.push(if batch_first { view.transposed(&[1, 0, 2]) } else { view }.into());
    }
    Ok(outputs)
}
