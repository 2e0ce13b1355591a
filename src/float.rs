//! A whole ONNX model in f32: the import on the reference evaluator, and on the host's library what the
//! import does not take, as a compiled bundle's host would run it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strata_frontend::import::{self, ImportError, Resolved};
use strata_frontend::partition::{GraphPart, partition};
use strata_frontend::proto::{ModelProto, NodeProto};
use strata_ir::{Module, Tensor, ValueId};
use strata_isa_spec::bundle::Port;
use strata_passes::quantise;

use crate::compile::CompileError;
use crate::compile::host::ReadyPart;
use crate::compile::model::{Model, Tensors};
use crate::inputs::match_inputs;
use crate::io::{Array, ArrayError};
use crate::ptq;
use crate::results::node_results;
use crate::session::{self, RunError};

/// A model that is ready to be evaluated.
#[derive(Debug)]
pub struct FloatModel {
    resolved: Resolved,
    file_name: String,
    inputs: Vec<Port>,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// All of it is imported.
    Whole(Box<Module>),
    /// Some of it is left to the host's library.
    Parts(Vec<GraphPart>),
}

impl FloatModel {
    /// Prepares a resolved model. `input_shapes` are of inputs with dynamic extents, by name.
    ///
    /// # Errors
    /// If the model is malformed, an input has no shape, or neither the import nor the host takes a node.
    pub fn new(
        resolved: Resolved,
        file_name: &str,
        input_shapes: &BTreeMap<String, Vec<usize>>,
    ) -> Result<Self, CompileError> {
        let model = Model::new(&resolved, file_name, input_shapes);
        let form = match model.import(&BTreeMap::new()) {
            Ok(imported) => Form::Whole(Box::new(imported.module)),
            Err(ImportError::Unsupported(_)) => {
                let survey = model.survey()?;
                let all: BTreeSet<usize> = survey.order.iter().copied().collect();
                let cut = partition(&resolved.model, survey, &all);
                model.demand_runner(&cut, &survey.blocked)?;
                Form::Parts(cut)
            }
            Err(error) => return Err(error.into()),
        };
        let port = |port: &import::Port| session::plain_port(&port.name, &port.shape, port.dtype);
        let inputs = import::inputs(&resolved, model.options())?.iter().map(port).collect();
        Ok(Self { resolved, file_name: file_name.to_owned(), inputs, form })
    }

    /// What it takes.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// Evaluates the model. Inputs go by name or by position; outputs come in the model's order.
    ///
    /// # Errors
    /// If the inputs do not fit, or a node cannot be evaluated on them.
    pub fn run(&self, inputs: &[(String, Array)]) -> Result<Vec<(String, Array)>, CompileError> {
        let arrays = match_inputs(&self.inputs, inputs).map_err(CompileError::Run)?;
        let names = || self.inputs.iter().map(|port| port.name.clone());
        let named = names().zip(arrays.iter().map(AsRef::as_ref));
        let questionable = named.filter(|(name, _)| !takes_any_number(&self.resolved.model, name));
        session::demand_finite(questionable).map_err(CompileError::Run)?;
        let named = names().zip(arrays);
        match &self.form {
            Form::Whole(module) => {
                let named: Vec<_> = named.map(|(name, array)| (name, array.into_owned())).collect();
                session::evaluate(module, &named).map_err(CompileError::Run)
            }
            Form::Parts(parts) => {
                let named = named.map(|(name, array)| (name, session::to_internal(array).into_owned()));
                self.run_parts(parts, named.collect())
            }
        }
    }

    /// As [`run`](Self::run), handing the result of every node to `each` by the node's name, as the
    /// compiler's IR has it: images in NHWC. Of a model of which the host runs some nodes there are only
    /// outputs.
    ///
    /// # Errors
    /// As [`run`](Self::run); what `each` fails with.
    pub(crate) fn run_layers<E: From<CompileError>>(
        &self,
        inputs: &[(String, Array)],
        each: &mut dyn FnMut(&str, &Tensor) -> Result<(), E>,
    ) -> Result<Vec<(String, Array)>, E> {
        if let Form::Whole(module) = &self.form {
            let mut module = module.clone();
            ptq::canonicalise(&mut module)?;
            let main = module.function("main").filter(|_| self.has_layers());
            if let Some(func) = main {
                let arrays = match_inputs(&self.inputs, inputs).map_err(CompileError::Run)?;
                let arrays: Vec<_> = arrays.into_iter().map(Cow::into_owned).collect();
                let arguments = session::to_arguments(&module, &arrays).map_err(CompileError::Run)?;
                let arguments: Vec<Arc<Tensor>> = arguments.into_iter().map(Arc::new).collect();
                let names = node_results(&module, func);
                let mut failed = None;
                let mut observe = |value: ValueId, tensor: &Tensor| {
                    if let (Some(name), None) = (names.get(&value), &failed) {
                        failed = each(name, tensor).err();
                    }
                };
                quantise::forward(&module, func, &arguments, &mut observe)
                    .map_err(|error| CompileError::Run(error.into()))?;
                failed.map_or(Ok(()), Err)?;
            }
        }
        Ok(self.run(inputs)?)
    }

    /// The names of what [`run_layers`](Self::run_layers) hands on, in its order.
    pub(crate) fn layer_names(&self) -> Result<Vec<String>, CompileError> {
        let Form::Whole(module) = &self.form else { return Ok(Vec::new()) };
        let mut module = module.clone();
        ptq::canonicalise(&mut module)?;
        let Some(func) = module.function("main") else { return Ok(Vec::new()) };
        let mut names = node_results(&module, func);
        let ops = module.block_ops(module.entry_block(func)).iter();
        let results = ops.flat_map(|&op| module.op(op).results());
        Ok(results.filter_map(|value| names.remove(value)).collect())
    }

    /// Whether all of it is imported, so that the values of its nodes are known.
    pub fn has_layers(&self) -> bool {
        matches!(self.form, Form::Whole(_))
    }

    fn run_parts(
        &self,
        parts: &[GraphPart],
        mut tensors: Tensors,
    ) -> Result<Vec<(String, Array)>, CompileError> {
        for part in parts {
            ReadyPart::new(part, &self.file_name)?.run(&mut tensors).map_err(|error| match error {
                RunError::Host(error) => CompileError::Host(error),
                error => CompileError::Run(error),
            })?;
        }
        let outputs = self.resolved.model.graph.iter().flat_map(|graph| &graph.output).map(|info| &info.name);
        let given = |name: &String| {
            let nothing = || RunError::Bundle(format!("nothing gives `{name}`"));
            let array = tensors.get(name).cloned().ok_or_else(nothing)?;
            let array = match self.resolved.user_dtype(name) {
                Some(dtype) => {
                    let problem = |error: ArrayError| RunError::Bundle(format!("output `{name}`: {error}"));
                    array.cast(session::dtype_of(dtype)?).map_err(problem)?
                }
                None => array,
            };
            Ok((name.clone(), array))
        };
        outputs.map(given).collect::<Result<_, RunError>>().map_err(CompileError::Run)
    }
}

/// Whether an input is only read by operators that are defined on NaN and infinities.
fn takes_any_number(model: &ModelProto, input: &str) -> bool {
    let nodes = || model.graph.iter().flat_map(|graph| &graph.node);
    let mut readers = nodes().filter(|node| node.input.iter().any(|name| name == input)).peekable();
    let is_defined = |node: &NodeProto| {
        matches!(node.op_type.as_str(), "Cast" | "CastLike" | "IsInf" | "IsNaN") && node.domain.is_empty()
    };
    readers.peek().is_some() && readers.all(is_defined)
}
