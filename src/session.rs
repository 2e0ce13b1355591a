//! Running: a bundle on the machine's interpreter, or the f32 import of a model on the reference evaluator.
//!
//! A user sees tensors by name, in the model's own layout and element type. [`Session`] runs the parts of a
//! bundle one after another. For a program it permutes and quantises what goes in, and dequantises and
//! permutes what comes out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use strata_ir::{ElemType, Module, Tensor, TensorData, eval};
use strata_isa_spec::bundle::{Bundle, Code, Machine, Part, Port, Quantisation};
use strata_isa_spec::interp::{self, Executable, RowObserver, Simd};
use strata_isa_spec::{Program, SegmentKind};

use crate::host::HostPart;
use crate::inputs::{fit, match_inputs};
use crate::io::array::{Array, DType};
use crate::made::{Recorder, StageTensor};
pub use crate::ports::{RunError, from_tensor, plain_port, ports};
pub(crate) use crate::ports::{demand_sound, dtype_of, permute};

/// That tensors hold numbers only: no integer stands for a NaN or an infinity.
///
/// # Errors
/// If one does not; all such are named.
pub(crate) fn demand_finite<'a>(
    tensors: impl Iterator<Item = (impl Display, &'a Array)>,
) -> Result<(), RunError> {
    let problem =
        |(name, array): (_, &Array)| array.not_finite().map(|what| format!("input `{name}` holds {what}"));
    let problems: Vec<String> = tensors.filter_map(problem).collect();
    if problems.is_empty() { Ok(()) } else { Err(RunError::Inputs { problems }) }
}

/// Rounds to the nearest whole number, of two the even one. The library's function is a call on CPUs of the
/// least kind that there is, this is two additions.
#[inline]
fn round_ties_even(value: f32) -> f32 {
    /// Numbers from here on have no bits for halves, up to twice as much.
    const WHOLE: f32 = 8_388_608.0;
    if value.abs() < WHOLE / 2.0 {
        let shift = WHOLE.copysign(value);
        (value + shift) - shift
    } else {
        value.round_ties_even()
    }
}

/// The integer that stands for a real number, divided in single precision as ONNX does, rounded half to even
/// and saturated.
pub fn quantise(real: f64, q: &Quantisation, least: i64, most: i64) -> i64 {
    let scaled = f64::from(round_ties_even(real as f32 / q.scale as f32)) + f64::from(q.zero_point);
    scaled.clamp(least as f64, most as f64) as i64
}

fn elem_of(name: &str) -> Result<ElemType, RunError> {
    ElemType::from_keyword(name).ok_or_else(|| RunError::Bundle(format!("unknown element type `{name}`")))
}

/// The vector instructions that programs run with: those that the environment variable `STRATA_SIMD` names
/// (`portable`, `avx2`, `avx-vnni`, `avx512-vnni`), else the fastest that the CPU has.
///
/// # Errors
/// If it names none, or what this CPU does not have.
pub fn simd() -> Result<Simd, RunError> {
    match std::env::var("STRATA_SIMD") {
        Ok(name) => Ok(name.parse::<Simd>()?),
        Err(_) => Ok(Simd::best()),
    }
}

/// A compiled network that is ready to run, as often as one likes: its programs are verified, their weights
/// are packed. Runs may go on side by side.
#[derive(Clone, Debug)]
pub struct Session {
    bundle: Arc<Bundle>,
    parts: Arc<[ReadyPart]>,
    /// The seed of the order of steps, if runs are checked.
    checked: Option<u64>,
}

/// What is known of a tensor that a stage or the host makes before it is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StageName<'s> {
    /// The tensor's name.
    pub name: &'s str,
    /// Whether it is the result of a node, or of the host.
    pub is_result: bool,
}

/// What runs a part of a bundle.
#[derive(Debug)]
enum ReadyPart {
    Machine(Executable),
    Host(HostPart),
}

