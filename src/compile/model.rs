//! The model that is compiled, and what a survey says of it.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use strata_frontend::import::{
    self, Blocked, ImportError, ImportOptions, Imported, Resolved, Survey, UnsupportedNode, import_resolved,
    survey,
};
use strata_frontend::partition::{GraphPart, Work, work};
use strata_frontend::proto::{ModelProto, NodeProto};

use super::CompileError;
use crate::io::array::Array;
use crate::stats::{HostNode, HostStats};

/// Tensors of one sample by name.
pub(crate) type Tensors = BTreeMap<String, Array>;

/// The model that is compiled.
pub(crate) struct Model<'a> {
    pub(super) resolved: &'a Resolved,
    pub(super) file_name: &'a str,
    options: ImportOptions,
    survey: OnceCell<Survey>,
}

impl<'a> Model<'a> {
    pub(crate) fn new(
        resolved: &'a Resolved,
        file_name: &'a str,
        input_shapes: &BTreeMap<String, Vec<usize>>,
    ) -> Self {
        let options = ImportOptions {
            input_shapes: input_shapes.clone(),
            file_name: file_name.to_owned(),
            ..ImportOptions::default()
        };
        Self { resolved, file_name, options, survey: OnceCell::new() }
    }

    /// Whether another size of its inputs may make another graph of it.
    pub(super) fn depends_on_shapes(&self) -> bool {
        self.resolved.depends_on_shapes
    }

    pub(super) fn proto(&self) -> &'a ModelProto {
        &self.resolved.model
    }

    /// How it is imported.
    pub(crate) fn options(&self) -> &ImportOptions {
        &self.options
    }

    /// Its survey, made when it is first asked for: most models need none.
    pub(crate) fn survey(&self) -> Result<&Survey, ImportError> {
        if let Some(survey) = self.survey.get() {
            return Ok(survey);
        }
        let survey = survey(self.proto(), &self.options)?;
        Ok(self.survey.get_or_init(|| survey))
    }

    pub(super) fn node(&self, index: usize) -> Option<&NodeProto> {
        self.proto().graph.as_ref()?.node.get(index)
    }

    /// The version of a domain's operator set that it uses.
    pub(super) fn opset(&self, domain: &str) -> i64 {
        let is_own = |domain: &str| domain.is_empty() || domain == "ai.onnx";
        let is_same = |other: &str| other == domain || is_own(other) && is_own(domain);
        self.proto().opset_import.iter().find(|set| is_same(&set.domain)).map_or(0, |set| set.version)
    }

    /// For inputs whose elements number the rows of tables, how many rows there are.
    pub(super) fn indexed_rows(&self) -> BTreeMap<String, usize> {
        import::indexed_rows(self.proto())
    }

    pub(super) fn is_initialiser(&self, name: &str) -> bool {
        self.proto().graph.iter().flat_map(|graph| &graph.initializer).any(|tensor| tensor.name == name)
    }

    fn described(&self, nodes: &BTreeMap<usize, Blocked>) -> Vec<UnsupportedNode> {
        let describe = |(&index, why): (&usize, &Blocked)| {
            self.node(index).map(|node| UnsupportedNode::new(node, why.to_string()))
        };
        nodes.iter().filter_map(describe).collect()
    }

    /// The error that these nodes are not supported. Those that only follow others are not told of beside
    /// them.
    pub(super) fn unsupported(&self, nodes: &BTreeMap<usize, Blocked>) -> CompileError {
        let is_cause = |why: &Blocked| *why != Blocked::Follows;
        let mut causes = nodes.clone();
        if nodes.values().any(is_cause) {
            causes.retain(|_, why| is_cause(why));
        }
        ImportError::Unsupported(self.described(&causes)).into()
    }

    /// What `nodes`, and the host parts of a cut, leave to the host.
    pub(super) fn host_stats(
        &self,
        survey: &Survey,
        nodes: &BTreeMap<usize, Blocked>,
        cut: &[GraphPart],
    ) -> HostStats {
        let mut nodes = nodes.clone();
        for &index in cut.iter().filter(|part| part.on_host()).flat_map(|part| &part.nodes) {
            nodes.entry(index).or_insert_with(|| {
                let why =
                    "it stands between nodes of the host, without a convolution or matrix product beside it";
                Blocked::Unsupported(why.to_owned())
            });
        }
        let work = |index: usize| self.node(index).map_or(Work::default(), |node| work(node, &survey.facts));
        let on_host: Work = nodes.keys().map(|&index| work(index)).sum();
        let all: Work = survey.order.iter().map(|&index| work(index)).sum();
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        HostStats {
            nodes: self
                .described(&nodes)
                .into_iter()
                .map(|n| HostNode { name: n.name, op: n.op, why: n.why })
                .collect(),
            parts: 0,
            macs_share: share(on_host.macs, all.macs),
            elements_share: share(on_host.elements, all.elements),
        }
    }

    /// Its import, with some inputs of other shapes.
    pub(crate) fn import(
        &self,
        other_shapes: &BTreeMap<String, Vec<usize>>,
    ) -> Result<Imported, ImportError> {
        let mut options = self.options.clone();
        options.input_shapes.extend(other_shapes.clone());
        import_resolved(self.resolved, &options)
    }
}
