//! Which activations are 16-bit.
//!
//! A choice is keyed by the order of the calibration's values, so that what was found on a network at one
//! input size can be applied to the same network at another. Values that share a scale share an element type:
//! choosing one chooses all.

use std::collections::BTreeSet;

use strata_ir::{Module, OpId, ValueId};

use crate::quantise::calibrate::observed_values;

/// The element types of activations.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// All are `i8`.
    #[default]
    Int8,
    /// All are `i16`.
    Int16,
    /// Some are `i16`: those at these places in the order of a calibration, and what shares their scales.
    Mixed(BTreeSet<usize>),
}

impl Precision {
    /// The precision with the results of the layers of some names (or arguments of these names) `i16`.
    ///
    /// # Errors
    /// The names that nothing has.
    pub fn with_layers(self, module: &Module, func: OpId, names: &[String]) -> Result<Self, Vec<String>> {
        let values = observed_values(module, module.entry_block(func));
        let mut unknown = Vec::new();
        let mut chosen = BTreeSet::new();
        for name in names {
            let places = (values.iter().enumerate())
                .filter(|(_, (value, _))| layer_of(module, func, *value).as_deref() == Some(name.as_str()))
                .map(|(place, _)| place);
            let before = chosen.len();
            chosen.extend(places);
            if chosen.len() == before {
                unknown.push(name.clone());
            }
        }
        match (unknown.is_empty(), self) {
            (false, _) => Err(unknown),
            (true, Self::Int16) => Ok(Self::Int16),
            (true, Self::Int8) if names.is_empty() => Ok(Self::Int8),
            (true, Self::Int8) => Ok(Self::Mixed(chosen)),
            (true, Self::Mixed(found)) => Ok(Self::Mixed(&found | &chosen)),
        }
    }

    /// The values of a function that are to be `i16`; what shares their scales is not among them yet.
    pub(super) fn wide_values(&self, module: &Module, func: OpId) -> BTreeSet<ValueId> {
        let values = observed_values(module, module.entry_block(func)).into_iter().enumerate();
        let is_wide = |place: &usize| match self {
            Self::Int8 => false,
            Self::Int16 => true,
            Self::Mixed(places) => places.contains(place),
        };
        values.filter(|(place, _)| is_wide(place)).map(|(_, (value, _))| value).collect()
    }
}

/// The name of the layer whose result a value is, or of the argument.
pub(super) fn layer_of(module: &Module, func: OpId, value: ValueId) -> Option<String> {
    if let Some(op) = module.defining_op(value) {
        return module.op(op).loc.name().map(str::to_owned);
    }
    let strata_ir::Op::Func(function) = &module.op(func).op else { return None };
    let index = module.args(module.entry_block(func)).iter().position(|&arg| arg == value)?;
    match crate::quantise::dictionary(function.arg_attrs.as_ref(), index).get("strata.name")? {
        strata_ir::Attribute::Str(name) => Some(name.clone()),
        _ => None,
    }
}
