//! From parts at the stages level to a bundle: plans, schedules and emits every machine part.

use std::collections::BTreeMap;

use strata_backend::emit::Lowered;
use strata_backend::model::summary::activation_table;
use strata_backend::model::{Mode, Objective, Plan, StageGraph};
use strata_ir::Module;
use strata_ir::pass::PassError;
use strata_ir::text::to_string;
use strata_isa_spec::bundle::{Bundle, Code, FORMAT_VERSION, Machine, Manifest, Part, Port};
use strata_isa_spec::verify::verify;
use strata_isa_spec::{Program, Target, timed};

use super::forms::{Forms, Planned};
use super::parts::{PreparedPart, PreparedParts};
use super::{Clock, CompileError, Compiled, Compiler, Event, missing};
use crate::session;
use crate::stats::{self, EnergyStats, ModelStats, PlanStats, SimulatedStats, Stats};

/// A machine part, planned and emitted.
struct Emitted {
    machine: Machine,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// The f32 tail, as text, and what it gives.
    tail: Option<(String, Vec<Port>)>,
    stats: Stats,
    plan: Plan,
    graph: StageGraph,
}

impl Compiler {
    /// Plans, schedules and emits all parts.
    pub(super) fn assemble(
        &self,
        prepared: &PreparedParts,
        network: &str,
        aim: (Mode, Objective),
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Compiled, CompileError> {
        let (mut parts, mut plans) = (Vec::new(), Vec::new());
        let mut stats: Option<Stats> = None;
        let of = prepared.parts.len();
        for (index, part) in prepared.parts.iter().enumerate() {
            let forms = match part {
                PreparedPart::Machine(forms) => forms,
                PreparedPart::Host { code, inputs, outputs } => {
                    let (inputs, outputs) = (inputs.clone(), outputs.clone());
                    parts.push(Part { inputs, outputs, code: code.clone() });
                    continue;
                }
            };
            if of > 1 {
                observer(Event::Part { index, of, on_host: false });
            }
            let emitted = self.emit(forms, aim, clock, observer);
            let mut emitted = emitted.map_err(|error| self.with_sizes_that_do(error, prepared, aim))?;
            stats = Some(match stats {
                None => emitted.stats,
                Some(stats) => stats.and_then(&emitted.stats, self.options.target.array.clock_hz),
            });
            plans.push((emitted.plan, emitted.graph));
            if let Some((_, results)) = &emitted.tail {
                rename(&mut emitted.outputs, results, prepared);
            }
            let (inputs, outputs) = (emitted.inputs, emitted.outputs);
            let tail = emitted.tail.map(|(text, results)| Part {
                inputs: outputs.clone(),
                outputs: results,
                code: Code::Ir(text),
            });
            parts.push(Part { inputs, outputs, code: Code::Machine(emitted.machine) });
            parts.extend(tail);
        }
        let mut stats = stats.unwrap_or_default();
        stats.model.parameters = prepared.n_parameters;
        stats.precision = prepared.precision.clone();
        stats.host = prepared.host.clone().map(|mut host| {
            host.parts = parts.iter().filter(|part| !matches!(part.code, Code::Machine(_))).count() as u64;
            host
        });
        let manifest = Manifest {
            format: FORMAT_VERSION,
            producer: concat!("strata ", env!("CARGO_PKG_VERSION")).to_owned(),
            network: network.to_owned(),
            target: self.options.target.clone(),
            inputs: prepared.inputs.iter().map(|port| taken(port, &parts)).collect(),
            outputs: prepared
                .outputs
                .iter()
                .map(|name| given(name, &parts, prepared))
                .collect::<Result<_, _>>()?,
        };
        // The time that a compile took is no part of what it made: the same input gives the same bytes.
        let bundle =
            Bundle { manifest, parts, stats: serde_json::to_value(&stats).ok(), dumps: BTreeMap::new() };
        Ok(Compiled { bundle, stats, plans })
    }

    /// From stages to a verified program.
    fn emit(
        &self,
        forms: &Forms,
        (mode, objective): (Mode, Objective),
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Emitted, CompileError> {
        let target = &self.options.target;
        // The network's own stages: rewrites make others of them, and in a plan those that run in strips are
        // several.
        let func = forms.as_imported.function("main").ok_or_else(|| missing("main"))?;
        let graph = StageGraph::from_module(&forms.as_imported, func)
            .map_err(|e| CompileError::of_pass("fuse-layers", PassError::other(e)))?;
        let (planned, lowered) = self.lowered(forms, (mode, objective), clock, observer)?;
        let Planned { module, plan, refused } = planned;
        if !refused.is_empty() {
            observer(Event::Note(format!(
                "a defect of Strata: plans were refused, and made anew without what was wrong with them; \
                 please report it: {}",
                refused.join("; ")
            )));
        }
        clock.begin("simulate", observer);
        let timing = timed::simulate(&lowered.program, target);
        let mut stats = Stats {
            model: model_stats(&graph),
            plan: plan_stats(&plan, timing.macs, target, objective, mode),
            simulated: Some(SimulatedStats::new(&timing, target.array.clock_hz, plan.dram_bytes.compulsory)),
            ..Stats::default()
        };
        stats.plan.refused = refused;
        stats.plan.energy_pj = EnergyStats::from(timing.energy_pj);
        (stats.plan.peak_activation_sram_bytes, stats.plan.peak_weight_sram_bytes) = peaks(&lowered.program);
        let ports = |func: &str, outputs: bool| {
            let func = module.function(func).ok_or_else(|| missing(func))?;
            session::ports(&module, func, outputs).map_err(CompileError::CalibrationData)
        };
        let tail = match module.function("host") {
            Some(_) => Some((to_string(&module_of(&module, "host")), ports("host", true)?)),
            None => None,
        };
        let (inputs, outputs) = (ports("main", false)?, ports("main", true)?);
        let machine = Machine { program: lowered.program, weights: lowered.weights, names: lowered.names };
        Ok(Emitted { machine, inputs, outputs, tail, stats, plan, graph })
    }

    /// A plan and its program, which verifies. Where that of a plan with refinements does not, a defect,
    /// there are none in the plan.
    fn lowered(
        &self,
        forms: &Forms,
        aim: (Mode, Objective),
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<(Planned, Lowered), CompileError> {
        let mut refused = Vec::new();
        let mut refine = true;
        loop {
            let mut planned = self.plan_forms(forms, aim, refine, clock, observer)?;
            clock.begin("emit", observer);
            let lowered = strata_backend::emit::lower(&planned.module)?;
            clock.begin("verify", observer);
            let errors = verify(&lowered.program, &self.options.target);
            refused.append(&mut planned.refused);
            if errors.is_empty() {
                return Ok((Planned { refused, ..planned }, lowered));
            }
            if !refine {
                return Err(CompileError::Invalid(errors));
            }
            refused.extend(errors.iter().map(ToString::to_string));
            refine = false;
        }
    }
}

/// Gives outputs of a program that only its tail takes, and that bear the names of layers, names that no
/// other tensor has.
fn rename(outputs: &mut [Port], results: &[Port], prepared: &PreparedParts) {
    let mut taken: Vec<String> = prepared.outputs.clone();
    taken.extend(prepared.inputs.iter().map(|port| port.name.clone()));
    for part in &prepared.parts {
        if let PreparedPart::Host { inputs, outputs, .. } = part {
            taken.extend(inputs.iter().chain(outputs).map(|port| port.name.clone()));
        }
    }
    // What the tail hands through keeps its name.
    taken.retain(|name| results.iter().all(|port| port.name != *name));
    let mut seen: Vec<String> = Vec::new();
    for port in outputs {
        let base = port.name.clone();
        let mut n = 2;
        while taken.contains(&port.name) || seen.contains(&port.name) {
            port.name = format!("{base}#{n}");
            n += 1;
        }
        seen.push(port.name.clone());
    }
}

/// An input of the network as the first part that takes it has it, of the type that a user sees.
fn taken(port: &Port, parts: &[Part]) -> Port {
    let takes = |other: &&Port| other.name == port.name;
    let taken = parts.iter().flat_map(|part| &part.inputs).find(takes).unwrap_or(port);
    Port { dtype: port.dtype.clone(), ..taken.clone() }
}

/// An output of the network as the part that gives it has it, of the type that a user sees; it may be an
/// input too.
fn given(name: &str, parts: &[Part], prepared: &PreparedParts) -> Result<Port, CompileError> {
    let has_name = |port: &&Port| port.name == name;
    let gives = parts.iter().rev().flat_map(|part| &part.outputs).find(has_name);
    let port = gives.or_else(|| prepared.inputs.iter().find(has_name)).ok_or_else(|| missing(name))?;
    let seen = prepared.output_types.get(name).filter(|_| port.dtype == "f32");
    let dtype = seen.map_or_else(|| port.dtype.clone(), |&seen| seen.to_owned());
    Ok(Port { dtype, ..port.clone() })
}

/// A module with one function of another, for printing it alone.
fn module_of(module: &Module, func: &str) -> Module {
    let mut alone = module.clone();
    let keep = alone.function(func);
    let body = alone.body();
    alone.erase_where(body, |op| Some(op) != keep);
    alone
}

fn model_stats(graph: &StageGraph) -> ModelStats {
    use strata_isa_spec::Head;
    // A layer that was split by output channels is one entry of the activation table.
    let layers = activation_table(graph, 0).convolutions.values().map(|&n| u64::from(n)).sum();
    let mut stats = ModelStats { layers, ..ModelStats::default() };
    for node in graph.stages.values() {
        stats.macs_direct += node.code.macs_direct();
        stats.macs_winograd += node.code.macs_winograd();
        match node.code.head {
            Head::MatMul(_) | Head::MatMulI16(_) => stats.layers += 1,
            Head::Conv2d(_)
            | Head::DepthwiseConv2d(_)
            | Head::TransposeConv2d(_)
            | Head::Conv2dI16(_)
            | Head::DepthwiseConv2dI16(_)
            | Head::TransposeConv2dI16(_) => {
                stats.weights += node.code.tables().first().map_or(0, |(_, len)| *len);
            }
            _ => {}
        }
    }
    stats
}

fn plan_stats(plan: &Plan, macs: u64, target: &Target, objective: Objective, mode: Mode) -> PlanStats {
    let clock = target.array.clock_hz;
    PlanStats {
        mode: mode.name().to_owned(),
        objective: objective.name().to_owned(),
        phases: plan.phases.len() as u64,
        stages: plan.phases.iter().map(|p| p.stages.len() as u64).sum(),
        largest_phase_stages: plan.phases.iter().map(|p| p.stages.len() as u64).max().unwrap_or(0),
        cycles: plan.cycles,
        lower_bound_cycles: plan.certificate.lower_bound_cycles,
        gap: plan.certificate.gap,
        proven_optimal: plan.certificate.proven_optimal,
        dram_bytes: plan.dram_bytes,
        mac_utilisation: if plan.cycles == 0 {
            0.0
        } else {
            macs as f64 / (plan.cycles as f64 * target.macs() as f64)
        },
        frames_per_second: stats::frames_per_second(clock, plan.cycles),
        ..PlanStats::default()
    }
}

/// Most bytes of activation and of weight SRAM in use: the ends of the highest stream and the highest load.
fn peaks(program: &Program) -> (u64, u64) {
    let streams = program.streams.iter().map(|s| u64::from(s.base) + s.size_bytes());
    let loads = program.phases.iter().flat_map(|p| &p.loads).map(|l| u64::from(l.dst.0) + u64::from(l.bytes));
    (streams.max().unwrap_or(0), loads.max().unwrap_or(0))
}
