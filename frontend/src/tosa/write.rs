//! A function of plain TOSA to the graph of a file.
//!
//! What the function's attributes say of its ports (scales, orders of axes) has no place in the format; their
//! names become those of tensors.

use std::collections::{BTreeMap, BTreeSet};

use strata_ir::attr::Attribute;
use strata_ir::dialect::Op;
use strata_ir::{ElemType, Module, OpId, TensorData, Type, ValueId};

use super::builder::{Fields, Value, file};
use super::schema::{self, CONST, CONST_SHAPE, DTYPES, IDENTIFIER, Kind, ROWS, Row};

/// Why a module has no form as a TOSA flatbuffer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{place}`: {what}")]
pub struct WriteError {
    /// The op or port.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

type Result<T> = std::result::Result<T, WriteError>;

fn error<T>(place: impl Into<String>, what: impl Into<String>) -> Result<T> {
    Err(WriteError { place: place.into(), what: what.into() })
}

/// The version of TOSA whose operators and attributes are written.
const VERSION: [i32; 3] = [1, 0, 0];
/// The number of IDENTITY.
const IDENTITY: u32 = 68;

/// The file of a module's function `main`, whose ops are all TOSA's.
///
/// # Errors
/// If there is no such function or more than it, or an op or type that TOSA lacks.
pub(super) fn write(module: &Module) -> Result<Vec<u8>> {
    let functions = module.functions();
    let Some(main) = module.function("main") else { return error("module", "there is no function `main`") };
    if functions.len() > 1 {
        let what = "functions stand beside `main`, as what the host runs; a file has one graph";
        return error("module", what);
    }
    let mut graph = Graph::new(module);
    let body = module.entry_block(main);
    for (index, &argument) in module.args(body).iter().enumerate() {
        let name = graph.port(main, false, index);
        graph.declare(argument, name.clone(), None)?;
        graph.inputs.push(name);
    }
    let results = module.terminator(body).map_or(&[][..], |end| module.op(end).operands());
    graph.name_results(main, results);
    for &op in module.block_ops(body) {
        if !module.op(op).op.is_terminator() {
            graph.operator(op)?;
        }
    }
    graph.outputs(main, results)?;
    file(&graph.root(), IDENTIFIER).map_or_else(|| error("module", "the file would be beyond 2 GiB"), Ok)
}

struct Graph<'a> {
    module: &'a Module,
    names: BTreeMap<ValueId, String>,
    taken: BTreeSet<String>,
    tensors: Vec<Fields>,
    shapes: Vec<Fields>,
    operators: Vec<Fields>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// The names that results have.
    wanted: BTreeMap<ValueId, String>,
}

impl<'a> Graph<'a> {
    fn new(module: &'a Module) -> Self {
        Self {
            module,
            names: BTreeMap::new(),
            taken: BTreeSet::new(),
            tensors: Vec::new(),
            shapes: Vec::new(),
            operators: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            wanted: BTreeMap::new(),
        }
    }

    /// A name that no tensor has yet.
    fn fresh(&mut self, wanted: &str) -> String {
        let numbered = (1..).map(|n| if n == 1 { wanted.to_owned() } else { format!("{wanted}_{n}") });
        let name = numbered.into_iter().find(|name| !self.taken.contains(name)).unwrap_or_default();
        self.taken.insert(name.clone());
        name
    }

    /// The name of an argument or a result: what the network calls it, or its number.
    fn port(&mut self, main: OpId, is_result: bool, index: usize) -> String {
        let Op::Func(function) = &self.module.op(main).op else { return self.fresh("port") };
        let attributes = if is_result { &function.res_attrs } else { &function.arg_attrs };
        let entries = match attributes {
            Some(Attribute::Array(entries)) => entries.get(index),
            _ => None,
        };
        let name = match entries {
            Some(Attribute::Dict(entries)) => entries.get("strata.name"),
            _ => None,
        };
        match name {
            Some(Attribute::Str(name)) => self.fresh(name),
            _ => self.fresh(&format!("{}{index}", if is_result { "output" } else { "input" })),
        }
    }

