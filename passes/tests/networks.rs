//! Random networks the whole way down: compiled layer by layer and multi-layer, for machines of many sizes
//! and for every objective, each program gives the evaluator's results byte for byte, in fixed order and,
//! checked, in random ones.
//!
//! `STRATA_NETWORKS` sets how many networks are tried, `STRATA_SEED` the first seed. Each is tried on one
//! machine.

use std::sync::atomic::{AtomicU64, Ordering};

use strata_backend::model::Plan;
use strata_ir::eval::eval_function;
use strata_ir::eval::random::{RandomOptions, Rng, random_inputs, random_network};
use strata_ir::pass::{self, DriverOptions, PassContext, PassFailure, Registry};
use strata_ir::{Module, OpId};
use strata_isa_spec::frames::{self, Ahead, FRAMES, of_frames};
use strata_isa_spec::interp::{self, Executable, Rings, Simd};
use strata_isa_spec::timed::{self, DmaTime, Timing};
use strata_isa_spec::{Program, Target};
use strata_passes::fuse::pass::{Refused, does_not_fit};

/// Networks that a plain run of the test tries.
const NETWORKS: u64 = 100;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// A network, and the machine that it is compiled for.
struct Trial {
    seed: u64,
    options: RandomOptions,
    split_bytes: u64,
    objective: &'static str,
    target: Target,
}

