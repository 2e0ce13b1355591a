//! A TOSA graph to a function of the IR.
//!
//! The graph of a file is a list of operators that name the tensors they read and write, in any order; here
//! each follows those that it reads from. Types are those that the file declares; whether they are what TOSA
//! derives is left to the IR's verifier, which every module passes before it is used.

use std::collections::{BTreeMap, BTreeSet};

use strata_ir::attr::{Attribute, FunctionType};
use strata_ir::dialect::{FuncReturn, Op};
use strata_ir::infer::is_sane_shape;
use strata_ir::{BlockId, ElemType, Location, Module, Tensor, TensorData, TensorType, Type, ValueId};

use super::entry::named;
use super::flatbuffer::{Buffer, Malformed, Table};
use super::schema::{self, CONST, CONST_SHAPE, DTYPES, Kind, OTHER_OPERATORS, ROWS, Row};
use crate::import::{ImportError, Malformation, UnsupportedNode};

impl From<Malformed> for ImportError {
    fn from(error: Malformed) -> Self {
        let place = format!("byte {}", error.offset);
        Self::Malformed(vec![Malformation { place, what: error.what }])
    }
}

fn malformed<T>(place: impl Into<String>, what: impl Into<String>) -> Result<T, ImportError> {
    Err(ImportError::Malformed(vec![Malformation { place: place.into(), what: what.into() }]))
}

/// Reads a file.
pub(super) fn read(bytes: &[u8], file_name: &str) -> Result<Module, ImportError> {
    if !super::is_flatbuffer(bytes) {
        return malformed("file", "not a TOSA flatbuffer: the identifier `TOSA` is missing");
    }
    let buffer = Buffer::new(bytes);
    let block = main_block(&buffer)?;
    let mut graph = Graph::new(block)?;
    graph.supported()?;
    graph.emit(file_name)
}

/// The only block of the region `main`, or of the only region.
fn main_block<'b, 'a>(buffer: &'b Buffer<'a>) -> Result<Table<'b, 'a>, ImportError> {
    let root = buffer.root()?;
    let version = root.table(schema::graph::VERSION)?;
    let number = |slot| version.as_ref().map_or(Ok(-1), |table| table.i32(slot, -1));
    let (major, minor) = (number(schema::version::MAJOR)?, number(schema::version::MINOR)?);
    if major != 1 {
        return malformed("file", format!("its version is {major}.{minor}; versions 1.x are read"));
    }
    let regions = root.tables(schema::graph::REGIONS)?;
    let mut main = None;
    for region in &regions {
        if region.string(schema::region::NAME)? == Some("main") {
            main = Some(*region);
        }
    }
    let region = match (main, regions.as_slice()) {
        (Some(main), _) => main,
        (None, [only]) => *only,
        (None, regions) => {
            return malformed(
                "graph",
                format!("there are {} regions and none is called main", regions.len()),
            );
        }
    };
    let blocks = region.tables(schema::region::BLOCKS)?;
    match blocks.as_slice() {
        [block] => Ok(*block),
        blocks => malformed("region main", format!("has {} blocks, it must have one", blocks.len())),
    }
}

/// A tensor or a shape, as it is declared.
struct Declared<'a> {
    ty: Type,
    data: &'a [u8],
    has_data: bool,
}

/// An operator with the names that it reads and writes.
struct Operator<'b, 'a> {
    table: Table<'b, 'a>,
    number: u32,
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
}

impl Operator<'_, '_> {
    /// What messages call it: the number of its place and what it makes.
    fn place(&self, index: usize) -> String {
        let made = self.outputs.first().copied().unwrap_or("nothing");
        format!("operator {index} ({}, which makes `{made}`)", operator_name(self.number))
    }
}

fn operator_name(number: u32) -> String {
    let ours = ROWS.iter().find(|row| row.number == number);
    let ours = ours.map(|row| row.name.trim_start_matches("tosa.").to_uppercase());
    let other = || OTHER_OPERATORS.iter().find(|(n, _)| *n == number).map(|(_, name)| (*name).to_owned());
    let constant = || match number {
        CONST => Some("CONST".to_owned()),
        CONST_SHAPE => Some("CONST_SHAPE".to_owned()),
        _ => None,
    };
    ours.or_else(other).or_else(constant).unwrap_or_else(|| format!("operator number {number}"))
}