    /// Results that an op makes have the names of the ports at once.
    fn name_results(&mut self, main: OpId, results: &[ValueId]) {
        for (index, &value) in results.iter().enumerate() {
            if self.module.defining_op(value).is_some() && !self.wanted.contains_key(&value) {
                let name = self.port(main, true, index);
                self.wanted.insert(value, name);
            }
        }
    }

    /// What the function gives. An argument, or what stands twice, is copied.
    fn outputs(&mut self, main: OpId, results: &[ValueId]) -> Result<()> {
        for (index, &value) in results.iter().enumerate() {
            let name = self.name(value)?;
            let is_made = self.module.defining_op(value).is_some();
            if is_made && !self.outputs.contains(&name) {
                self.outputs.push(name);
                continue;
            }
            let copy = self.port(main, true, index);
            self.declare_as(&copy, self.module.ty(value), None, "return")?;
            self.operators.push(operator(IDENTITY, Fields::default(), vec![name], vec![copy.clone()], ""));
            self.outputs.push(copy);
        }
        Ok(())
    }

    fn name(&self, value: ValueId) -> Result<String> {
        self.names.get(&value).cloned().map_or_else(|| error("module", "nothing makes an operand"), Ok)
    }

    fn declare(&mut self, value: ValueId, name: String, data: Option<&TensorData>) -> Result<()> {
        self.declare_as(&name, self.module.ty(value), data, &name)?;
        self.names.insert(value, name);
        Ok(())
    }

    fn declare_as(&mut self, name: &str, ty: &Type, data: Option<&TensorData>, place: &str) -> Result<()> {
        let data = data.map(|data| Value::Bytes(padded(bytes_of(data))));
        let with_data = |fields: Fields, slot: usize| match data {
            Some(data) => fields.with(slot, data),
            None => fields,
        };
        let named = Fields::default().with(schema::tensor::NAME, Value::Text(name.to_owned()));
        match ty {
            Type::Shape(rank) => {
                let fields = named.with(schema::shape::RANK, Value::U32(*rank as u32));
                self.shapes.push(with_data(fields, schema::shape::DATA));
            }
            Type::Tensor(ty) => {
                let shape: Option<Vec<i32>> = ty.shape.iter().map(|&e| i32::try_from(e).ok()).collect();
                let Some(shape) = shape else { return error(place, "an extent beyond 32 bits") };
                let fields = named
                    .with(schema::tensor::SHAPE, Value::I32s(shape))
                    .with(schema::tensor::TYPE, Value::U32(dtype(ty.elem, place)?));
                self.tensors.push(with_data(fields, schema::tensor::DATA));
            }
        }
        Ok(())
    }

    fn operator(&mut self, op: OpId) -> Result<()> {
        let module = self.module;
        let data = module.op(op);
        let place = data.loc.name().unwrap_or_else(|| data.op.name());
        let constant = data.op.constant().map(|elements| elements.tensor.data());
        let mut outputs = Vec::new();
        for &result in data.results() {
            let name = match self.wanted.get(&result) {
                Some(name) => name.clone(),
                None => self.fresh(place),
            };
            self.declare(result, name.clone(), constant)?;
            outputs.push(name);
        }
        let inputs = data.operands().iter().map(|&value| self.name(value)).collect::<Result<Vec<_>>>()?;
        let (number, attributes) = match &data.op {
            Op::Const(_) => (CONST, Fields::default()),
            Op::ConstShape(_) => (CONST_SHAPE, Fields::default()),
            op => {
                let Some(row) = ROWS.iter().find(|row| row.name == op.name()) else {
                    return error(place, format!("`{}` is no operator of TOSA", op.name()));
                };
                (row.number, attributes(row, op, place)?)
            }
        };
        self.operators.push(operator(number, attributes, inputs, outputs, place));
        Ok(())
    }

