//! How each ONNX operator becomes TOSA: one row an operator in [`OPS`], one function a row.
//!
//! A lowering takes a [`Node`] with resolved operands and returns its outputs. It asks the [`Lowering`] for
//! operands in the layout it wants and says in which layout its results lie; it never looks at the graph
//! around the node. Patterns across nodes (batch norm after a convolution) are folded afterwards, by
//! [`super::affine`].

mod batch_training;
mod compose;
mod conv;
mod conv_transpose;
mod einsum;
mod elementwise;
mod grid_sample;
mod index;
mod integer;
mod integer_product;
mod linear;
mod microsoft;
mod norm;
mod order;
mod pool;
mod quantised;
mod recurrent;
mod recurrent_functions;
mod reduce;
mod resample;
mod resize;
mod shape;
mod unpool;

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_ir::{Module, Type, ValueId};
use tract_onnx::pb::tensor_proto::DataType;

use super::array::{Array, broadcast_shape};
use super::emit::Emitter;
use super::error::{Lowered, invalid, unsupported};
use super::graph::Node;
use super::layout::{Relayouts, Value, View, channels_last};
pub(super) use quantised::dequantise;
pub(super) use reduce::reduced_axes;

/// The function that lowers a node of one operator.
pub(super) type LowerFn = fn(&mut Lowering, &Node<'_>) -> Lowered<Vec<Value>>;

/// An ONNX operator that the importer knows.
#[derive(Clone, Copy)]
pub struct OpSupport {
    /// The operator.
    pub name: &'static str,
    /// Its domain; empty for ONNX's own.
    pub domain: &'static str,
    /// The first version of the operator set whose definition is understood.
    pub since_opset: i64,
    /// What is supported of it.
    pub notes: &'static str,
    pub(super) lower: LowerFn,
}

impl std::fmt::Debug for OpSupport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (opset {}): {}", self.name, self.since_opset, self.notes)
    }
}

/// Every operator that the importer knows: those of ONNX's own domain by name, then those of others.
pub fn supported_ops() -> impl Iterator<Item = &'static OpSupport> {
    OPS.iter().chain(microsoft::OPERATORS)
}

/// The row of an operator.
pub(super) fn find(domain: &str, op_type: &str) -> Option<&'static OpSupport> {
    let table = match domain {
        "" => OPS,
        MICROSOFT_DOMAIN => microsoft::OPERATORS,
        _ => return None,
    };
    table.binary_search_by(|op| op.name.cmp(op_type)).ok().map(|at| &table[at])
}

/// The domain of onnxruntime's own operators.
pub(super) const MICROSOFT_DOMAIN: &str = "com.microsoft";

macro_rules! table {
    ($domain:expr, $($name:ident since $since:literal, $lower:path, $notes:literal;)+) => {
        &[$($crate::import::lower::OpSupport {
            name: stringify!($name),
            domain: $domain,
            since_opset: $since,
            notes: $notes,
            lower: $lower,
        }),+]
    };
}
use table;