impl Trial {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(!seed);
        let options = RandomOptions {
            n_layers: rng.count(2, 14),
            max_extent: rng.pick(&[8, 12, 12, 24]),
            max_channels: rng.pick(&[4, 16, 16, 24]),
            i16_percent: rng.pick(&[0, 0, 0, 0, 40, 100]),
            reshapes: !rng.one_in(8),
        };
        let preset = rng.pick(&["micro", "micro", "x1", "cascade", "tile"]);
        let activation = rng.pick(&["2KiB", "3KiB", "5KiB", "8KiB", "12KiB", "20KiB", "64KiB", "256KiB"]);
        let weight = rng.pick(&["12KiB", "24KiB", "128KiB"]);
        let split_bytes = rng.pick(&[3_000, 6_000, 64_000]);
        let objective = rng.pick(&["latency", "latency", "traffic", "energy", "edp", "sram"]);
        let settings = [
            ("memory.activation", activation),
            ("memory.weight", weight),
            ("limits.stages", rng.pick(&["128", "128", "128", "12", "6"])),
            ("limits.streams", rng.pick(&["256", "256", "256", "7", "4"])),
        ];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let target = Target::preset(preset, &settings).expect("a preset");
        Self { seed, options, split_bytes, objective, target }
    }

    /// The program and its weights; `None` if a stage does not fit the machine.
    fn compile(&self, module: &Module, mode: &str) -> Result<Option<(Program, Vec<u8>)>, String> {
        let mut module = module.clone();
        let mut context = PassContext::new();
        context.insert(self.target.clone());
        let Self { split_bytes, objective, .. } = self;
        let passes = format!(
            "form-stages,split-channels{{budget-bytes={split_bytes}}},\
             fuse-layers{{mode={mode},objective={objective}}},schedule"
        );
        let registry = Registry::new(strata_passes::PASSES.iter().chain(strata_backend::PASSES).copied());
        let pipeline = registry.parse(&passes).map_err(|e| e.to_string())?;
        let options = DriverOptions::default();
        let ran = pass::run(&mut module, &pipeline, &mut context, &options, &mut |_| {});
        if let Err(stopped) = ran {
            return match &stopped.failure {
                PassFailure::Pass(error) if does_not_fit(error) => Ok(None),
                _ => Err(stopped.to_string()),
            };
        }
        if let Some(Refused(faults)) = context.get::<Refused>().filter(|Refused(faults)| !faults.is_empty()) {
            return Err(format!("the judge refused a plan on the way: {}", faults.join("; ")));
        }
        let lowered = strata_backend::emit::lower(&module).map_err(|e| e.to_string())?;
        let timing = timed::simulate(&lowered.program, &self.target);
        adds_up(&timing)?;
        let plan = context.get::<Plan>().ok_or("there is no plan")?;
        self.is_above_its_bounds(plan, &timing)?;
        self.frames_are_above_their_bound(plan, &lowered.program, &timing)?;
        Ok(Some((lowered.program, lowered.weights)))
    }

    /// Whether a program takes no less than its plan says that any plan does.
    fn is_above_its_bounds(&self, plan: &Plan, timing: &Timing) -> Result<(), String> {
        let (cycles, bytes) = (timing.cycles as f64, timing.dram_bytes.total() as f64);
        let energy = timing.energy_pj.total;
        let cost = match self.objective {
            "latency" => cycles,
            "traffic" => bytes,
            "energy" => energy,
            "edp" => energy * cycles,
            _ => f64::INFINITY,
        };
        let bound = &plan.certificate;
        for (what, cost, bound) in [
            ("cycles", cycles, bound.lower_bound_cycles as f64),
            ("bytes", bytes, plan.dram_bytes.compulsory as f64),
            ("bytes of a frame", bytes, bound.frame_bound.bytes as f64),
            (self.objective, cost, bound.lower_bound),
        ] {
            // Sums of real numbers may differ in their last digits.
            if cost < bound * (1.0 - 1e-12) {
                return Err(format!("{what}: {cost} for a bound of {bound}"));
            }
        }
        Ok(())
    }

    /// Whether a frame of a stream takes no less than its plan says that any does, and no more bytes than one
    /// alone.
    fn frames_are_above_their_bound(
        &self,
        plan: &Plan,
        program: &Program,
        timing: &Timing,
    ) -> Result<(), String> {
        let bound = plan.certificate.frame_bound;
        let frame = frames::simulate(program, &self.target).map_err(|errors| {
            format!("frames: {}", errors.iter().map(ToString::to_string).collect::<String>())
        })?;
        let moved = frame.dram_bytes.total();
        if frame.cycles < bound.cycles || moved < bound.bytes || moved > timing.dram_bytes.total() {
            return Err(format!("a frame of a stream: {frame:?} for a bound of {bound:?}"));
        }
        Ok(())
    }

    /// Whether the network fits the machine in both modes; what is wrong, if anything is.
    fn run(&self, count: &Count) -> Result<bool, String> {
        let module = random_network(self.seed, &self.options);
        let func = module.function("main").ok_or("there is no @main")?;
        let tensors = random_inputs(&module, func, self.seed);
        let bytes = |tensors: &[strata_ir::Tensor]| -> Vec<Vec<u8>> {
            tensors.iter().map(|tensor| tensor.data().to_bytes()).collect()
        };
        let inputs = bytes(&tensors);
        let expected = bytes(&eval_function(&module, func, tensors).map_err(|e| e.to_string())?);
        let stream = Stream::new(&module, func, self.seed)?;
        let mut fits = true;
        for mode in ["single", "multi"] {
            let Some((program, weights)) = self.compile(&module, mode).map_err(|e| format!("{mode}: {e}"))?
            else {
                fits = false;
                continue;
            };
            let written = (Simd::best(), Rings::AsWritten);
            let larger = Simd::available().map(|simd| (simd, Rings::Larger));
            for (simd, rings) in larger.chain([written]) {
                let found = Executable::with_rings(&program, &self.target, &weights, simd, rings)
                    .and_then(|executable| executable.run(&inputs, &mut |_| {}));
                if found.map_err(|e| format!("{mode}: {e}"))? != expected {
                    let level = simd.level();
                    return Err(format!(
                        "{mode}, {level}, {rings:?}: the results differ from the evaluator's"
                    ));
                }
            }
            for order in 0..2 {
                let seed = self.seed.wrapping_mul(2) + order;
                let found = interp::run_checked(&program, &self.target, &weights, &inputs, seed, &mut |_| {});
                if found.map_err(|e| format!("{mode}, order {seed}: {e}"))? != expected {
                    return Err(format!("{mode}, order {seed}: the results differ"));
                }
            }
            let ahead = stream.run(&program, &self.target, &weights);
            count.early(ahead.map_err(|e| format!("{mode}, frames: {e}"))?);
            count.of(&program);
        }
        Ok(fits)
    }
}

