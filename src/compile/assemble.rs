//! From parts at the stages level to a bundle: plans, schedules and emits every machine part.

use std::collections::BTreeMap;

use strata_backend::emit::Lowered;
use strata_backend::model::{Plan, StageGraph};
use strata_ir::Module;
use strata_ir::pass::{Level, PassError};
use strata_ir::text::to_string;
use strata_isa_spec::bundle::{Bundle, Code, FORMAT_VERSION, Machine, Manifest, Part, Port};
use strata_isa_spec::verify::verify;
use strata_isa_spec::{Program, Target, timed};

use super::checkpoint::{Checkpoint, CheckpointPart, HostCode, Record};
use super::forms::{Forms, Planned, Reached};
use super::parts::{PreparedPart, PreparedParts};
use super::{Aim, Clock, CompileError, Compiled, Compiler, Event, given, missing};
use crate::ports::as_taken;
use crate::session;
use crate::stats::{self, EnergyStats, PlanStats, SimulatedStats, Stats, StreamStats};
use crate::timings::Timings;

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
        aim: Aim,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Compiled, CompileError> {
        let mut reached: Vec<Reached> = Vec::new();
        let emitted = self.emit_all(prepared, aim, &mut reached, clock, observer);
        for level in [Level::Stages, Level::Phases, Level::Sched] {
            if let Some(checkpoint) = self.reached(level, prepared, aim, &reached) {
                observer(Event::Reached(&checkpoint));
            }
        }
        let (mut parts, mut plans) = (Vec::new(), Vec::new());
        let mut stats: Option<Stats> = None;
        let mut emitted = emitted?.into_iter();
        for part in &prepared.parts {
            let emitted = match part {
                PreparedPart::Machine(_) => emitted.next(),
                PreparedPart::Host(HostCode { code, inputs, outputs }) => {
                    let (inputs, outputs) = (inputs.clone(), outputs.clone());
                    parts.push(Part { inputs, outputs, code: code.clone() });
                    continue;
                }
            };
            let mut emitted = emitted.ok_or_else(|| missing("a program"))?;
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
                inputs: outputs.iter().map(as_taken).collect(),
                outputs: results,
                code: Code::Ir(text),
            });
            parts.push(Part { inputs, outputs, code: Code::Machine(emitted.machine) });
            parts.extend(tail);
        }
        let mut stats = stats.unwrap_or_default();
        clock.begin("simulate", observer);
        self.add_stream(&mut stats, &parts)?;
        let record = &prepared.record;
        stats.model.parameters = record.parameters;
        stats.precision = record.precision.clone();
        stats.host = record.host.clone().map(|mut host| {
            host.parts = parts.iter().filter(|part| !matches!(part.code, Code::Machine(_))).count() as u64;
            host
        });
        let manifest = Manifest {
            format: FORMAT_VERSION,
            producer: concat!("strata ", env!("CARGO_PKG_VERSION")).to_owned(),
            network: record.network.clone(),
            target: self.options.target.clone(),
            inputs: record.inputs.iter().map(|port| taken(port, &parts)).collect(),
            outputs: record
                .outputs
                .iter()
                .map(|name| given(name, &parts, record))
                .collect::<Result<_, _>>()?,
        };
        // The time that a compile took is no part of what it made: the same input gives the same bytes.
        let bundle =
            Bundle { manifest, parts, stats: serde_json::to_value(&stats).ok(), dumps: BTreeMap::new() };
        Ok(Compiled { bundle, stats, plans, timings: Timings::default() })
    }

    /// Adds what a frame takes where one follows another. Of several programs that is not known: each would
    /// find the weights of another in weight SRAM.
    fn add_stream(&self, stats: &mut Stats, parts: &[Part]) -> Result<(), CompileError> {
        let programs = parts.iter().filter_map(|part| match &part.code {
            Code::Machine(machine) => Some(&machine.program),
            Code::Ir(_) | Code::Onnx(_) => None,
        });
        let (Some(simulated), [program]) = (&mut stats.simulated, &programs.collect::<Vec<_>>()[..]) else {
            return Ok(());
        };
        let bound = stats.plan.frame_bound;
        let stream = StreamStats::of(program, &self.options.target, bound);
        simulated.stream = stream.map_err(CompileError::Invalid)?;
        Ok(())
    }

    /// Plans, schedules and emits the parts of the machine, in order. `reached` gets the modules of each.
    fn emit_all(
        &self,
        prepared: &PreparedParts,
        aim: Aim,
        reached: &mut Vec<Reached>,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<Emitted>, CompileError> {
        let of = prepared.parts.len();
        let mut all = Vec::new();
        for (index, part) in prepared.parts.iter().enumerate() {
            let PreparedPart::Machine(forms) = part else { continue };
            if of > 1 {
                observer(Event::Part { index, of, on_host: false, is_planned: true });
            }
            let mut levels = Reached::default();
            let emitted = self.emit(forms, aim, &mut levels, clock, observer);
            reached.push(levels);
            all.push(emitted.map_err(|error| self.with_sizes_that_do(error, prepared, aim))?);
        }
        Ok(all)
    }

    /// The checkpoint at a level of planning, if all parts of the machine have reached it.
    fn reached(
        &self,
        level: Level,
        prepared: &PreparedParts,
        aim: Aim,
        reached: &[Reached],
    ) -> Option<Checkpoint> {
        let mut reached = reached.iter();
        let mut module_of = |forms: &Forms| {
            let levels = reached.next()?;
            let module = match level {
                Level::Stages => &levels.stages,
                Level::Phases => &levels.phases,
                _ => &levels.sched,
            };
            let module = module.clone()?;
            Some(CheckpointPart::Machine { module, model: Some(forms.model.clone()) })
        };
        let parts = prepared.parts.iter().map(|part| match part {
            PreparedPart::Machine(forms) => module_of(forms),
            PreparedPart::Host(host) => Some(CheckpointPart::Host(host.clone())),
        });
        let record = Record { options: self.options.to_record(aim), ..prepared.record.clone() };
        Some(Checkpoint::of_parts(level, record, parts.collect::<Option<_>>()?))
    }

    /// From stages to a verified program.
    fn emit(
        &self,
        forms: &Forms,
        aim: Aim,
        reached: &mut Reached,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Emitted, CompileError> {
        let target = &self.options.target;
        // The network's own stages: rewrites make others of them, and in a plan those that run in strips are
        // several.
        let func = forms.as_imported.function("main").ok_or_else(|| missing("main"))?;
        let graph = StageGraph::from_module(&forms.as_imported, func)
            .map_err(|e| CompileError::of_pass("fuse-layers", PassError::other(e)))?;
        let (planned, lowered) = self.lowered(forms, aim, reached, clock, observer)?;
        if forms.is_given() {
            given::demand_same_results(&forms.as_imported, &lowered, target, observer)?;
        }
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
            model: forms.model.clone(),
            plan: plan_stats(&plan, timing.macs, target),
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
        let Lowered { program, weights, names, ops, tensors } = lowered;
        let machine = Machine { program, weights, names, ops, tensors: Box::new(tensors) };
        Ok(Emitted { machine, inputs, outputs, tail, stats, plan, graph })
    }

    /// A plan and its program, which verifies. Where that of a plan with refinements does not, a defect,
    /// there are none in the plan.
    fn lowered(
        &self,
        forms: &Forms,
        aim: Aim,
        reached: &mut Reached,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<(Planned, Lowered), CompileError> {
        let mut refused = Vec::new();
        let mut refine = true;
        loop {
            let mut planned = self.plan(forms, aim, refine, reached, clock, observer)?;
            clock.begin("emit", observer);
            let lowered = strata_backend::emit::lower(&planned.module)?;
            clock.begin("verify", observer);
            let errors = verify(&lowered.program, &self.options.target);
            refused.append(&mut planned.refused);
            if errors.is_empty() {
                return Ok((Planned { refused, ..planned }, lowered));
            }
            // A plan that a checkpoint brings is not made anew.
            if !refine || forms.is_planned() {
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
    let mut taken: Vec<String> = prepared.record.outputs.clone();
    taken.extend(prepared.record.inputs.iter().map(|port| port.name.clone()));
    for part in &prepared.parts {
        if let PreparedPart::Host(HostCode { inputs, outputs, .. }) = part {
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
fn given(name: &str, parts: &[Part], record: &Record) -> Result<Port, CompileError> {
    let has_name = |port: &&Port| port.name == name;
    let gives = parts.iter().rev().flat_map(|part| &part.outputs).find(has_name);
    let port = gives.or_else(|| record.inputs.iter().find(has_name)).ok_or_else(|| {
        CompileError::Checkpoint(format!("no part gives the output `{name}` of the network"))
    })?;
    let seen = record.output_types.get(name).filter(|_| port.dtype == "f32");
    let dtype = seen.unwrap_or(&port.dtype).clone();
    Ok(Port { dtype, ..port.clone() })
}

/// A module with one function of another, for printing it alone.
fn module_of(module: &Module, func: &str) -> Module {
    let mut alone = module.clone();
    let top = alone.top();
    alone.op_mut(top).extra.clear();
    let keep = alone.function(func);
    let body = alone.body();
    alone.erase_where(body, |op| Some(op) != keep);
    alone
}

fn plan_stats(plan: &Plan, macs: u64, target: &Target) -> PlanStats {
    let clock = target.array.clock_hz;
    PlanStats {
        mode: plan.mode.name().to_owned(),
        objective: plan.objective.name().to_owned(),
        phases: plan.phases.len() as u64,
        stages: plan.phases.iter().map(|p| p.stages.len() as u64).sum(),
        largest_phase_stages: plan.phases.iter().map(|p| p.stages.len() as u64).max().unwrap_or(0),
        cycles: plan.cycles,
        lower_bound_cycles: plan.certificate.lower_bound_cycles,
        frame_bound: plan.certificate.frame_bound,
        bound_argument: plan.certificate.argument,
        gap: plan.certificate.gap,
        proven_optimal: plan.certificate.proven_optimal,
        offer_limited: plan.certificate.offer_limited,
        search_limited: plan.certificate.search_limited,
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