struct Graph<'b, 'a> {
    operators: Vec<Operator<'b, 'a>>,
    declared: BTreeMap<&'a str, Declared<'a>>,
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
    unsupported: Vec<UnsupportedNode>,
}

impl<'b, 'a> Graph<'b, 'a> {
    fn new(block: Table<'b, 'a>) -> Result<Self, ImportError> {
        let mut graph = Self {
            operators: Vec::new(),
            declared: BTreeMap::new(),
            inputs: block.strings(schema::block::INPUTS)?,
            outputs: block.strings(schema::block::OUTPUTS)?,
            unsupported: Vec::new(),
        };
        for table in block.tables(schema::block::TENSORS)? {
            let name = required(table, table.string(schema::tensor::NAME)?, "a tensor", "name")?;
            let (ty, why) = tensor_type(table)?;
            if let Some(why) = why {
                graph.decline(name, "tensor", why);
            }
            let data = table.bytes(schema::tensor::DATA)?;
            graph.declare(name, table, ty, data)?;
        }
        for table in block.tables(schema::block::SHAPES)? {
            let name = required(table, table.string(schema::shape::NAME)?, "a shape", "name")?;
            let rank = table.u32(schema::shape::RANK)? as usize;
            let data = table.bytes(schema::shape::DATA)?;
            graph.declare(name, table, Type::Shape(rank), data)?;
        }
        for table in block.tables(schema::block::OPERATORS)? {
            graph.operators.push(Operator {
                table,
                number: table.u32(schema::operator::OP)?,
                inputs: table.strings(schema::operator::INPUTS)?,
                outputs: table.strings(schema::operator::OUTPUTS)?,
            });
        }
        Ok(graph)
    }

    fn declare(
        &mut self,
        name: &'a str,
        table: Table<'b, 'a>,
        ty: Type,
        data: &'a [u8],
    ) -> Result<(), ImportError> {
        let declared = Declared { ty, data, has_data: !data.is_empty() };
        match self.declared.insert(name, declared) {
            None => Ok(()),
            Some(_) => malformed(format!("byte {}", table.offset()), format!("`{name}` is declared twice")),
        }
    }

    fn decline(&mut self, name: &str, op: &str, why: impl Into<String>) {
        let (name, op, domain) = (name.to_owned(), op.to_owned(), String::new());
        self.unsupported.push(UnsupportedNode { name, op, domain, why: why.into() });
    }

    /// Fails with all operators and tensors that the IR lacks.
    fn supported(&mut self) -> Result<(), ImportError> {
        let mut problems = Vec::new();
        for index in 0..self.operators.len() {
            let (number, name) =
                (self.operators[index].number, self.operators[index].outputs.first().copied());
            let known = ROWS.iter().any(|row| row.number == number) || matches!(number, CONST | CONST_SHAPE);
            if !known && OTHER_OPERATORS.iter().any(|(other, _)| *other == number) {
                self.decline(name.unwrap_or("(unnamed)"), &operator_name(number), "no operator of the IR");
            } else if !known {
                let place = self.operators[index].place(index);
                problems.push(Malformation { place, what: "TOSA has no such operator".to_owned() });
            }
        }
        for (name, what) in
            self.inputs.iter().map(|n| (*n, "input")).chain(self.outputs.iter().map(|n| (*n, "output")))
        {
            match self.declared.get(name).map(|d| &d.ty) {
                Some(Type::Tensor(_)) => {}
                Some(Type::Shape(_)) => self.unsupported.push(UnsupportedNode {
                    name: name.to_owned(),
                    op: "shape".to_owned(),
                    domain: String::new(),
                    why: format!("a function's {what}s are tensors here"),
                }),
                None => {
                    let what = format!("the {what} `{name}` is no tensor of the block");
                    problems.push(Malformation { place: "block main".to_owned(), what });
                }
            }
        }
        if !problems.is_empty() {
            return Err(ImportError::Malformed(problems));
        }
        match std::mem::take(&mut self.unsupported) {
            none if none.is_empty() => Ok(()),
            all => Err(ImportError::Unsupported(all)),
        }
    }