const OPS: &[OpSupport] = table! {
    "",
    Abs since 1, elementwise::unary, "f32; i8, i16, i32, wrapping";
    Add since 1, elementwise::binary, "f32; integers of up to 32 bits, wrapping";
    And since 1, elementwise::binary, "";
    ArgMax since 1, order::arg_extreme, "f32; integers of up to 16 bits";
    ArgMin since 1, order::arg_extreme, "f32; integers of up to 16 bits";
    AveragePool since 1, pool::average, "1-D to 3-D; dilated";
    BatchNormalization since 1, norm::batch, "folded into a convolution before it; in training mode as \
        reductions";
    BitShift since 11, integer::bit_shift, "u8, u16; constant amounts";
    BitwiseNot since 18, integer::bitwise_not, "integers of up to 32 bits";
    Cast since 1, elementwise::cast, "between f32, bool and integers other than u32 and u64; integers wrap";
    CastLike since 15, elementwise::cast, "as Cast";
    Ceil since 1, elementwise::unary, "";
    Celu since 12, elementwise::unary, "";
    Clip since 1, elementwise::clip, "constant bounds";
    Concat since 1, shape::concat, "a constant of one repeated value becomes padding";
    Constant since 1, shape::folded, "tensors, sparse ones too, and numbers";
    ConstantOfShape since 9, shape::folded, "constant shape";
    Conv since 1, conv::conv, "1-D to 3-D; grouped, depthwise, dilated; constant weights";
    ConvInteger since 10, integer_product::conv_integer,
        "1-D and 2-D; constant weights; one zero point a tensor";
    ConvTranspose since 1, conv_transpose::conv_transpose, "1-D to 3-D; grouped, dilated; constant weights";
    Cos since 7, elementwise::unary, "";
    CumSum since 11, index::cumulative_sum, "f32, by a product with a triangle of ones; integers of up to \
        32 bits along up to 64";
    DepthToSpace since 1, shape::depth_to_space, "DCR and CRD";
    DequantizeLinear since 10, quantised::dequantize_linear, "4, 8, 16 and 32 bits; constant scales";
    Div since 1, elementwise::binary, "f32; integers of up to 32 bits, truncating";
    Dropout since 1, shape::identity, "inference";
    DynamicQuantizeLinear since 11, quantised::dynamic_quantize_linear, "";
    Einsum since 12, einsum::einsum, "f32; no diagonals; transposes and matrix products";
    Elu since 1, elementwise::unary, "";
    Equal since 1, elementwise::binary, "";
    Erf since 9, elementwise::unary, "";
    Exp since 1, elementwise::unary, "";
    Expand since 8, shape::expand, "constant shape";
    EyeLike since 9, index::eye_like, "";
    Flatten since 1, shape::reshape, "";
    Floor since 1, elementwise::unary, "";
    GRU since 7, recurrent::recurrent, "constant weights and lengths; unrolled, up to 1024 steps";
    Gather since 1, index::gather, "few runs of constant indices are slices";
    GatherElements since 11, index::gather_elements, "";
    GatherND since 11, index::gather_nd, "";
    Gelu since 20, elementwise::unary, "exact and tanh";
    Gemm since 1, linear::gemm, "";
    GlobalAveragePool since 1, pool::global_average, "";
    GlobalLpPool since 2, pool::global_lp, "";
    GlobalMaxPool since 1, pool::global_max, "";
    Greater since 1, elementwise::binary, "";
    GreaterOrEqual since 12, elementwise::binary, "";
    GridSample since 16, grid_sample::grid_sample, "2-D and 3-D; cubic in 2-D";
    GroupNormalization since 18, norm::group, "constant scale and bias";
    HardSigmoid since 1, elementwise::unary, "";
    HardSwish since 14, elementwise::unary, "";
    Identity since 1, shape::identity, "";
    InstanceNormalization since 1, norm::instance, "constant scale and bias";
    IsInf since 10, elementwise::unary, "f32";
    IsNaN since 9, elementwise::unary, "f32";
    LRN since 1, norm::lrn, "odd sizes and even ones";
    LSTM since 7, recurrent::recurrent, "constant weights and lengths; unrolled, up to 1024 steps";
    LayerNormalization since 1, norm::layer, "constant scale and bias; before operator set 17 as \
        onnxruntime writes it";
    LeakyRelu since 1, elementwise::unary, "";
    Less since 1, elementwise::binary, "";
    LessOrEqual since 12, elementwise::binary, "";
    Log since 1, elementwise::unary, "";
    LogSoftmax since 1, reduce::softmax, "";
    LpNormalization since 1, norm::lp, "";
    LpPool since 2, pool::lp, "1-D to 3-D; dilated";
    MatMul since 1, linear::matmul, "a constant right side becomes a 1x1 convolution";
    MatMulInteger since 10, integer_product::matmul_integer, "constant right side; one zero point a tensor";
    Max since 1, elementwise::variadic, "";
    MaxPool since 1, pool::max, "1-D to 3-D; dilated; indices by comparing tap after tap";
    MaxUnpool since 9, unpool::max_unpool, "indices of a MaxPool of the graph whose windows do not overlap";
    Mean since 1, elementwise::variadic, "";
    MeanVarianceNormalization since 9, norm::mean_variance, "";
    Min since 1, elementwise::variadic, "";
    Mish since 18, elementwise::unary, "";
    Mod since 10, integer::modulo, "integers other than u32 and u64";
    Mul since 1, elementwise::binary, "f32; integers of up to 32 bits, wrapping";
    Neg since 1, elementwise::unary, "f32; i8, i16, i32, wrapping";
    Not since 1, elementwise::unary, "";
    OneHot since 9, index::one_hot, "constant depth";
    Or since 1, elementwise::binary, "";
    PRelu since 1, elementwise::prelu, "";
    Pad since 1, shape::pad, "constant, reflect, edge, wrap; constant amounts; negative ones crop";
    Pow since 1, elementwise::binary, "f32, to floats and integers";
    QLinearConv since 10, quantised::conv, "as Conv";
    QLinearMatMul since 10, quantised::matmul, "as MatMul";
    QuantizeLinear since 10, quantised::quantize_linear, "4, 8 and 16 bits; constant scales";
    RMSNormalization since 23, norm::rms, "constant scale";
    RNN since 7, recurrent::recurrent, "constant weights and lengths; unrolled, up to 1024 steps";
    Range since 11, shape::folded, "constant";
    Reciprocal since 1, elementwise::unary, "";
    ReduceL1 since 1, reduce::reduce, "f32";
    ReduceL2 since 1, reduce::reduce, "f32";
    ReduceLogSum since 1, reduce::reduce, "f32";
    ReduceLogSumExp since 1, reduce::reduce, "f32";
    ReduceMax since 1, reduce::reduce, "f32, bool, integers other than u32 and u64";
    ReduceMean since 1, reduce::reduce, "f32";
    ReduceMin since 1, reduce::reduce, "f32, bool, integers other than u32 and u64";
    ReduceProd since 1, reduce::reduce, "f32";
    ReduceSum since 1, reduce::reduce, "f32, i32";
    ReduceSumSquare since 1, reduce::reduce, "f32";
    Relu since 1, elementwise::unary, "f32; i8, i16, i32";
    Reshape since 1, shape::reshape, "constant shape";
    Resize since 10, resize::resize, "every mode, any axes; beyond TOSA's RESIZE as products with constant \
        matrices";
    Round since 11, elementwise::unary, "half to even";
    ScatterElements since 11, index::scatter_elements, "constant indices; reductions of f32";
    ScatterND since 11, index::scatter_nd, "constant indices; reductions of f32";
    Selu since 1, elementwise::unary, "";
    Shape since 1, shape::folded, "";
    Shrink since 9, elementwise::unary, "f32";
    Sigmoid since 1, elementwise::unary, "";
    Sign since 9, elementwise::unary, "f32; i8, i16, i32";
    SimplifiedLayerNormalization since 1, norm::rms, "as onnxruntime writes it; constant scale";
    Sin since 7, elementwise::unary, "";
    Size since 1, shape::folded, "";
    Slice since 1, shape::slice, "constant bounds, any step";
    Softmax since 1, reduce::softmax, "";
    Softplus since 1, elementwise::unary, "";
    Softsign since 1, elementwise::unary, "";
    SpaceToDepth since 1, shape::space_to_depth, "";
    Split since 1, shape::split, "constant sizes";
    Sqrt since 1, elementwise::unary, "";
    Squeeze since 1, shape::reshape, "constant axes";
    Sub since 1, elementwise::binary, "f32; integers of up to 32 bits, wrapping";
    Sum since 1, elementwise::variadic, "";
    Swish since 24, elementwise::unary, "";
    Tanh since 1, elementwise::unary, "";
    ThresholdedRelu since 10, elementwise::unary, "";
    Tile since 6, shape::tile, "constant repeats";
    TopK since 1, order::top_k, "constant k; more than one of up to 512 elements";
    Transpose since 1, shape::transpose, "";
    Trilu since 14, index::trilu, "constant diagonal";
    Unsqueeze since 1, shape::reshape, "constant axes";
    Upsample since 7, resize::upsample, "as Resize, asymmetric";
    Where since 9, elementwise::select, "";
    Xor since 1, elementwise::binary, "";
};