    fn root(self) -> Fields {
        let block = Fields::default()
            .with(schema::block::NAME, Value::Text("main".to_owned()))
            .with(schema::block::OPERATORS, Value::Tables(self.operators))
            .with(schema::block::TENSORS, Value::Tables(self.tensors))
            .with(schema::block::INPUTS, Value::Texts(self.inputs))
            .with(schema::block::OUTPUTS, Value::Texts(self.outputs))
            .with(schema::block::SHAPES, Value::Tables(self.shapes));
        let region = Fields::default()
            .with(schema::region::NAME, Value::Text("main".to_owned()))
            .with(schema::region::BLOCKS, Value::Tables(vec![block]));
        let [major, minor, patch] = VERSION;
        let version = Fields::default()
            .with(schema::version::MAJOR, Value::I32(major))
            .with(schema::version::MINOR, Value::I32(minor))
            .with(schema::version::PATCH, Value::I32(patch))
            .with(schema::version::DRAFT, Value::U8(0));
        Fields::default()
            .with(schema::graph::VERSION, Value::Table(version))
            .with(schema::graph::REGIONS, Value::Tables(vec![region]))
    }
}

fn operator(
    number: u32,
    attributes: Fields,
    inputs: Vec<String>,
    outputs: Vec<String>,
    place: &str,
) -> Fields {
    let location = Fields::default().with(schema::location::TEXT, Value::Text(place.to_owned()));
    Fields::default()
        .with(schema::operator::OP, Value::U32(number))
        .with(schema::operator::ATTRIBUTE_TYPE, Value::U8(number as u8))
        .with(schema::operator::ATTRIBUTE, Value::Table(attributes))
        .with(schema::operator::INPUTS, Value::Texts(inputs))
        .with(schema::operator::OUTPUTS, Value::Texts(outputs))
        .with(schema::operator::LOCATION, Value::Table(location))
}

fn attributes(row: &Row, op: &Op, place: &str) -> Result<Fields> {
    let attributes = op.attrs();
    let mut fields = Fields::default();
    for &(slot, name, kind) in row.attributes {
        let Some(value) = attributes.get(name) else { return error(place, format!("`{name}` is missing")) };
        match attribute(kind, value) {
            Some(value) => fields = fields.with(slot, value),
            None => return error(place, format!("`{name}` has no form in the file")),
        }
    }
    Ok(fields)
}

fn attribute(kind: Kind, value: &Attribute) -> Option<Value> {
    Some(match (kind, value) {
        (Kind::Int, Attribute::Int(value, _)) => Value::I32(i32::try_from(*value).ok()?),
        (Kind::Bool, Attribute::Bool(value)) => Value::U8(u8::from(*value)),
        (Kind::Extents, Attribute::I64Array(values)) => {
            Value::I32s(values.iter().map(|&value| i32::try_from(value).ok()).collect::<Option<_>>()?)
        }
        (Kind::Axes, Attribute::I32Array(values)) => Value::I32s(values.clone()),
        (Kind::Type, Attribute::Elem(elem)) => Value::U32(dtype_number(*elem)?),
        (Kind::Nan | Kind::Rounding | Kind::Resize, Attribute::Enum(_, case)) => {
            let (_, cases) = kind.cases()?;
            Value::U32(cases.iter().position(|known| known == case)? as u32 + 1)
        }
        (Kind::Number, Attribute::Int(value, elem)) => {
            Value::Bytes(padded(bytes_of(&TensorData::from_ints(*elem, [*value])?)))
        }
        (Kind::Number, Attribute::Float(value, _)) => {
            Value::Bytes(padded((*value as f32).to_le_bytes().to_vec()))
        }
        _ => return None,
    })
}

fn dtype_number(elem: ElemType) -> Option<u32> {
    let at = DTYPES.iter().position(|(_, of)| *of == Some(elem))?;
    u32::try_from(at).ok()
}

fn dtype(elem: ElemType, place: &str) -> Result<u32> {
    dtype_number(elem).map_or_else(|| error(place, format!("TOSA has no tensors of {elem}")), Ok)
}

/// The elements as the format packs them: those of 48 bits in six bytes.
fn bytes_of(data: &TensorData) -> Vec<u8> {
    match data {
        TensorData::I48(values) => {
            values.iter().flat_map(|value| value.to_le_bytes().into_iter().take(6)).collect()
        }
        data => data.to_bytes(),
    }
}

/// Bytes up to a multiple of eight, as TOSA's own serialiser writes them.
fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}