    /// The operators in an order in which each follows what it reads; those of the file's order where that is
    /// one.
    fn ordered(&self) -> Result<Vec<usize>, ImportError> {
        let mut makers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut problems = Vec::new();
        let inputs: BTreeSet<&str> = self.inputs.iter().copied().collect();
        for (index, operator) in self.operators.iter().enumerate() {
            for name in &operator.outputs {
                if inputs.contains(name) || makers.insert(name, index).is_some() {
                    problems.push(Malformation {
                        place: operator.place(index),
                        what: format!("`{name}` is made twice"),
                    });
                }
            }
        }
        let mut waits = vec![0usize; self.operators.len()];
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); self.operators.len()];
        for (index, operator) in self.operators.iter().enumerate() {
            for name in &operator.inputs {
                match makers.get(name) {
                    Some(&maker) => {
                        readers[maker].push(index);
                        waits[index] += 1;
                    }
                    None if inputs.contains(name) => {}
                    None => problems.push(Malformation {
                        place: operator.place(index),
                        what: format!("nothing makes `{name}`"),
                    }),
                }
            }
        }
        for name in &self.outputs {
            if !inputs.contains(name) && !makers.contains_key(name) {
                let what = format!("nothing makes the output `{name}`");
                problems.push(Malformation { place: "block main".to_owned(), what });
            }
        }
        let mut ready: BTreeSet<usize> = (0..waits.len()).filter(|&index| waits[index] == 0).collect();
        let mut order = Vec::with_capacity(waits.len());
        while let Some(index) = ready.pop_first() {
            order.push(index);
            for &reader in &readers[index] {
                waits[reader] -= 1;
                if waits[reader] == 0 {
                    ready.insert(reader);
                }
            }
        }
        if order.len() < self.operators.len() && problems.is_empty() {
            let cycle = (0..waits.len()).filter(|&index| waits[index] > 0);
            problems.extend(cycle.map(|index| Malformation {
                place: self.operators[index].place(index),
                what: "it reads what is made from its own result".to_owned(),
            }));
        }
        if problems.is_empty() { Ok(order) } else { Err(ImportError::Malformed(problems)) }
    }

    fn emit(&self, file_name: &str) -> Result<Module, ImportError> {
        let order = self.ordered()?;
        let types = |names: &[&str]| -> Vec<Type> {
            names.iter().map(|name| self.declared[name].ty.clone()).collect()
        };
        let function_type = FunctionType { inputs: types(&self.inputs), results: types(&self.outputs) };
        let mut module = Module::new();
        let (func, block) = module.add_function("main", function_type);
        if let Op::Func(data) = &mut module.op_mut(func).op {
            data.arg_attrs = Some(named(&self.inputs));
            data.res_attrs = Some(named(&self.outputs));
        }
        let mut values: BTreeMap<&str, ValueId> = BTreeMap::new();
        for (index, name) in self.inputs.iter().enumerate() {
            if values.insert(name, module.args(block)[index]).is_some() {
                return malformed("block main", format!("the input `{name}` stands twice"));
            }
        }
        let mut problems = Vec::new();
        for index in order {
            let made = self.operator(index, &mut module, block, &mut values, file_name);
            if let Err(what) = made {
                problems.push(Malformation { place: self.operators[index].place(index), what });
                if problems.len() == MAX_PROBLEMS {
                    break;
                }
            }
        }
        if !problems.is_empty() {
            return Err(ImportError::Malformed(problems));
        }
        let results: Vec<ValueId> = self.outputs.iter().map(|name| values[name]).collect();
        module.append(block, FuncReturn {}, &results, &[], Location::unknown());
        Ok(module)
    }

    /// Appends one operator. Its results are entered even if it is wrong, so that its readers are looked at
    /// too.
    fn operator(
        &self,
        index: usize,
        module: &mut Module,
        block: BlockId,
        values: &mut BTreeMap<&'a str, ValueId>,
        file_name: &str,
    ) -> Result<(), String> {
        let operator = &self.operators[index];
        let types = operator
            .outputs
            .iter()
            .map(|name| {
                self.declared
                    .get(name)
                    .map(|d| d.ty.clone())
                    .ok_or_else(|| format!("`{name}` is not declared"))
            })
            .collect::<Result<Vec<Type>, String>>();
        let kind = types.as_ref().map_err(Clone::clone).and_then(|types| self.kind(operator, types));
        let operands: Vec<ValueId> = operator.inputs.iter().map(|name| values[name]).collect();
        let loc = self.location(index, file_name);
        // What cannot be made is stood in for by an op without meaning, which is never seen: the import
        // fails.
        let stand_in = || Op::from(FuncReturn {});
        let (op, problem) = match kind {
            Ok(op) => (op, None),
            Err(problem) => (stand_in(), Some(problem)),
        };
        let types = types.unwrap_or_else(|_| vec![Type::Shape(0); operator.outputs.len()]);
        let id = module.append(block, op, &operands, &types, loc);
        for (name, &value) in operator.outputs.iter().zip(module.op(id).results()) {
            values.insert(name, value);
        }
        problem.map_or(Ok(()), Err)
    }

    fn location(&self, index: usize, file_name: &str) -> Location {
        let operator = &self.operators[index];
        let text = operator.table.table(schema::operator::LOCATION).ok().flatten();
        let text = text.and_then(|table| table.string(schema::location::TEXT).ok().flatten());
        let name = text.filter(|text| !text.is_empty()).or_else(|| operator.outputs.first().copied());
        let line = u32::try_from(index).unwrap_or(u32::MAX);
        Location::in_file(name.unwrap_or_default(), file_name, line, 0)
    }

    /// The op of an operator with its attributes, or its constant.
    fn kind(&self, operator: &Operator<'b, 'a>, results: &[Type]) -> Result<Op, String> {
        let mut props = BTreeMap::new();
        let name = match operator.number {
            CONST | CONST_SHAPE => {
                let ([name], [ty]) = (operator.outputs.as_slice(), results) else {
                    return Err(format!("a constant has one result, this has {}", operator.outputs.len()));
                };
                let tensor = constant(&self.declared[name], ty)?;
                props.insert("values".to_owned(), Attribute::Elements(tensor.into()));
                if operator.number == CONST { "tosa.const" } else { "tosa.const_shape" }
            }
            number => {
                let row = ROWS.iter().find(|row| row.number == number).ok_or("TOSA has no such operator")?;
                self.attributes(operator, row, &mut props)?;
                row.name
            }
        };
        Op::from_parts(name, &mut props).map_err(|error| error.to_string())
    }

    fn attributes(
        &self,
        operator: &Operator<'b, 'a>,
        row: &Row,
        props: &mut BTreeMap<String, Attribute>,
    ) -> Result<(), String> {
        let told = |error: Malformed| format!("byte {}: {}", error.offset, error.what);
        let tag = u32::from(operator.table.u8(schema::operator::ATTRIBUTE_TYPE).map_err(told)?);
        if row.attributes.is_empty() && tag == 0 {
            return Ok(());
        }
        if tag != row.number {
            return Err(format!("its attributes are those of {}", operator_name(tag)));
        }
        let Some(table) = operator.table.table(schema::operator::ATTRIBUTE).map_err(told)? else {
            return if row.attributes.is_empty() {
                Ok(())
            } else {
                Err("its attributes are missing".to_owned())
            };
        };
        for &(slot, name, kind) in row.attributes {
            let value = match kind {
                Kind::Int => Attribute::Int(table.i32(slot, 0).map_err(told)?.into(), ElemType::I32),
                Kind::Bool => Attribute::Bool(table.bool(slot).map_err(told)?),
                Kind::Extents => {
                    let values = table.i32s(slot).map_err(told)?;
                    Attribute::I64Array(values.into_iter().map(i64::from).collect())
                }
                Kind::Axes => Attribute::I32Array(table.i32s(slot).map_err(told)?),
                Kind::Type => {
                    let number = table.u32(slot).map_err(told)?;
                    let (word, elem) =
                        dtype(number).ok_or_else(|| format!("`{name}` is type number {number}"))?;
                    Attribute::Elem(elem.ok_or_else(|| format!("`{name}` is {word}, which the IR lacks"))?)
                }
                Kind::Nan | Kind::Rounding | Kind::Resize => {
                    let number = table.u32(slot).map_err(told)?;
                    let (mnemonic, cases) = kind.cases().ok_or("not an enum")?;
                    let case = (number as usize).checked_sub(1).and_then(|at| cases.get(at));
                    let case = case.ok_or_else(|| format!("`{name}` has no case number {number}"))?;
                    Attribute::Enum(mnemonic.to_owned(), (*case).to_owned())
                }
                Kind::Number => {
                    let input = operator.inputs.first().and_then(|name| self.declared.get(name));
                    let elem = input.and_then(|d| d.ty.as_tensor()).map(|ty| ty.elem);
                    let bytes = table.bytes(slot).map_err(told)?;
                    number(elem.ok_or("its input has no element type")?, bytes).ok_or_else(|| {
                        format!("`{name}` is {} bytes, which are no number of its input", bytes.len())
                    })?
                }
            };
            props.insert(name.to_owned(), value);
        }
        Ok(())
    }
}