/// Operands of an elementwise op brought into one layout.
pub(super) struct Aligned {
    /// The IR values, of equal rank.
    pub(super) values: Vec<ValueId>,
    shape: Vec<usize>,
    /// The external axis of each IR axis.
    axes: Vec<Option<usize>>,
    /// The operand whose layout the result takes over unchanged, if there is one.
    like: Option<View>,
}

impl Aligned {
    /// The result of an elementwise op on the values.
    pub(super) fn result(&self, value: ValueId, dtype: DataType) -> Value {
        Value::View(match &self.like {
            Some(view) => view.with_value(value, dtype),
            None => {
                let perm: Vec<_> = self.axes.iter().copied().flatten().collect();
                View::plain(value, self.shape.clone(), &perm, dtype)
            }
        })
    }
}

/// The state of an import: the module under construction, and layouts already made.
pub(super) struct Lowering {
    pub(super) em: Emitter,
    relayouts: Relayouts,
    /// What indices of max pools were computed from.
    pooled: BTreeMap<ValueId, unpool::PooledFrom>,
    /// Emitted constants by the address of their array, which is held so that no other takes it.
    constants: BTreeMap<usize, (Arc<Array>, View)>,
}

impl Lowering {
    /// A lowering into a new function `main` with arguments of these types.
    pub(super) fn new(args: Vec<Type>) -> Self {
        let mut module = Module::new();
        let ty = strata_ir::attr::FunctionType { inputs: args, results: Vec::new() };
        let (_, block) = module.add_function("main", ty);
        Self {
            em: Emitter::new(module, block),
            relayouts: Relayouts::default(),
            pooled: BTreeMap::new(),
            constants: BTreeMap::new(),
        }
    }