/// Frames of a network, one after another, each with inputs of its own.
struct Stream {
    /// Inputs of all frames, and what the evaluator makes of them.
    inputs: Vec<Vec<u8>>,
    expected: Vec<Vec<u8>>,
}

impl Stream {
    fn new(module: &Module, func: OpId, seed: u64) -> Result<Self, String> {
        let mut stream = Self { inputs: Vec::new(), expected: Vec::new() };
        for frame in 0..u64::from(FRAMES) {
            let inputs = random_inputs(module, func, seed ^ (frame << 32));
            stream.inputs.extend(inputs.iter().map(|tensor| tensor.data().to_bytes()));
            let outputs = eval_function(module, func, inputs).map_err(|e| e.to_string())?;
            stream.expected.extend(outputs.iter().map(|tensor| tensor.data().to_bytes()));
        }
        Ok(stream)
    }

    /// Runs the program of the frames, in larger rings, and in a random order; what comes early in it.
    fn run(&self, program: &Program, target: &Target, weights: &[u8]) -> Result<Ahead, String> {
        let timing = frames::simulate(program, target).map_err(|errors| format!("{errors:?}"))?;
        // Weights come early here also where that takes no fewer cycles.
        let ahead = Ahead { weights: true, ..timing.ahead };
        let frames = of_frames(program, FRAMES, &ahead);
        let is_queued_early = frames != of_frames(program, FRAMES, &Ahead { weights: false, ..ahead });
        let inputs = &self.inputs;
        let larger = Executable::new(&frames, target, weights, Simd::best())
            .and_then(|executable| executable.run(inputs, &mut |_| {}));
        let checked = interp::run_checked(&frames, target, weights, inputs, 1, &mut |_| {});
        for found in [larger, checked] {
            if found.map_err(|e| e.to_string())? != self.expected {
                return Err("the results differ from the evaluator's".to_owned());
            }
        }
        Ok(Ahead { weights: is_queued_early, ..ahead })
    }
}

/// Whether the queues of the DMA engine are accounted for to the cycle, and DRAM does one thing at a time.
fn adds_up(timing: &Timing) -> Result<(), String> {
    for (index, phase) in timing.phases.iter().enumerate() {
        let DmaTime { load, store, weights } = phase.dma;
        let whole = [load, store, weights].iter().all(|queue| queue.total() == phase.cycles);
        if !whole || phase.dma.dram_busy() > phase.cycles {
            return Err(format!("the times of phase {index} do not add up: {phase:?}"));
        }
    }
    Ok(())
}

/// What the programs have in them.
#[derive(Debug, Default)]
struct Count {
    programs: AtomicU64,
    /// Programs with a ring that several stages of a phase write.
    joined_rings: AtomicU64,
    /// Programs with streams of a phase that share bytes.
    shared_bytes: AtomicU64,
    /// Programs with streams whose first rows stand elsewhere.
    prefixes: AtomicU64,
    /// Programs whose frames have weights or rows brought by the frame before.
    early_weights: AtomicU64,
    early_rows: AtomicU64,
    /// Stages, and phases.
    stages: AtomicU64,
    phases: AtomicU64,
}

impl Count {
    fn early(&self, ahead: Ahead) {
        self.early_weights.fetch_add(u64::from(ahead.weights), Ordering::Relaxed);
        self.early_rows.fetch_add(u64::from(ahead.rows.is_some()), Ordering::Relaxed);
    }

