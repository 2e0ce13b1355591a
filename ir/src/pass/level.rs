//! The named levels of the IR, and how a module says which it is at.

use std::fmt;

use crate::{Attribute, ElemType, Module, Op};

/// A level of the IR. From [`Quant`](Level::Quant) on, every level computes the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// `tosa` in f32, as imported.
    Import,
    /// `tosa` in integers: the arithmetic is fixed.
    Quant,
    /// What one hardware stage runs stands in a `strata.stage`.
    Stages,
    /// What runs together stands in a `strata.phase`.
    Phases,
    /// Rings, addresses, transfers and their order are decided.
    Sched,
    /// The instruction stream.
    Program,
}

/// The attribute of the module op that names its level.
const LEVEL_ATTR: &str = "strata.level";

impl Level {
    /// Every level, in order.
    pub const ALL: [Self; 6] =
        [Self::Import, Self::Quant, Self::Stages, Self::Phases, Self::Sched, Self::Program];

    /// Its name on the command line and in dumps.
    pub fn name(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Quant => "quant",
            Self::Stages => "stages",
            Self::Phases => "phases",
            Self::Sched => "sched",
            Self::Program => "program",
        }
    }

    /// The level of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// The level a module says it is at, or, for one that does not say (an importer's, or one written by
    /// hand), the first whose ops it holds.
    pub fn of(module: &Module) -> Self {
        let marked = match module.op(module.top()).extra.get(LEVEL_ATTR) {
            Some(Attribute::Str(name)) => Self::from_name(name),
            _ => None,
        };
        marked.unwrap_or_else(|| Self::infer(module))
    }

    fn infer(module: &Module) -> Self {
        let mut level = Self::Import;
        for op in module.walk(module.body()) {
            let data = module.op(op);
            let seen = match &data.op {
                Op::Phase(_) => Self::Phases,
                Op::Stage(_) => Self::Stages,
                Op::Const(_) | Op::ConstShape(_) => continue,
                _ => {
                    let is_narrow = |v: &_| {
                        let ty = module.ty(*v).as_tensor();
                        ty.is_some_and(|ty| matches!(ty.elem, ElemType::I8 | ElemType::I16))
                    };
                    if data.results().iter().any(is_narrow) { Self::Quant } else { Self::Import }
                }
            };
            level = level.max(seen);
        }
        // Integer products of a quantised model are not yet the machine's: their results are cast to floats.
        if level == Self::Quant && Self::casts(module) { Self::Import } else { level }
    }

    /// Whether `@main` casts between integers and floats.
    fn casts(module: &Module) -> bool {
        let Some(func) = module.function("main") else { return false };
        module.block_ops(module.entry_block(func)).iter().any(|&op| {
            let data = module.op(op);
            let is_f32 = |v: &_| module.ty(*v).as_tensor().is_some_and(|t| t.elem == ElemType::F32);
            matches!(data.op, Op::Cast(_)) && data.results().iter().chain(data.operands()).any(is_f32)
        })
    }

    /// Marks a module as being at this level.
    pub fn mark(self, module: &mut Module) {
        let top = module.top();
        module.op_mut(top).extra.insert(LEVEL_ATTR.to_owned(), Attribute::Str(self.name().to_owned()));
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
