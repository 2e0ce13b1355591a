//! What would do where a target is too small: sizes of its memories, and numbers of streams, with which every
//! stage of every part of a network runs.
//!
//! Which stages there are depends on the memories, since layers are split to fit them. So sizes that would do
//! are tried: the stages are formed anew for them, and looked at again.

use strata_backend::model::StageGraph;
use strata_ir::pass::PassError;
use strata_isa_spec::Target;
use strata_passes::fuse::solve::too_large;
use strata_passes::fuse::too_large::TooLarge;
use strata_passes::fuse::{PlanError, PlanOptions};

use super::forms::Forms;
use super::parts::{PreparedPart, PreparedParts};
use super::{Aim, Clock, CompileError, Compiler, missing};

/// Times that larger sizes are tried, at most.
const MOST_TRIES: usize = 8;

impl Compiler {
    /// An error that says that the target is too small, with what is too large for it of all parts, and sizes
    /// that do.
    pub(super) fn with_sizes_that_do(
        &self,
        error: CompileError,
        prepared: &PreparedParts,
        aim: Aim,
    ) -> CompileError {
        if error.would_do().is_empty() {
            return error;
        }
        match self.sizes_that_do(prepared, aim) {
            Ok(stages) if !stages.is_empty() => {
                let error = PassError::other(PlanError::StageTooLarge(stages));
                CompileError::of_pass("fuse-layers", error)
            }
            Ok(_) | Err(_) => error,
        }
    }

    fn sizes_that_do(&self, prepared: &PreparedParts, aim: Aim) -> Result<Vec<TooLarge>, CompileError> {
        let mut found: Vec<TooLarge> = Vec::new();
        for _ in 0..MOST_TRIES {
            let mut compiler = self.clone();
            raise(&mut compiler.options.target, &found);
            let more = compiler.too_large(prepared, aim)?;
            if more.is_empty() {
                break;
            }
            add(&mut found, more, &self.options.target);
        }
        Ok(found)
    }

    /// What is too large for the target of all parts, their stages formed for it.
    fn too_large(
        &self,
        prepared: &PreparedParts,
        Aim { mode, objective }: Aim,
    ) -> Result<Vec<TooLarge>, CompileError> {
        let options = PlanOptions { mode, objective, ..PlanOptions::default() };
        let machine = prepared.parts.iter().filter_map(|part| match part {
            PreparedPart::Machine(forms) => Some(forms),
            PreparedPart::Host(_) => None,
        });
        let mut found = Vec::new();
        for forms in machine {
            let Forms { as_imported, .. } = self.formed_anew(forms, &mut Clock::default())?;
            let func = as_imported.function("main").ok_or_else(|| missing("main"))?;
            let failed = |error| CompileError::of_pass("fuse-layers", error);
            let graph =
                StageGraph::from_module(&as_imported, func).map_err(|e| failed(PassError::other(e)))?;
            let stages = too_large(&graph, &self.options.target, &options);
            found.extend(stages.map_err(|e| failed(PassError::other(e)))?);
        }
        Ok(found)
    }
}

/// Gives a target what stages need that are too large for it.
fn raise(target: &mut Target, stages: &[TooLarge]) {
    for stage in stages {
        stage.resource.raise(target, stage.needed);
    }
}

/// Adds stages that are too large for some target to those that are for the one that was asked about. A
/// layer's need may grow with the target, since fewer of its channels are split off.
fn add(found: &mut Vec<TooLarge>, more: Vec<TooLarge>, target: &Target) {
    for stage in more {
        let is_same =
            |other: &&mut TooLarge| (&other.stage, other.resource) == (&stage.stage, stage.resource);
        match found.iter_mut().find(is_same) {
            Some(other) => other.needed = stage.needed.max(other.needed),
            None => found.push(TooLarge { limit: stage.resource.of(target), ..stage }),
        }
    }
}
