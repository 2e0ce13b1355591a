//! Which function of a foreign module is compiled, and where it enters the compiler.

use std::collections::{BTreeMap, BTreeSet};

use strata_ir::attr::Attribute;
use strata_ir::diag::{Diagnostic, code};
use strata_ir::dialect::Op;
use strata_ir::verify::verify;
use strata_ir::{ElemType, Module, OpId};

use crate::import::{ImportError, Malformation, UnsupportedNode};

/// The function that the compiler takes, and the one that our own dumps keep beside it for the host.
const MAIN: &str = "main";
const HOST: &str = "host";
/// The attribute of a port that names it.
const NAME: &str = "strata.name";

/// Where a function enters the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is of floats: to be calibrated and quantised.
    Float,
    /// It is of integers: its arithmetic is fixed.
    Integer,
}

/// Brings a module that another tool wrote into the form of an import: it verifies, the function to compile
/// is called `main`, and its ports have names. That is the function of that name, or the only one there is.
///
/// # Errors
/// If the module does not verify, or it does not say which function is meant.
pub fn prepare(module: &mut Module) -> Result<(), ImportError> {
    verify(module).map_err(|found| refusal(&found.0))?;
    let functions = module.functions();
    if module.function(MAIN).is_none() {
        let [only] = functions[..] else {
            return Err(malformed(format!(
                "there are {} functions and none is called @{MAIN}: which is the network?",
                functions.len()
            )));
        };
        if let Op::Func(func) = &mut module.op_mut(only).op {
            func.sym_name = MAIN.to_owned();
        }
    }
    let others: Vec<String> = functions
        .into_iter()
        .filter_map(|func| match &module.op(func).op {
            Op::Func(data) if data.sym_name != MAIN && data.sym_name != HOST => {
                Some(format!("@{}", data.sym_name))
            }
            _ => None,
        })
        .collect();
    match others[..] {
        [] => {
            name_ports(module);
            Ok(())
        }
        _ => Err(malformed(format!("functions beside @{MAIN} have no use: {}", others.join(", ")))),
    }
}

/// Gives the ports of `main` names that differ: those that they have where they can stay, else `input0`,
/// `output0` and so on. Tensors pass between the parts of a bundle by name.
fn name_ports(module: &mut Module) {
    let Some(main) = module.function(MAIN) else { return };
    let Op::Func(func) = &module.op(main).op else { return };
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut named = |attrs: &Option<Attribute>, n: usize, what: &str| {
        let dicts = (0..n).map(|index| {
            let mut dict = match attrs {
                Some(Attribute::Array(dicts)) => match dicts.get(index) {
                    Some(Attribute::Dict(dict)) => dict.clone(),
                    _ => BTreeMap::new(),
                },
                _ => BTreeMap::new(),
            };
            let given = match dict.get(NAME) {
                Some(Attribute::Str(name)) if !name.is_empty() => name.clone(),
                _ => format!("{what}{index}"),
            };
            let mut name = given.clone();
            let mut n = 2;
            while !taken.insert(name.clone()) {
                name = format!("{given}#{n}");
                n += 1;
            }
            dict.insert(NAME.to_owned(), Attribute::Str(name));
            Attribute::Dict(dict)
        });
        Some(Attribute::Array(dicts.collect()))
    };
    let ty = &func.function_type;
    let arg_attrs = named(&func.arg_attrs, ty.inputs.len(), "input");
    let res_attrs = named(&func.res_attrs, ty.results.len(), "output");
    if let Op::Func(func) = &mut module.op_mut(main).op {
        (func.arg_attrs, func.res_attrs) = (arg_attrs, res_attrs);
    }
}

/// What is wrong with a module, as an import's error. Operands that TOSA wants to be constants unless a file
/// claims its `EXT-DYNAMIC` are valid TOSA that the IR lacks; all else is not TOSA.
fn refusal(found: &[Diagnostic]) -> ImportError {
    let is_dynamic = |d: &&Diagnostic| d.code == code::NOT_CONSTANT;
    if found.iter().all(|d| is_dynamic(&d)) {
        let nodes = found.iter().map(|d| UnsupportedNode {
            name: d.location.to_string(),
            op: "dynamic operand".to_owned(),
            domain: String::new(),
            why: d.message.clone(),
        });
        return ImportError::Unsupported(nodes.collect());
    }
    let problems = found.iter().filter(|d| !is_dynamic(d));
    ImportError::Malformed(
        problems
            .map(|d| Malformation {
                place: d.location.to_string(),
                what: format!("{} [{}]", d.message, d.code),
            })
            .collect(),
    )
}

fn malformed(what: String) -> ImportError {
    ImportError::Malformed(vec![Malformation { place: "module".to_owned(), what }])
}

/// Where the function `main` of a prepared module enters the compiler.
///
/// # Errors
/// [`ImportError::Unsupported`] if it computes with narrow integers and with floats: every op at the seams.
pub fn of(module: &Module) -> Result<Entry, ImportError> {
    let Some(main) = module.function(MAIN) else {
        return Err(malformed(format!("there is no function @{MAIN}")));
    };
    let ops = module.walk(module.entry_block(main));
    let elems = |op: &OpId| -> Vec<ElemType> {
        let data = module.op(*op);
        let values = data.operands().iter().filter(|&&v| module.constant(v).is_none()).chain(data.results());
        values.filter_map(|&v| module.ty(v).as_tensor()).map(|t| t.elem).collect()
    };
    let computing: Vec<OpId> = ops.into_iter().filter(|&op| !module.op(op).op.is_constant()).collect();
    let is_float = |op: &&OpId| elems(op).iter().any(|e| e.is_float());
    if !computing.iter().any(|op| is_float(&op)) {
        return Ok(Entry::Integer);
    }
    let is_narrow = |e: &ElemType| matches!(e, ElemType::I8 | ElemType::I16 | ElemType::I48);
    let seams: Vec<UnsupportedNode> = computing
        .iter()
        .filter(|op| elems(op).iter().any(is_narrow))
        .map(|&op| {
            let data = module.op(op);
            UnsupportedNode {
                name: data.loc.name().unwrap_or("(unnamed)").to_owned(),
                op: data.op.name().to_owned(),
                domain: String::new(),
                why: "it computes with narrow integers in a function that computes with floats too"
                    .to_owned(),
            }
        })
        .collect();
    if seams.is_empty() { Ok(Entry::Float) } else { Err(ImportError::Unsupported(seams)) }
}

/// Names a function's ports by dictionaries of `strata.name`.
pub(super) fn named(names: &[&str]) -> Attribute {
    let dict = |name: &&str| {
        Attribute::Dict(
            [("strata.name".to_owned(), Attribute::Str((*name).to_owned()))].into_iter().collect(),
        )
    };
    Attribute::Array(names.iter().map(dict).collect())
}
