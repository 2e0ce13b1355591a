//! Which constants stand outside of the text, and their handles.
//!
//! A handle is the element type and a hash of the data: `i8_3f2a9c1b5d6e7f80`. So a constant has one handle
//! in all modules, at all levels, and one blob in a side file that they share.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::PrintOptions;
use crate::attr::{Attribute, Elements};
use crate::module::Module;
use crate::tensor::{Tensor, TensorData};
use crate::text::resources::handle;
use crate::types::ElemType;

/// A constant that stands outside.
pub(super) struct Large {
    /// Its handle.
    pub(super) name: Arc<str>,
    pub(super) tensor: Arc<Tensor>,
}

/// The handles of a module's large constants.
#[derive(Default)]
pub(super) struct Handles {
    by_data: BTreeMap<*const Tensor, Arc<str>>,
    /// In print order, each once.
    pub(super) constants: Vec<Large>,
}

impl Handles {
    pub(super) fn of(module: &Module, options: &PrintOptions) -> Self {
        let mut handles = Self::default();
        let mut by_name = BTreeMap::new();
        let top = std::iter::once(module.top());
        for op in module.walk(module.body()).into_iter().chain(top) {
            let data = module.op(op);
            let constants = data.op.constant().into_iter();
            for elements in constants.chain(data.extra.values().flat_map(elements_of)) {
                if is_large(elements, options.threshold) {
                    handles.add(&mut by_name, &elements.tensor);
                }
            }
        }
        handles
    }

    /// `by_name` says which constant a handle has.
    fn add(&mut self, by_name: &mut BTreeMap<Arc<str>, usize>, tensor: &Arc<Tensor>) {
        let key = Arc::as_ptr(tensor);
        if self.by_data.contains_key(&key) {
            return;
        }
        let (elem, bytes) = (tensor.elem(), tensor.data().bytes());
        let mut name: Arc<str> = handle(elem, &bytes, false).into();
        // Other data of the same short hash has the whole one.
        if by_name.get(&name).is_some_and(|&at| self.constants[at].tensor.data().bytes() != bytes) {
            name = handle(elem, &bytes, true).into();
        }
        by_name.entry(name.clone()).or_insert_with(|| {
            self.constants.push(Large { name: name.clone(), tensor: tensor.clone() });
            self.constants.len() - 1
        });
        self.by_data.insert(key, name);
    }

    pub(super) fn name(&self, elements: &Elements) -> Option<&str> {
        self.by_data.get(&Arc::as_ptr(&elements.tensor)).map(AsRef::as_ref)
    }
}

/// The constants in an attribute.
fn elements_of(attr: &Attribute) -> Vec<&Elements> {
    match attr {
        Attribute::Elements(elements) => vec![elements],
        Attribute::Array(items) => items.iter().flat_map(elements_of).collect(),
        Attribute::Dict(entries) => entries.values().flat_map(elements_of).collect(),
        _ => Vec::new(),
    }
}

fn is_large(elements: &Elements, threshold: usize) -> bool {
    let tensor = &elements.tensor;
    let packs_alike = !matches!(tensor.elem(), ElemType::I1 | ElemType::I48 | ElemType::Index);
    packs_alike && tensor.n_elements() > threshold && !is_splat(tensor.data())
}

/// Whether there is at least one element and all are the same, bit for bit.
pub(super) fn is_splat(data: &TensorData) -> bool {
    fn all_equal<T: PartialEq>(v: &[T]) -> bool {
        v.first().is_some_and(|first| v.iter().all(|x| x == first))
    }
    match data {
        TensorData::I1(v) => all_equal(v),
        TensorData::I8(v) => all_equal(v),
        TensorData::I16(v) => all_equal(v),
        TensorData::I32(v) => all_equal(v),
        TensorData::I48(v) | TensorData::I64(v) | TensorData::Index(v) => all_equal(v),
        TensorData::F32(v) => v.first().is_some_and(|first| v.iter().all(|x| x.to_bits() == first.to_bits())),
    }
}