/// After so many wrong operators, no more are told.
const MAX_PROBLEMS: usize = 50;

fn required<'a>(
    table: Table<'_, 'a>,
    value: Option<&'a str>,
    what: &str,
    field: &str,
) -> Result<&'a str, ImportError> {
    value.map_or_else(|| malformed(format!("byte {}", table.offset()), format!("{what} has no {field}")), Ok)
}

fn dtype(number: u32) -> Option<(&'static str, Option<ElemType>)> {
    DTYPES.get(number as usize).copied()
}

/// A tensor's type and why the IR lacks it, if it does.
fn tensor_type(table: Table<'_, '_>) -> Result<(Type, Option<String>), ImportError> {
    let place = || format!("byte {}", table.offset());
    let extents = table.i32s(schema::tensor::SHAPE)?;
    let number = table.u32(schema::tensor::TYPE)?;
    let Some((word, elem)) = dtype(number) else {
        return malformed(place(), format!("type number {number} of a tensor is none of TOSA's"));
    };
    let mut why = None;
    if table.bool(schema::tensor::IS_UNRANKED)? || extents.contains(&-1) {
        why = Some("only tensors of a fixed shape are supported".to_owned());
    } else if table.bool(schema::tensor::VARIABLE)? {
        why = Some("variables, which outlive an inference, are not supported".to_owned());
    } else if table.u64(schema::tensor::OFFSET)? > 1 {
        why = Some("its data stand after the flatbuffer, as in files beyond 2 GiB".to_owned());
    } else if elem.is_none() {
        why = Some(format!("element type {word} is not supported"));
    }
    if why.is_some() {
        return Ok((Type::Shape(0), why));
    }
    let shape: Option<Vec<usize>> = extents.iter().map(|&extent| usize::try_from(extent).ok()).collect();
    let Some(shape) = shape.filter(|shape| is_sane_shape(shape)) else {
        return malformed(place(), format!("a tensor of shape {extents:?} is empty or too large"));
    };
    Ok((TensorType::new(shape, elem.unwrap_or(ElemType::I8)).into(), None))
}