    fn of(&self, program: &Program) {
        let add = |to: &AtomicU64, n: u64| to.fetch_add(n, Ordering::Relaxed);
        let outs = |phase: &strata_isa_spec::Phase| -> Vec<u32> {
            let mut outs: Vec<u32> = phase
                .stages
                .iter()
                .map(|s| s.code.out)
                .filter(|out| out.rows > 0)
                .map(|out| out.tensor)
                .collect();
            outs.sort_unstable();
            outs
        };
        let is_ring = |stream: u32| !program.streams[stream as usize].is_whole();
        let joins = program.phases.iter().any(|p| outs(p).windows(2).any(|w| w[0] == w[1] && is_ring(w[0])));
        let range = |stream: u32| {
            let s = &program.streams[stream as usize];
            u64::from(s.base)..u64::from(s.base) + s.size_bytes()
        };
        let meet = |a: u32, b: u32| a != b && range(a).start < range(b).end && range(b).start < range(a).end;
        let shares = program.phases.iter().any(|phase| {
            let reads: Vec<u32> =
                phase.stages.iter().flat_map(|s| s.code.reads()).map(|v| v.tensor).collect();
            outs(phase).into_iter().any(|out| reads.iter().any(|&read| meet(out, read)))
        });
        add(&self.programs, 1);
        add(&self.joined_rings, u64::from(joins));
        add(&self.shared_bytes, u64::from(shares));
        add(&self.prefixes, u64::from(program.streams.iter().any(|s| s.prefix.is_some())));
        add(&self.stages, program.phases.iter().map(|p| p.stages.len() as u64).sum());
        add(&self.phases, program.phases.len() as u64);
    }
}

/// Networks of which a plan was once refused: where the planner counted what first rows that stay spare in
/// another way than the scheduler does, where the bound counted columns that nobody reads, where plans have
/// orders in which slices must not stand behind pieces that they do not read, and where the simulation let
/// rows pass a weight load of the phase before that DRAM was still busy with, so that plans took fewer cycles
/// than what they move takes.
const FOUND_DEFECTS: [u64; 11] = [
    1_036_146, 1_002_456, 2_005_017, 1_001_107, 1_001_428, 1_003_870, 1_001_126, 1_002_545, 1_002_923,
    1_004_329, 1_004_682,
];

#[test]
fn networks_that_found_defects_hold() {
    for seed in FOUND_DEFECTS {
        assert_eq!(Trial::new(seed).run(&Count::default()), Ok(true), "seed {seed}");
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the counts are what the named command reports")]
fn random_networks_compute_what_the_evaluator_does() {
    let (first, n) = (number("STRATA_SEED", 0), number("STRATA_NETWORKS", NETWORKS));
    let (count, unfit, next) = (Count::default(), AtomicU64::new(0), AtomicU64::new(first));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let faults: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let mut faults = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + n {
                    return faults;
                }
                let trial = Trial::new(seed);
                match trial.run(&count) {
                    Ok(true) => {}
                    Ok(false) => _ = unfit.fetch_add(1, Ordering::Relaxed),
                    Err(fault) => {
                        let Trial { options, target, objective, split_bytes, .. } = &trial;
                        let memory = &target.memory;
                        faults.push(format!(
                            "seed {seed} ({options:?}, {} of {} and {} bytes, {objective}, split \
                                {split_bytes}): {fault}",
                            target.name, memory.activation, memory.weight
                        ));
                    }
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let unfit = unfit.into_inner();
    println!("{n} networks from seed {first}, {unfit} do not fit their machine: {count:?}");
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
    let enough = |part: &AtomicU64, one_in: u64| part.load(Ordering::Relaxed) * one_in >= n;
    assert!(unfit * 2 <= n && enough(&count.programs, 1), "{unfit} do not fit: {count:?}");
    assert!(enough(&count.joined_rings, 20) && enough(&count.shared_bytes, 20), "{count:?}");
    assert!(enough(&count.prefixes, 100), "{count:?}");
    assert!(enough(&count.early_weights, 100) && enough(&count.early_rows, 20), "{count:?}");
}