    /// A value as a view; a constant is emitted.
    pub(super) fn view(&mut self, value: &Value) -> Lowered<View> {
        let array = match value {
            Value::View(view) => return Ok(view.clone()),
            Value::Const(array) => array,
        };
        let key = Arc::as_ptr(array) as usize;
        if let Some((_, view)) = self.constants.get(&key) {
            return Ok(view.clone());
        }
        if array.len() == 0 {
            unsupported!("an empty constant is used at run time");
        }
        let id = self.em.array(Array::clone(array))?;
        let identity: Vec<_> = (0..array.shape.len()).collect();
        let view = View::plain(id, array.shape.clone(), &identity, array.dtype);
        self.constants.insert(key, (Arc::clone(array), view.clone()));
        Ok(view)
    }

    /// As [`view`](Self::view), for what the function returns: it may have no elements.
    pub(super) fn result_view(&mut self, value: &Value) -> Lowered<View> {
        match value {
            Value::Const(array) if array.len() == 0 => {
                let id = self.em.array(Array::clone(array))?;
                let identity: Vec<_> = (0..array.shape.len()).collect();
                Ok(View::plain(id, array.shape.clone(), &identity, array.dtype))
            }
            _ => self.view(value),
        }
    }

    /// A view's data with its axes in the order of `perm`.
    pub(super) fn in_order(&mut self, view: &View, perm: &[usize]) -> ValueId {
        let shape = view.permuted_shape(perm);
        self.relayouts.materialise(&mut self.em, view, perm, &shape)
    }

    /// A view's data with its axes in the order of `perm`, as an IR value of another shape of the same
    /// elements.
    pub(super) fn in_order_as(&mut self, view: &View, perm: &[usize], shape: &[usize]) -> ValueId {
        self.relayouts.materialise(&mut self.em, view, perm, shape)
    }

    /// A view's data in ONNX's own order.
    pub(super) fn external(&mut self, view: &View) -> ValueId {
        let identity: Vec<_> = (0..view.shape.len()).collect();
        self.in_order(view, &identity)
    }

    /// The data in whatever order they lie, if each axis is in one piece, else in the order that spatial ops
    /// want; and that order.
    pub(super) fn in_natural_order(&mut self, view: &View) -> (ValueId, Vec<usize>) {
        let perm = view.natural_perm(&self.em).unwrap_or_else(|| channels_last(view.shape.len()));
        (self.in_order(view, &perm), perm)
    }