/// What a machine part gave, in its order of outputs: the integers in the machine's layout.
type Integers = Vec<TensorData>;

/// What there is to see when a part has run.
enum Ran<'r> {
    /// The integers of a program.
    Integers(&'r Part, &'r Integers),
    /// What the stages of a program made, if that is recorded; the number of its part.
    Stages(usize, Recorder<'r>),
    /// What a program is about to take; the number of its part.
    Inputs(usize, &'r Part, &'r [&'r Array]),
    /// What the host gave; the number of its part.
    Host(usize, &'r Part, &'r [Array]),
}

impl Session {
    /// Prepares a bundle: reads what the host runs of it, checks that its parts fit together, verifies its
    /// programs and packs their weights for the vector instructions that [`simd`] picks.
    ///
    /// # Errors
    /// If a host part is not valid, ports do not fit their program, a part takes what nothing gives, or a
    /// program does not verify; if the CPU does not have the vector instructions that are asked for.
    pub fn new(bundle: Bundle) -> Result<Self, RunError> {
        Self::with_simd(bundle, simd()?)
    }

    /// As [`new`](Self::new), for the vector instructions given.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_simd(bundle: Bundle, simd: Simd) -> Result<Self, RunError> {
        let hosts = demand_whole(&bundle)?;
        Self::of_whole(bundle, hosts, simd)
    }

    /// As [`with_simd`](Self::with_simd), of a bundle of which [`demand_whole`] gave what the host runs.
    ///
    /// # Errors
    /// If a program does not verify.
    pub(crate) fn of_whole(
        bundle: Bundle,
        hosts: Vec<Option<HostPart>>,
        simd: Simd,
    ) -> Result<Self, RunError> {
        let target = &bundle.manifest.target;
        let ready = |(part, host): (&Part, Option<HostPart>)| match (&part.code, host) {
            (_, Some(host)) => Ok(ReadyPart::Host(host)),
            (Code::Machine(machine), None) => {
                let executable = Executable::new(&machine.program, target, &machine.weights, simd)?;
                Ok(ReadyPart::Machine(executable))
            }
            (_, None) => Err(RunError::Bundle("a host part was not prepared".to_owned())),
        };
        let parts = bundle.parts.iter().zip(hosts).map(ready).collect::<Result<_, RunError>>()?;
        Ok(Self { parts, bundle: Arc::new(bundle), checked: None })
    }

    /// The same session, every run of which checks each read of the machine's memories and steps ready stages
    /// in an order drawn from a seed: see [`interp::run_checked`]. The results are the same.
    #[must_use]
    pub fn checked(self, seed: u64) -> Self {
        Self { checked: Some(seed), ..self }
    }

    /// The bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The inputs that [`run`](Self::run) takes.
    pub fn inputs(&self) -> &[Port] {
        &self.bundle.manifest.inputs
    }

    /// The outputs that [`run`](Self::run) gives.
    pub fn outputs(&self) -> &[Port] {
        &self.bundle.manifest.outputs
    }

    /// The outputs that [`run_raw`](Self::run_raw) gives: those of every program.
    pub fn raw_outputs(&self) -> impl Iterator<Item = &Port> {
        let machines = self.bundle.parts.iter().filter(|part| matches!(part.code, Code::Machine(_)));
        machines.flat_map(|part| &part.outputs)
    }

    /// Phases of all programs.
    pub fn n_phases(&self) -> usize {
        self.bundle.machines().map(|machine| machine.program.phases.len()).sum()
    }

    /// Runs the network. Inputs go by name or by position; outputs come in the model's order, dequantised.
    /// `progress` is told how many phases are done.
    ///
    /// # Errors
    /// If the inputs do not fit, the machine refuses a program, or the host fails.
    pub fn run(
        &self,
        inputs: &[(String, Array)],
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Vec<(String, Array)>, RunError> {
        let tensors = self.run_parts(inputs, progress, false, &mut |_| Ok::<_, RunError>(()))?;
        self.outputs_of(tensors)
    }

    /// Runs the network on many inputs, one after another, each as [`run`](Self::run) does. The next input is
    /// asked for when the result of the one before has been taken, so that there is never more than one in
    /// memory, however many there are. Reading an input may fail; its error is passed on, and so is that of
    /// an input that does not fit: the inputs after it are run all the same.
    ///
    /// ```
    /// use strata::io::Array;
    /// use strata::{CompileOptions, Compiler, RunError, Session, Target};
    /// use strata_frontend::proto::encode;
    /// use strata_frontend::zoo::{ZooOptions, build};
    ///
    /// let options = ZooOptions { size: Some((24, 16)), ..ZooOptions::default() };
    /// let onnx = encode(&build("fsrcnn", &options)?);
    /// let compiler = Compiler::new(CompileOptions::new(Target::preset("tile", &[])?));
    /// let session = Session::new(compiler.compile_onnx(&onnx, "fsrcnn.onnx", &mut |_| {})?.bundle)?;
    ///
    /// let greys = [0.0, 0.5, 1.0].map(|grey| Array::f32(vec![1, 1, 16, 24], vec![grey; 16 * 24]));
    /// let inputs = greys.into_iter().map(|image| Ok::<_, RunError>(vec![("#0".to_owned(), image)]));
    /// for outputs in session.run_many(inputs) {
    ///     let outputs = outputs?;
    ///     assert_eq!(outputs[0].1.shape, [1, 1, 32, 48]);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run_many<'s, I, E>(
        &'s self,
        inputs: I,
    ) -> impl Iterator<Item = Result<Vec<(String, Array)>, E>> + use<'s, I, E>
    where
        I: IntoIterator<Item = Result<Vec<(String, Array)>, E>>,
        E: From<RunError>,
    {
        inputs.into_iter().map(|given| Ok(self.run(&given?, &mut |_| {})?))
    }

    /// As [`run_many`](Self::run_many), giving what [`run_raw`](Self::run_raw) gives.
    pub fn run_many_raw<'s, I, E>(
        &'s self,
        inputs: I,
    ) -> impl Iterator<Item = Result<Vec<(String, Array)>, E>> + use<'s, I, E>
    where
        I: IntoIterator<Item = Result<Vec<(String, Array)>, E>>,
        E: From<RunError>,
    {
        inputs.into_iter().map(|given| Ok(self.run_raw(&given?, &mut |_| {})?))
    }

    /// As [`run`](Self::run), handing what every stage made to `each`, part by part: the machine's own
    /// values, recorded as they are written to activation SRAM. The bytes of all stages of a part are held
    /// until it has run. What the host gives comes too, and what programs take.
    ///
    /// # Errors
    /// As [`run`](Self::run); if the bundle does not say which tensors its stages make; what `each` fails
    /// with.
    pub fn run_stages<E: From<RunError>>(
        &self,
        inputs: &[(String, Array)],
        progress: &mut (dyn FnMut(usize) + Send),
        each: &mut dyn FnMut(StageTensor) -> Result<(), E>,
    ) -> Result<Vec<(String, Array)>, E> {
        let channels_first = self.is_channels_first();
        // Numbers are those of `stage_names`.
        let mut first = 0;
        let mut observe = |ran: Ran<'_>| -> Result<(), E> {
            match ran {
                Ran::Integers(..) => Ok(()),
                Ran::Inputs(part, of, arrays) => {
                    for (at, (port, array)) in of.inputs.iter().zip(arrays).enumerate() {
                        let input = StageTensor::of_input(part, port, array, integers_of(port, array)?);
                        each(StageTensor { number: first + at, ..input })?;
                    }
                    first += of.inputs.len();
                    Ok(())
                }
                Ran::Stages(part, recorder) => {
                    let n = recorder.n_tensors();
                    for tensor in recorder.finish(part, channels_first)? {
                        each(StageTensor { number: first + tensor.number, ..tensor })?;
                    }
                    first += n;
                    Ok(())
                }
                Ran::Host(part, of, arrays) => {
                    for (at, (port, array)) in of.outputs.iter().zip(arrays).enumerate() {
                        each(StageTensor { number: first + at, ..StageTensor::of_host(part, port, array) })?;
                    }
                    first += of.outputs.len();
                    Ok(())
                }
            }
        };
        let tensors = self.run_parts(inputs, progress, true, &mut observe)?;
        Ok(self.outputs_of(tensors)?)
    }

    /// The names of all that [`run_stages`](Self::run_stages) may hand on, by its number.
    pub(crate) fn stage_names(&self) -> Vec<StageName<'_>> {
        let names = self.bundle.parts.iter().flat_map(|part| -> Vec<StageName<'_>> {
            fn of_port(port: &Port) -> StageName<'_> {
                StageName { name: &port.name, is_result: true }
            }
            match &part.code {
                Code::Machine(machine) => {
                    let inputs =
                        part.inputs.iter().map(|port| StageName { is_result: false, ..of_port(port) });
                    let tensors = machine.tensors.tensors.iter();
                    let made = tensors.map(|t| StageName { name: &t.name, is_result: !t.nodes.is_empty() });
                    inputs.chain(made).collect()
                }
                Code::Ir(_) | Code::Onnx(_) => part.outputs.iter().map(of_port).collect(),
            }
        });
        names.collect()
    }

    /// Whether the model has the channels of images before their rows, as what it takes and gives shows.
    fn is_channels_first(&self) -> bool {
        let machines = self.bundle.parts.iter().filter(|part| matches!(part.code, Code::Machine(_)));
        let mut ports = machines.flat_map(|part| part.inputs.iter().chain(&part.outputs));
        ports.any(|port| port.perm.len() == 4 && !port.perm.is_sorted())
    }

    /// The network's outputs, of all tensors that pass between parts.
    fn outputs_of(
        &self,
        mut tensors: BTreeMap<&str, Cow<'_, Array>>,
    ) -> Result<Vec<(String, Array)>, RunError> {
        let outputs = self.outputs().iter().map(|port| {
            let array = tensors.remove(port.name.as_str()).ok_or_else(|| not_given(&port.name))?;
            Ok((port.name.clone(), to_declared(port, array.into_owned())?))
        });
        outputs.collect()
    }

    /// Runs the network and gives the integers that each of its programs computes, in the machine's order of
    /// outputs and the user's axes.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_raw(
        &self,
        inputs: &[(String, Array)],
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Vec<(String, Array)>, RunError> {
        let mut raw = Vec::new();
        self.run_parts(inputs, progress, false, &mut |ran| {
            let Ran::Integers(part, integers) = ran else { return Ok(()) };
            for (port, values) in part.outputs.iter().zip(integers) {
                raw.push((port.name.clone(), to_user(port, values, false)?));
            }
            Ok::<_, RunError>(())
        })?;
        Ok(raw)
    }

    /// All tensors that pass between parts, by name; `observe` sees what each part made, if `records` that of
    /// its stages too.
    fn run_parts<'s, E: From<RunError>>(
        &'s self,
        inputs: &'s [(String, Array)],
        progress: &mut (dyn FnMut(usize) + Send),
        records: bool,
        observe: &mut dyn FnMut(Ran<'_>) -> Result<(), E>,
    ) -> Result<BTreeMap<&'s str, Cow<'s, Array>>, E> {
        let given = match_inputs(self.inputs(), inputs)?;
        let names = || self.inputs().iter().map(|port| port.name.as_str());
        demand_finite(names().zip(given.iter().map(AsRef::as_ref)))?;
        let given = given.into_iter().map(to_internal);
        let mut tensors: BTreeMap<&str, Cow<'_, Array>> = names().zip(given).collect();
        let mut phases_before = 0;
        for (index, (part, ready)) in self.bundle.parts.iter().zip(&*self.parts).enumerate() {
            let take = |port: &Port| {
                tensors.get(port.name.as_str()).map(AsRef::as_ref).ok_or_else(|| not_given(&port.name))
            };
            let arrays = part.inputs.iter().map(take).collect::<Result<Vec<&Array>, _>>()?;
            let results = match ready {
                ReadyPart::Machine(executable) => {
                    if records {
                        observe(Ran::Inputs(index, part, &arrays))?;
                    }
                    let done = &mut |phases: usize| progress(phases_before + phases);
                    let mut recorder = match &part.code {
                        Code::Machine(machine) if records => Some(Recorder::new(machine)?),
                        _ => None,
                    };
                    let integers = self.run_machine(part, executable, &arrays, done, recorder.as_mut())?;
                    phases_before += executable.program().phases.len();
                    observe(Ran::Integers(part, &integers))?;
                    recorder.map_or(Ok(()), |recorder| observe(Ran::Stages(index, recorder)))?;
                    let users = part.outputs.iter().zip(&integers);
                    users.map(|(port, values)| to_user(port, values, true)).collect::<Result<Vec<_>, _>>()?
                }
                ReadyPart::Host(host) => {
                    let arrays = arrays.into_iter().cloned().collect();
                    let results = host.run(&part.inputs, &part.outputs, arrays)?;
                    observe(Ran::Host(index, part, &results))?;
                    results
                }
            };
            let results = results.into_iter().map(Cow::Owned);
            tensors.extend(part.outputs.iter().map(|port| port.name.as_str()).zip(results));
        }
        Ok(tensors)
    }

    /// The integers of a program's outputs; a recorder is told what its stages make.
    fn run_machine(
        &self,
        part: &Part,
        executable: &Executable,
        arrays: &[&Array],
        progress: &mut (dyn FnMut(usize) + Send),
        recorder: Option<&mut Recorder<'_>>,
    ) -> Result<Integers, RunError> {
        let mut bytes = Vec::with_capacity(arrays.len());
        for (port, array) in part.inputs.iter().zip(arrays) {
            bytes.push(to_machine(port, array)?.to_bytes());
        }
        let outputs = match (self.checked, &part.code) {
            (Some(seed), Code::Machine(Machine { program, weights, .. })) => {
                let target = &self.bundle.manifest.target;
                let recorder = recorder.map(|recorder| recorder as &mut dyn RowObserver);
                interp::run_checked_with(program, target, weights, &bytes, seed, progress, recorder)?
            }
            _ => match recorder {
                Some(recorder) => executable.run_observed(&bytes, progress, recorder)?,
                None => executable.run(&bytes, progress)?,
            },
        };
        let outputs = part.outputs.iter().zip(outputs).map(|(port, bytes)| {
            TensorData::from_bytes(elem_of(&port.machine_dtype)?, &bytes)
                .ok_or_else(|| RunError::Bundle(format!("output `{}` is not of its type", port.name)))
        });
        outputs.collect()
    }
}