/// The number that bytes hold.
fn number(elem: ElemType, bytes: &[u8]) -> Option<Attribute> {
    let size = elem.size_bytes();
    // Serialisers pad byte vectors to eight bytes.
    let bytes = bytes.get(..size).filter(|_| bytes.len() <= size.next_multiple_of(8))?;
    match TensorData::from_bytes(elem, bytes)? {
        TensorData::F32(values) => Some(Attribute::Float(f64::from(*values.first()?), Some(elem))),
        data => Some(Attribute::Int(data.int_at(0)?, elem)),
    }
}

/// The data of a constant.
fn constant(declared: &Declared<'_>, ty: &Type) -> Result<Tensor, String> {
    let (shape, elem) = match ty {
        Type::Tensor(ty) => (ty.shape.clone(), ty.elem),
        Type::Shape(rank) => (vec![*rank], ElemType::Index),
    };
    let n: usize = shape.iter().product();
    if !declared.has_data && n > 0 {
        return Err("the file has no data of the constant".to_owned());
    }
    let size = if elem == ElemType::I48 { 6 } else { elem.size_bytes() };
    let len = n.checked_mul(size).ok_or("the constant is too large")?;
    let found = declared.data.len();
    // Serialisers pad byte vectors to eight bytes.
    let Some(bytes) = declared.data.get(..len).filter(|_| found <= len.max(1).next_multiple_of(8)) else {
        return Err(format!("a constant of type {ty} takes {len} bytes, found {found}"));
    };
    let data = if elem == ElemType::I48 {
        let (chunks, _) = bytes.as_chunks::<6>();
        let widen = |c: &[u8; 6]| i64::from_le_bytes([0, 0, c[0], c[1], c[2], c[3], c[4], c[5]]) >> 16;
        Some(TensorData::I48(chunks.iter().map(widen).collect()))
    } else {
        TensorData::from_bytes(elem, bytes)
    };
    data.map(|data| Tensor::new(shape, data))
        .ok_or_else(|| "the constant's data do not fill its type".to_owned())
}