    /// The operand of a spatial op as `[N,H,W,C]`; a 1-D one gets a height of 1.
    pub(super) fn nhwc(&mut self, value: &Value) -> Lowered<ValueId> {
        let view = self.view(value)?;
        if view.dtype != DataType::Float {
            unsupported!("spatial operators on {:?}", view.dtype);
        }
        let shape = match view.shape[..] {
            [n, c, h, w] => [n, h, w, c],
            [n, c, w] => [n, 1, w, c],
            [_, _, _, _, _] => unsupported!("3-D spatial operators"),
            ref other => invalid!("a spatial operator on shape {other:?}"),
        };
        Ok(self.in_order_as(&view, &channels_last(view.shape.len()), &shape))
    }

    /// An `[N,H,W,C]` value as the ONNX tensor that it is: of rank 4, or 3 where the height of 1 was added.
    pub(super) fn nhwc_result(&self, value: ValueId, rank: usize) -> Value {
        let &[n, h, w, c] = self.em.shape(value) else { unreachable!("spatial ops give values of rank 4") };
        let shape = if rank == 3 { vec![n, c, w] } else { vec![n, c, h, w] };
        View::plain(value, shape, &channels_last(rank), DataType::Float).into()
    }

    /// Brings operands that broadcast into one layout: that of the first operand of the full shape, else that
    /// of the largest.
    pub(super) fn align(&mut self, operands: &[Value]) -> Lowered<Aligned> {
        let shape = broadcast_shape(operands.iter().map(Value::shape))?;
        let rank = shape.len();
        let extended = |view: &View| {
            let mut lead = vec![1; rank - view.shape.len()];
            lead.extend(&view.shape);
            view.reshaped(&lead)
        };
        let views: Vec<View> = operands
            .iter()
            .filter_map(|operand| if let Value::View(view) = operand { extended(view) } else { None })
            .collect();
        let full = views.iter().find(|v| v.shape == shape);
        if let Some(like) = full.cloned() {
            let simple = |operand: &Value| match operand {
                Value::View(view) => extended(view).is_some_and(|v| v.same_layout(&like)),
                Value::Const(array) => array.len() == 1,
            };
            if operands.iter().all(simple) {
                let ir_shape = self.em.shape(like.value).to_vec();
                let axes = Vec::new();
                let mut values = Vec::new();
                for operand in operands {
                    values.push(match operand {
                        Value::View(view) => self.em.reshape(view.value, &ir_shape),
                        Value::Const(array) => self.em.array(array.reshaped(vec![1; ir_shape.len()]))?,
                    });
                }
                return Ok(Aligned { values, shape, axes, like: Some(like) });
            }
        }
        let leader = full.or_else(|| views.iter().max_by_key(|v| v.shape.iter().product::<usize>()));
        let kept = full.and_then(|view| view.ir_axes(&self.em));
        let axes = kept.unwrap_or_else(|| {
            let perm = leader.and_then(|v| v.natural_perm(&self.em)).unwrap_or_else(|| channels_last(rank));
            perm.into_iter().map(Some).collect()
        });
        let perm: Vec<_> = axes.iter().copied().flatten().collect();
        let missing: Vec<_> = (0..rank).filter(|axis| !perm.contains(axis)).collect();
        let flat = flattened(operands, &shape, &axes);
        let mut values = Vec::new();
        for operand in operands {
            match operand {
                Value::View(view) => {
                    let Some(view) = extended(view) else { invalid!("unit axes cannot be added") };
                    let own: Vec<_> = axes.iter().map(|axis| axis.map_or(1, |a| view.shape[a])).collect();
                    let ir_shape = flat.as_ref().map_or(own, |flat| flat.shape.clone());
                    values.push(self.in_order_as(&view, &perm, &ir_shape));
                }
                Value::Const(array) => {
                    let mut lead = vec![1; rank - array.shape.len()];
                    lead.extend(&array.shape);
                    let ir_shape: Vec<_> = axes.iter().map(|axis| axis.map_or(1, |a| lead[a])).collect();
                    let full_perm: Vec<_> = missing.iter().chain(&perm).copied().collect();
                    let array = array.reshaped(lead).transposed(&full_perm).reshaped(ir_shape);
                    let array = flat.as_ref().map_or_else(|| array.clone(), |flat| flat.constant(&array));
                    values.push(self.em.array(array)?);
                }
            }
        }
        Ok(Aligned { values, shape, axes, like: None })
    }