/// The integers that a program takes for an array, in the user's axes.
fn integers_of(port: &Port, array: &Array) -> Result<Array, RunError> {
    let dtype = dtype_of(&port.machine_dtype)?;
    let range = elem_of(&port.machine_dtype)?.int_range().unwrap_or((i64::MIN, i64::MAX));
    let values = array.values.iter().map(|&v| integer_of(port, v, range) as f64).collect();
    Ok(Array { shape: array.shape.clone(), dtype, values })
}

/// What a user gave, as the parts of a network hand it on: all floats are `f32` there.
pub(crate) fn to_internal(array: Cow<'_, Array>) -> Cow<'_, Array> {
    if !array.dtype.is_float() || (array.dtype == DType::F32 && array.is_of_its_type()) {
        return array;
    }
    let values = array.values.iter().map(|&value| DType::F32.round(value)).collect();
    Cow::Owned(Array { shape: array.shape.clone(), dtype: DType::F32, values })
}

/// The integer of a range that a program takes for a number.
fn integer_of(port: &Port, value: f64, (least, most): (i64, i64)) -> i64 {
    match &port.quantisation {
        Some(q) => quantise(value, q, least, most),
        None => (value as i64).clamp(least, most),
    }
}

/// What a program takes for an array: its integers, in the machine's layout.
fn to_machine(port: &Port, array: &Array) -> Result<TensorData, RunError> {
    let no_integers = || RunError::Bundle(format!("input `{}` is not of integers", port.name));
    let elem = elem_of(&port.machine_dtype)?;
    let range = elem.int_range().ok_or_else(no_integers)?;
    if let (ElemType::I8, Some(q)) = (elem, &port.quantisation) {
        let integers: Vec<i8> = array.values.iter().map(|&v| quantise_to_byte(v, q)).collect();
        return Ok(TensorData::I8(permute(&integers, &port.shape, &port.perm)));
    }
    let values = permute(&array.values, &port.shape, &port.perm);
    let integers = values.into_iter().map(|v| integer_of(port, v, range));
    TensorData::from_ints(elem, integers).ok_or_else(no_integers)
}

/// As [`quantise`], to a byte: in a form without branches, which vector instructions can have.
#[inline]
fn quantise_to_byte(real: f64, q: &Quantisation) -> i8 {
    /// Added to a number below 2^22, it leaves a whole number in the low bits, of two nearest the even one.
    const ROUND: f32 = 12_582_912.0;
    /// Beyond this every number saturates.
    const MOST: f32 = 4_000_000.0;
    let scaled = (real as f32 / q.scale as f32).clamp(-MOST, MOST);
    let whole = ((scaled + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    whole.saturating_add(q.zero_point).clamp(-128, 127) as i8
}

/// What a network gave, as the model declares it: a float of another type than the parts hand on.
fn to_declared(port: &Port, array: Array) -> Result<Array, RunError> {
    let dtype = dtype_of(&port.dtype)?;
    if !dtype.is_float() || !array.dtype.is_float() {
        return Ok(array);
    }
    let values = array.values.iter().map(|&value| dtype.round(value)).collect();
    Ok(Array { dtype, values, ..array })
}

/// That the parts of a bundle fit together, and what the host runs of each.
///
/// # Errors
/// If a host part is not valid, ports do not fit their program, or a part takes what nothing gives.
pub(crate) fn demand_whole(bundle: &Bundle) -> Result<Vec<Option<HostPart>>, RunError> {
    let problems = bundle.manifest.target.problems();
    if !problems.is_empty() {
        return Err(RunError::Bundle(format!("no machine is like its target: {}", problems.join("; "))));
    }
    let network = &bundle.manifest;
    // The permutation of a port of the network is not looked at: parts have their own.
    for port in network.inputs.iter().chain(&network.outputs) {
        demand_sound(&plain_port(&port.name, &port.shape, &port.dtype), false).map_err(RunError::Bundle)?;
    }
    let host = |(index, part): (usize, &Part)| {
        let of_part = |problem: String| RunError::Bundle(format!("part {index}: {problem}"));
        let takes = part.inputs.iter().try_for_each(|port| demand_sound(port, false));
        let gives = part.outputs.iter().try_for_each(|port| demand_sound(port, true));
        takes.and(gives).map_err(of_part)?;
        if let Code::Machine(machine) = &part.code {
            check_ports(&machine.program, part)?;
        }
        let host = HostPart::load(&part.code).map_err(of_part)?;
        host.iter().try_for_each(|host| host.demand_ports(part)).map_err(of_part)?;
        Ok(host)
    };
    let hosts = bundle.parts.iter().enumerate().map(host).collect::<Result<_, RunError>>()?;
    check_flow(bundle)?;
    Ok(hosts)
}

fn not_given(name: &str) -> RunError {
    RunError::Bundle(format!("nothing gives `{name}`"))
}

/// That every part takes what is there, in the shape in which it is, and that the network's outputs are
/// given.
fn check_flow(bundle: &Bundle) -> Result<(), RunError> {
    let mut there: BTreeMap<&str, &Port> =
        bundle.manifest.inputs.iter().map(|port| (port.name.as_str(), port)).collect();
    let fits = |there: &BTreeMap<&str, &Port>, port: &Port| match there.get(port.name.as_str()) {
        None => Err(not_given(&port.name)),
        Some(given) if given.shape != port.shape && !given.varies => Err(RunError::Bundle(format!(
            "`{}` is given as {:?} and taken as {:?}",
            port.name, given.shape, port.shape
        ))),
        Some(_) => Ok(()),
    };
    for part in &bundle.parts {
        part.inputs.iter().try_for_each(|port| fits(&there, port))?;
        there.extend(part.outputs.iter().map(|port| (port.name.as_str(), port)));
    }
    bundle.manifest.outputs.iter().try_for_each(|port| fits(&there, port))
}

/// Shapes, permutations and element types of a part's ports against the segments of its program.
fn check_ports(program: &Program, part: &Part) -> Result<(), RunError> {
    for (kind, ports) in [(SegmentKind::Input, &part.inputs), (SegmentKind::Output, &part.outputs)] {
        let sizes: Vec<u64> = program.segments.iter().filter(|s| s.kind == kind).map(|s| s.bytes).collect();
        if sizes.len() != ports.len() {
            let (n, have) = (sizes.len(), ports.len());
            return Err(RunError::Bundle(format!(
                "the program has {n} {kind:?} segments, the manifest {have}"
            )));
        }
        for (port, bytes) in ports.iter().zip(sizes) {
            let (from, to) = match kind {
                SegmentKind::Input => (&port.shape, &port.machine_shape),
                _ => (&port.machine_shape, &port.shape),
            };
            let mut axes = port.perm.clone();
            axes.sort_unstable();
            let permutes = axes.iter().copied().eq(0..from.len())
                && port.perm.iter().map(|&p| from[p]).eq(to.iter().copied());
            let want = elem_of(&port.machine_dtype)?.size_bytes() as u128
                * port.machine_shape.iter().map(|&e| e as u128).product::<u128>();
            if !permutes || want != u128::from(bytes) {
                return Err(RunError::Bundle(format!(
                    "`{}` does not fit its segment of {bytes} bytes",
                    port.name
                )));
            }
        }
    }
    Ok(())
}

/// What a program gave, as its user sees it.
pub(crate) fn to_user(port: &Port, integers: &TensorData, dequantise: bool) -> Result<Array, RunError> {
    let dtype = dtype_of(if dequantise { &port.dtype } else { &port.machine_dtype })?;
    let meant = |v: i64| match &port.quantisation {
        Some(q) if dequantise => {
            let real = f64::from((q.scale * (v as f64 - f64::from(q.zero_point))) as f32);
            // Of whole numbers what lies between two stands for the nearer.
            if dtype.is_float() { dtype.round(real) } else { real.round() }
        }
        _ => v as f64,
    };
    let values = if let TensorData::I8(bytes) = integers {
        let of_bits: Vec<f64> = (0..=u8::MAX).map(|bits| meant(i64::from(bits as i8))).collect();
        let bytes = permute(bytes, &port.machine_shape, &port.perm);
        bytes.into_iter().map(|byte| of_bits[usize::from(byte as u8)]).collect()
    } else {
        let not_integers = || RunError::Bundle(format!("output `{}` is not of integers", port.name));
        let integers = integers.to_ints().ok_or_else(not_integers)?;
        permute(&integers, &port.machine_shape, &port.perm).into_iter().map(meant).collect()
    };
    Ok(Array { shape: port.shape.clone(), dtype, values })
}

/// Arrays in the order and layout of `@main`'s inputs as its arguments.
///
/// # Errors
/// If there are not as many as arguments, or one is of another shape.
pub fn to_arguments(module: &Module, arrays: &[Array]) -> Result<Vec<Tensor>, RunError> {
    let func = module.function("main").ok_or_else(|| RunError::Bundle("no function `main`".to_owned()))?;
    let takes = ports(module, func, false)?;
    let found: Vec<Option<&Array>> = arrays.iter().map(Some).collect();
    as_arguments(&takes, &fit(&takes, &found, Vec::new())?)
}

/// Arrays that fit ports as the arguments of their function.
fn as_arguments(takes: &[Port], arrays: &[Cow<'_, Array>]) -> Result<Vec<Tensor>, RunError> {
    let tensors = takes.iter().zip(arrays).map(|(port, array)| {
        let values = permute(&array.values, &port.shape, &port.perm);
        let elem = elem_of(&port.machine_dtype)?;
        if let Some((least, greatest)) = elem.int_range()
            && let Some(v) = values.iter().find(|&&v| v < least as f64 || v > greatest as f64)
        {
            let problem = format!("input `{}` holds {v}, which does not fit in {elem}", port.name);
            return Err(RunError::Inputs { problems: vec![problem] });
        }
        let data = match TensorData::from_ints(elem, values.iter().map(|&v| v as i64)) {
            Some(data) => data,
            None => TensorData::F32(values.iter().map(|&v| v as f32).collect()),
        };
        Ok(Tensor::new(port.machine_shape.clone(), data))
    });
    tensors.collect()
}

/// Evaluates the f32 import of a model on the reference evaluator.
///
/// # Errors
/// If the inputs do not fit, or an op cannot be evaluated.
pub fn evaluate(module: &Module, inputs: &[(String, Array)]) -> Result<Vec<(String, Array)>, RunError> {
    let func = module.function("main").ok_or_else(|| RunError::Bundle("no function `main`".to_owned()))?;
    let (takes, gives) = (ports(module, func, false)?, ports(module, func, true)?);
    let arrays = match_inputs(&takes, inputs)?;
    let tensors = as_arguments(&takes, &arrays)?;
    let results = eval::eval_function(module, func, tensors)?;
    gives.iter().zip(results).map(|(port, t)| Ok((port.name.clone(), from_tensor(port, &t)?))).collect()
}

#[cfg(test)]
mod tests {
    use strata_isa_spec::bundle::Quantisation;

    use super::{quantise, quantise_to_byte, round_ties_even};

    #[test]
    fn rounds_as_the_library_does() {
        let halves = (-2000..=2000).map(|n| n as f32 / 4.0);
        let ends =
            [0.0f32, 0.5, 1.5, 2.5, 4_194_303.5, 4_194_304.5, 8_388_607.5, 8_388_609.0, 3e38, f32::EPSILON];
        let around = ends.into_iter().flat_map(|v| [v, v.next_up(), v.next_down()]);
        for value in halves.chain(around).flat_map(|v| [v, -v]) {
            assert_eq!(round_ties_even(value), value.round_ties_even(), "{value}");
        }
    }

    #[test]
    fn bytes_are_quantised_as_other_integers_are() {
        let scales = [1.0, 0.5, 0.007_843_138, 3.0e-5, 1.7e9, f64::from(f32::MIN_POSITIVE), 1.0e-30];
        let steps = (-1030..=1030).map(|n| f64::from(n) / 4.0);
        let ends = [0.0, -0.0, 1.0e-40, 3.9e6, 4.1e6, 8_388_607.5, 3.0e38, f64::from(f32::MAX)];
        let values: Vec<f64> = steps.chain(ends).flat_map(|v| [v, -v]).collect();
        for scale in scales {
            for zero_point in [0, -128, 127, 13] {
                let q = Quantisation { scale, zero_point };
                for real in values.iter().flat_map(|&v| [v, v * scale]) {
                    let expected = quantise(real, &q, -128, 127);
                    assert_eq!(i64::from(quantise_to_byte(real, &q)), expected, "{real} by {q:?}");
                }
            }
        }
    }
}
