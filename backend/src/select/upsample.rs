//! Upsamples of what TOSA does not resize: `reshape`, `tile`, `reshape`.
//!
//! TOSA's nearest resize is of `i8` and `i16`; sums in `i32` are upsampled by repeating axes of extent 1
//! behind rows and columns: `[1, h, w, c]` to `[h, 1, w, 1, c]`, that `f` times along the second and fourth
//! axis, and that to `[1, h f, w f, c]`. To the machine it is the resize that repeats every pixel, whatever
//! the element.

use cranelift_entity::SecondaryMap;
use strata_ir::{Module, Op, OpId, ValueId};
use strata_isa_spec::View;
use strata_isa_spec::inst::{Resize, ResizeMode};

/// The three ops of an upsample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Upsample {
    /// Reshape, tile, reshape.
    pub(super) ops: [OpId; 3],
    /// How often each row and each column is repeated.
    factors: [i32; 2],
}

impl Upsample {
    /// The upsample that an op is one of the three of.
    pub(super) fn of(module: &Module, users: &SecondaryMap<ValueId, Vec<OpId>>, op: OpId) -> Option<Self> {
        let is_tile = |op: &OpId| matches!(module.op(*op).op, Op::Tile(_));
        let is_reshape = |op: &OpId| matches!(module.op(*op).op, Op::Reshape(_));
        let source = |op: OpId| module.op(op).operands().first().copied();
        let only_user = |op: OpId| match users[module.result(op)].as_slice() {
            &[user] => Some(user),
            _ => None,
        };
        let before = |op: OpId| source(op).and_then(|value| module.defining_op(value));
        if !is_tile(&op) && !is_reshape(&op) {
            return None;
        }
        let tile = if is_tile(&op) {
            Some(op)
        } else {
            before(op).filter(is_tile).or_else(|| only_user(op).filter(is_tile))
        }?;
        let first = before(tile).filter(is_reshape).filter(|&first| only_user(first) == Some(tile))?;
        let last = only_user(tile).filter(is_reshape)?;
        let shape = |value: ValueId| module.ty(value).as_tensor().map(|ty| ty.shape.as_slice());
        let &[1, h, w, c] = shape(source(first)?)? else { return None };
        let &[_, fy, _, fx, _] = shape(module.result(tile))? else { return None };
        let fits = shape(module.result(first))? == [h, 1, w, 1, c]
            && shape(module.result(tile))? == [h, fy, w, fx, c]
            && shape(module.result(last))? == [1, h * fy, w * fx, c];
        let factor = |f: usize| i32::try_from(f).ok().filter(|f| (1..=1024).contains(f));
        fits.then_some(())?;
        Some(Self { ops: [first, tile, last], factors: [factor(fy)?, factor(fx)?] })
    }

    /// The machine's head: position `o` samples `(2 o - (f - 1)) / 2 f`, which is nearest to `o / f` rounded
    /// down.
    pub(super) fn head(&self) -> Resize<()> {
        let [fy, fx] = self.factors;
        Resize {
            src: View::default(),
            mode: ResizeMode::Nearest,
            scale_y_n: 2 * fy,
            scale_y_d: 2,
            scale_x_n: 2 * fx,
            scale_x_d: 2,
            offset_y: 1 - fy,
            offset_x: 1 - fx,
        }
    }
}