    /// Applies a unary emission to a tensor, in whatever layout it has.
    pub(super) fn map(
        &mut self,
        value: &Value,
        apply: impl FnOnce(&mut Emitter, ValueId) -> ValueId,
    ) -> Lowered<Value> {
        let view = self.view(value)?;
        let out = apply(&mut self.em, view.value);
        Ok(view.with_value(out, view.dtype).into())
    }
}

/// Elements up to which a constant is spread over the axes behind those that it varies along.
const MAX_SPREAD: usize = 1 << 20;

/// How operands lie whose constants vary along other axes than the last: from the first such axis on all axes
/// are one, the last. So every constant has one number or one for each channel, which is what a machine can
/// do something with.
struct Flattened {
    /// The axes as they are without.
    whole: Vec<usize>,
    /// The first axis that is taken into the last.
    first: usize,
    /// The extents of the operands that are computed at run time.
    shape: Vec<usize>,
}

/// The layout for operands that broadcast to `shape`, whose axes lie as `axes` says; `None` if there is no
/// need, or an operand that is computed at run time has to be stretched.
fn flattened(operands: &[Value], shape: &[usize], axes: &[Option<usize>]) -> Option<Flattened> {
    let rank = shape.len();
    let extent_in = |operand: &Value, axis: Option<usize>| {
        let own = operand.shape();
        axis.and_then(|axis| (axis + own.len()).checked_sub(rank)).map_or(1, |axis| own[axis])
    };
    let mut first = axes.len();
    for operand in operands {
        match operand {
            Value::View(view) if view.shape.iter().product::<usize>() == shape.iter().product::<usize>() => {}
            Value::View(_) => return None,
            Value::Const(_) => {
                let varies = axes.iter().position(|&axis| extent_in(operand, axis) > 1);
                first = first.min(varies.unwrap_or(axes.len()));
            }
        }
    }
    let whole: Vec<usize> = axes.iter().map(|axis| axis.map_or(1, |a| shape[a])).collect();
    let spread: usize = whole[first.min(whole.len())..].iter().product();
    let behind = whole.iter().skip(first + 1).any(|&extent| extent > 1);
    (behind && spread <= MAX_SPREAD).then(|| {
        let mut shape = whole.clone();
        shape[first..].fill(1);
        if let Some(last) = shape.last_mut() {
            *last = spread;
        }
        Flattened { whole, first, shape }
    })
}

impl Flattened {
    /// A constant as it lies here.
    fn constant(&self, array: &Array) -> Array {
        if array.len() == 1 {
            return array.clone();
        }
        let mut spread = vec![1; self.first];
        spread.extend(&self.whole[self.first..]);
        let mut shape = vec![1; self.shape.len()];
        if let (Some(last), Some(extent)) = (shape.last_mut(), self.shape.last()) {
            *last = *extent;
        }
        array.broadcast_to(&spread).reshaped(shape)
    }
}

/// The only output of most nodes.
pub(super) fn single(value: impl Into<Value>) -> Lowered<Vec<Value>> {
    Ok(vec![value.into()])
}

/// The per-channel constant of a normalisation, checked for its length.
pub(super) fn per_channel<'a>(node: &'a Node<'_>, index: usize, n: usize, what: &str) -> Lowered<&'a [f32]> {
    let array: &Array = node.constant(index, what)?;
    match array.as_floats()? {
        values if values.len() == n => Ok(values),
        values => invalid!("{what} has {} elements for {n} channels", values.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_for_lookup() {
        assert!(OPS.is_sorted_by_key(|op| op.name));
        assert!(microsoft::OPERATORS.is_sorted_by_key(|op| op.name));
        assert!(find("", "Conv").is_some() && find("", "NoSuchOp").is_none());
        assert!(find(MICROSOFT_DOMAIN, "QGemm").is_some() && find(MICROSOFT_DOMAIN, "Conv").is_none());
    }
}
