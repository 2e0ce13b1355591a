//! How far two sets of arrays are from each other, tensor by tensor.
//!
//! The second is the reference: signal is what it holds, noise what the first has otherwise. Tensors are
//! matched by name, and taken in the order of the first, which is that of the network where it knows one.
//! Integers of one scale are compared as integers, all else as real numbers. What integers stand for is told
//! by their scale: a folder whose real numbers are others is refused. A NaN equals a NaN, an infinity the
//! same infinity. Elements that no stage made on one of the sides are passed over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use strata_isa_spec::bundle::Quantisation;

use crate::dump::{DumpError, Entry, Index, OutputEntry};
use crate::io::array::{Array, n_elements};
use crate::io::{DType, IoError, NpyError, load_array};
use crate::made::MadeIn;
use crate::ports::permute;
use crate::session::quantise;

/// A set of arrays.
#[derive(Debug)]
pub enum Arrays {
    /// What `--dump-stages` writes. What an index does not say is told of no model: `is_of_floats` is of one
    /// that has the values of every node.
    Dump {
        /// The folder.
        folder: PathBuf,
        /// Its index.
        index: Box<Index>,
    },
    /// Files of one array each, by their names.
    Files(Vec<(String, PathBuf)>),
    /// Arrays that were read already, by name.
    Read(Vec<(String, Array)>),
}

/// Why arrays could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// One cannot be read.
    #[error(transparent)]
    Io(#[from] IoError),
    /// An index is none.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// An index and its arrays contradict each other.
    #[error("{}: {reason}", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: Kind,
    name: String,
}

/// What a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What a program takes.
    Input,
    /// What a stage or the host makes.
    Layer,
    /// An output of the network.
    Output,
    /// An array of which nothing is known but its name.
    Array,
}

/// Arrays of a tensor.
#[derive(Clone, Debug, Default)]
struct Loaded {
    real: Option<Array>,
    raw: Option<Array>,
    made: Option<Array>,
    quantisation: Option<Quantisation>,
    /// The shape on the machine, and the axis of it that each axis is.
    machine: Option<(Vec<usize>, Vec<usize>)>,
}

/// What differs between two sets of arrays.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Whether nothing differs.
    pub equal: bool,
    /// The tensors, in the order of the network.
    pub tensors: Vec<TensorComparison>,
    /// Tensors of the first that a model in floats has no value for, which were passed over.
    pub n_without_reference: usize,
}

/// How far a tensor is from that of the reference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorComparison {
    /// Its name: of a layer the node whose result it is, or its stage.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How the two stand to each other.
    pub status: Status,
    /// Whether the integers were compared, which have one scale.
    pub as_integers: bool,
    /// Its shape.
    pub shape: Vec<usize>,
    /// That of the reference, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_shape: Option<Vec<usize>>,
    /// Elements that were compared.
    pub n_elements: usize,
    /// Those that differ.
    pub n_differing: usize,
    /// The first of them.
    pub first: Option<Difference>,
    /// The largest absolute difference of finite numbers; of integers, of what they stand for if that is
    /// known of both. At most the largest number.
    pub max_difference: Option<f64>,
    /// Signal to noise in decibels over the finite numbers; `None` without noise, the negative infinity
    /// without signal.
    #[serde(serialize_with = "number_if_any")]
    pub sqnr_db: Option<f64>,
    /// Elements that are NaN or infinite on one of the sides, and not the same on both.
    pub n_not_finite: usize,
}

/// How two tensors stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// All elements are equal.
    Equal,
    /// Some are not.
    Differs,
    /// They have different shapes.
    Shapes,
    /// The reference has none.
    OnlyA,
    /// Only the reference has one.
    OnlyB,
}

/// An element that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Where it stands, an index an axis.
    pub index: Vec<usize>,
    /// What the first has there. JSON has no NaN and no infinities: they are text.
    #[serde(serialize_with = "number")]
    pub a: f64,
    /// What the reference has.
    #[serde(serialize_with = "number")]
    pub b: f64,
}

fn number<S: serde::Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.is_finite() { serializer.serialize_f64(*number) } else { serializer.collect_str(number) }
}

fn number_if_any<S: serde::Serializer>(found: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match found {
        Some(found) => number(found, serializer),
        None => serializer.serialize_none(),
    }
}

/// What is still near enough.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// The least signal to noise, in decibels.
    pub min_sqnr_db: Option<f64>,
    /// The largest difference.
    pub max_difference: Option<f64>,
}

impl TensorComparison {
    /// Whether it is near enough: equal, if no limit is set.
    pub fn is_within(&self, limits: &Limits) -> bool {
        match self.status {
            Status::Equal => true,
            Status::Shapes | Status::OnlyA | Status::OnlyB => false,
            Status::Differs if *limits == Limits::default() => false,
            Status::Differs => {
                let is_loud =
                    limits.min_sqnr_db.is_none_or(|least| self.sqnr_db.is_none_or(|db| db >= least));
                let most = self.max_difference.unwrap_or(0.0);
                self.n_not_finite == 0 && is_loud && limits.max_difference.is_none_or(|limit| most <= limit)
            }
        }
    }
}

impl Arrays {
    /// Whether it has the values of every node of a model in floats.
    fn is_of_floats(&self) -> bool {
        matches!(self, Self::Dump { index, .. } if index.target.is_none())
    }

    fn is_dump(&self) -> bool {
        matches!(self, Self::Dump { .. })
    }

    /// What there is, in order. Beside arrays of which only names are known, those of a folder with an index
    /// go by the names of its files.
    fn keys(&self, by_file: bool) -> Vec<Key> {
        let plain = |name: &String| Key { kind: Kind::Array, name: name.clone() };
        match self {
            Self::Files(files) => files.iter().map(|(name, _)| plain(name)).collect(),
            Self::Read(arrays) => arrays.iter().map(|(name, _)| plain(name)).collect(),
            Self::Dump { index, .. } => {
                let of_entry = |entry: &Entry| {
                    let file = entry.raw.as_ref().or(entry.float.as_ref());
                    let kind = if entry.made_in == MadeIn::Input { Kind::Input } else { Kind::Layer };
                    if by_file { plain(&stem(file)) } else { Key { kind, name: entry.name.clone() } }
                };
                let of_output = |output: &OutputEntry| match by_file {
                    true => plain(&stem(Some(&output.file))),
                    false => Key { kind: Kind::Output, name: output.name.clone() },
                };
                let tensors = index.tensors.iter().map(of_entry);
                tensors.chain(index.outputs.iter().map(of_output)).collect()
            }
        }
    }

    /// Whether there is a result of a node at a place, or what is not known to be none.
    fn is_result(&self, at: usize) -> bool {
        match self {
            Self::Dump { index, .. } => index
                .tensors
                .get(at)
                .is_none_or(|entry| !entry.nodes.is_empty() && entry.made_in == MadeIn::Stage),
            _ => true,
        }
    }

    fn load(&self, at: usize) -> Result<Loaded, CompareError> {
        let plain = |array: Array| match array.dtype.is_float() {
            true => Loaded { real: Some(array), ..Loaded::default() },
            false => Loaded { raw: Some(array), ..Loaded::default() },
        };
        match self {
            Self::Files(files) => Ok(plain(read_npy(&files[at].1)?)),
            Self::Read(arrays) => Ok(plain(arrays[at].1.clone())),
            Self::Dump { folder, index } => match index.tensors.get(at) {
                Some(entry) => load_entry(folder, entry),
                None => {
                    let output = &index.outputs[at - index.tensors.len()];
                    Ok(plain(read_npy(&folder.join(&output.file))?))
                }
            },
        }
    }
}

/// The name of a file without its folder and extension.
fn stem(file: Option<&String>) -> String {
    let stem = file.and_then(|file| Path::new(file).file_stem());
    stem.map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read_npy(path: &Path) -> Result<Array, IoError> {
    load_array(path, &[], &crate::io::ImageOptions::default())
}

/// The arrays of an entry of an index.
fn load_entry(folder: &Path, entry: &Entry) -> Result<Loaded, CompareError> {
    let read = |file: &Option<String>| file.as_ref().map(|file| read_npy(&folder.join(file))).transpose();
    let (real, raw, made) = (read(&entry.float)?, read(&entry.raw)?, read(&entry.made)?);
    for (file, array) in [&entry.float, &entry.raw, &entry.made].into_iter().zip([&real, &raw, &made]) {
        if let (Some(file), Some(array)) = (file, array)
            && array.shape != entry.shape
        {
            let reason = format!("expected shape {:?} by the index, found {:?}", entry.shape, array.shape);
            return Err(CompareError::Contradiction { path: folder.join(file), reason });
        }
    }
    let mut axes = entry.perm.clone();
    axes.sort_unstable();
    let is_sound = axes.iter().copied().eq(0..entry.machine_shape.len())
        && entry.perm.iter().map(|&axis| entry.machine_shape[axis]).eq(entry.shape.iter().copied());
    let machine = is_sound.then(|| (entry.machine_shape.clone(), entry.perm.clone()));
    let quantisation = entry.scale.zip(entry.zero_point);
    let quantisation = quantisation.map(|(scale, zero_point)| Quantisation { scale, zero_point });
    let (Some(raw), Some(quantisation)) = (&raw, quantisation) else {
        return Ok(Loaded { real, raw, made, quantisation, machine });
    };
    if let Some(real) = &real {
        let is_made = |at: usize| made.as_ref().is_none_or(|made| made.values[at] != 0.0);
        let taken_as = (entry.made_in == MadeIn::Input).then_some(raw.dtype);
        let stands_for = |at: usize| stands_for(raw.values[at], real.values[at], taken_as, &quantisation);
        if let Some(at) = (0..raw.values.len()).find(|&at| is_made(at) && !stands_for(at)) {
            let (integer, found) = (raw.values[at], real.values[at]);
            let reason = format!(
                "element {:?} is {found}, but the integer there, {integer} in {}, stands for {}; which of \
                 the two files is meant nobody can tell: write both, or compare the folders `raw` with each \
                 other",
                index_of(&raw.shape, at),
                entry.raw.as_deref().unwrap_or_default(),
                real_of(integer, &quantisation) as f32
            );
            let file = entry.float.as_deref().unwrap_or_default();
            return Err(CompareError::Contradiction { path: folder.join(file), reason });
        }
    }
    // What a program is given are other numbers than those that its integers stand for.
    let real = real.filter(|_| entry.made_in == MadeIn::Input).or_else(|| {
        let values = raw.values.iter().map(|&integer| f64::from(real_of(integer, &quantisation) as f32));
        Some(Array { shape: raw.shape.clone(), dtype: DType::F32, values: values.collect() })
    });
    Ok(Loaded { real, raw: Some(raw.clone()), made, quantisation: Some(quantisation), machine })
}

/// The real number that an integer stands for.
fn real_of(integer: f64, quantisation: &Quantisation) -> f64 {
    quantisation.scale * (integer - f64::from(quantisation.zero_point))
}

/// Whether an integer and a real number of a folder stand for each other. Of what a program takes as a type,
/// the integer is that of the number; else the number is that of the integer, as far as who computes it in
/// single precision gets near it.
fn stands_for(integer: f64, real: f64, taken_as: Option<DType>, quantisation: &Quantisation) -> bool {
    if let Some((least, most)) = taken_as.and_then(DType::int_range) {
        let expected = quantise(real, quantisation, least as i64, most as i64);
        return (integer - expected as f64).abs() <= 1.0;
    }
    let expected = real_of(integer, quantisation);
    (real - expected).abs() <= 0.01 * quantisation.scale + 1e-6 * expected.abs()
}

impl Loaded {
    fn shape(&self) -> &[usize] {
        self.raw.as_ref().or(self.real.as_ref()).map_or(&[], |array| &array.shape)
    }

    /// The same with the axes in the order of another's, if both are the same on the machine.
    fn arranged_as(self, other: &Self) -> Self {
        let (Some((shape, perm)), Some((as_shape, as_perm))) = (&self.machine, &other.machine) else {
            return self;
        };
        if shape != as_shape || perm == as_perm {
            return self;
        }
        // Axis `i` of the other is axis `as_perm[i]` of the machine's, which is here where `perm` has it.
        let moved: Vec<usize> =
            as_perm.iter().filter_map(|axis| perm.iter().position(|own| own == axis)).collect();
        let arrange = |array: Array| {
            let values = permute(&array.values, &array.shape, &moved);
            Array { shape: moved.iter().map(|&axis| array.shape[axis]).collect(), values, ..array }
        };
        Self {
            real: self.real.map(arrange),
            raw: self.raw.map(arrange),
            made: self.made.map(arrange),
            machine: other.machine.clone(),
            ..self
        }
    }
}

/// Compares a set of arrays with the reference `b`. `progress` is told how many tensors are done, and of how
/// many.
///
/// # Errors
/// If an array cannot be read.
pub fn compare(
    a: &Arrays,
    b: &Arrays,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Comparison, CompareError> {
    let by_file = a.is_dump() != b.is_dump();
    let (keys, of_b) = (a.keys(by_file), b.keys(by_file));
    let is_pair = keys.len() == 1 && of_b.len() == 1 && !a.is_dump() && !b.is_dump();
    let mut places: BTreeMap<(&Key, usize), usize> = BTreeMap::new();
    for (at, numbered) in numbered(&of_b).enumerate() {
        places.insert(numbered, at);
    }
    // Arrays of which only names are known are held against those of their names.
    let (a_is_part, b_is_part) =
        (b.is_of_floats() || by_file && a.is_dump(), a.is_of_floats() || by_file && b.is_dump());
    let mut comparison = Comparison { equal: true, tensors: Vec::new(), n_without_reference: 0 };
    for (at, numbered) in numbered(&keys).enumerate() {
        progress(at, keys.len());
        let key = numbered.0;
        let found = if is_pair { places.pop_first().map(|(_, at)| at) } else { places.remove(&numbered) };
        let tensor = match found {
            Some(of_b) => {
                let mine = a.load(at)?;
                let theirs = b.load(of_b)?.arranged_as(&mine);
                tensor(key, &mine, &theirs)
            }
            None if a_is_part || a.is_of_floats() => {
                comparison.n_without_reference += usize::from(a_is_part && a.is_result(at));
                continue;
            }
            None => alone(key, a.load(at)?.shape(), Status::OnlyA),
        };
        comparison.tensors.push(tensor);
    }
    if !b_is_part && !b.is_of_floats() {
        let mut left: Vec<usize> = places.into_values().collect();
        left.sort_unstable();
        for at in left {
            comparison.tensors.push(alone(&of_b[at], b.load(at)?.shape(), Status::OnlyB));
        }
    }
    comparison.equal = comparison.tensors.iter().all(|tensor| tensor.status == Status::Equal);
    Ok(comparison)
}

/// Keys with their numbers among those that are alike.
fn numbered(keys: &[Key]) -> impl Iterator<Item = (&Key, usize)> {
    let mut seen: BTreeMap<&Key, usize> = BTreeMap::new();
    keys.iter().map(move |key| {
        let n = seen.entry(key).or_default();
        *n += 1;
        (key, *n - 1)
    })
}

fn alone(key: &Key, shape: &[usize], status: Status) -> TensorComparison {
    TensorComparison {
        name: key.name.clone(),
        kind: key.kind,
        status,
        as_integers: false,
        shape: shape.to_vec(),
        reference_shape: None,
        n_elements: 0,
        n_differing: 0,
        first: None,
        max_difference: None,
        sqnr_db: None,
        n_not_finite: 0,
    }
}

/// The two arrays of a tensor that are compared, and the two that are measured.
fn tensor(key: &Key, a: &Loaded, b: &Loaded) -> TensorComparison {
    if a.shape() != b.shape() {
        let reference_shape = Some(b.shape().to_vec());
        return TensorComparison { reference_shape, ..alone(key, a.shape(), Status::Shapes) };
    }
    let integers = match (&a.raw, &b.raw) {
        (Some(raw), Some(of_b)) if raw.dtype == of_b.dtype && means_the_same(a, b) => Some((raw, of_b)),
        _ => None,
    };
    let either = |loaded: &'_ Loaded| loaded.real.clone().or_else(|| loaded.raw.clone());
    let (Some(real_a), Some(real_b)) = (either(a), either(b)) else {
        return alone(key, a.shape(), Status::OnlyA);
    };
    let (of_a, of_b) = integers.unwrap_or((&real_a, &real_b));
    // What differs and by how much is asked of the same elements. Where the meaning is known of one side
    // alone, integers are measured as such.
    let quantisation = integers.and(a.quantisation.and(b.quantisation));
    let measured = |value: f64| quantisation.map_or(value, |quantisation| real_of(value, &quantisation));
    let is_made = |at: &usize| {
        let made = [&a.made, &b.made].into_iter().flatten();
        made.map(|made| made.values[*at]).all(|made| made != 0.0)
    };
    let mut found = alone(key, a.shape(), Status::Equal);
    found.as_integers = integers.is_some();
    let mut distance = Distance::default();
    for at in (0..n_elements(a.shape()).unwrap_or(0)).filter(is_made) {
        found.n_elements += 1;
        let (p, q) = (of_a.values[at], of_b.values[at]);
        distance.add(measured(p), measured(q));
        if p == q || p.is_nan() && q.is_nan() {
            continue;
        }
        found.n_not_finite += usize::from(!p.is_finite() || !q.is_finite());
        found.n_differing += 1;
        if found.first.is_none() {
            found.first = Some(Difference { index: index_of(a.shape(), at), a: p, b: q });
        }
    }
    if found.n_differing > 0 {
        found.status = Status::Differs;
    }
    found.max_difference = distance.most;
    found.sqnr_db = distance.decibels();
    found
}

/// A sum of squares of numbers, however large or small: that of the numbers over `unit`, the greatest power
/// of two that is not above the largest of them.
#[derive(Clone, Copy, Debug, Default)]
struct SumOfSquares {
    unit: f64,
    sum: f64,
}

impl SumOfSquares {
    fn add(&mut self, value: f64) {
        let value = value.abs();
        if value == 0.0 {
            return;
        }
        if self.unit == 0.0 || value / self.unit >= 2.0 {
            // Only the sign and the exponent; the least numbers of all have none.
            let power = f64::from_bits(value.to_bits() & (0x7FF << 52));
            let unit = if power == 0.0 { f64::MIN_POSITIVE } else { power };
            let ratio = self.unit / unit;
            *self = Self { unit, sum: self.sum * ratio * ratio };
        }
        let ratio = value / self.unit;
        self.sum += ratio * ratio;
    }

    /// Ten times its decimal logarithm; the negative infinity of nothing.
    fn decibels(&self) -> f64 {
        if self.sum == 0.0 { f64::NEG_INFINITY } else { 10.0 * self.sum.log10() + 20.0 * self.unit.log10() }
    }
}

/// How far numbers are from those of the reference, over pairs of which both are finite.
#[derive(Clone, Copy, Debug, Default)]
struct Distance {
    signal: SumOfSquares,
    noise: SumOfSquares,
    /// The largest absolute difference.
    most: Option<f64>,
}

impl Distance {
    fn add(&mut self, number: f64, reference: f64) {
        if !number.is_finite() || !reference.is_finite() {
            return;
        }
        // The difference of two numbers may be beyond the largest.
        let difference = (number - reference).abs().min(f64::MAX);
        self.signal.add(reference);
        self.noise.add(difference);
        self.most = Some(self.most.map_or(difference, |most| most.max(difference)));
    }

    /// Signal to noise; `None` without noise.
    fn decibels(&self) -> Option<f64> {
        (self.noise.sum > 0.0).then(|| self.signal.decibels() - self.noise.decibels())
    }
}

/// Whether integers of two tensors stand for the same, as far as it is known.
fn means_the_same(a: &Loaded, b: &Loaded) -> bool {
    a.quantisation == b.quantisation || a.quantisation.is_none() || b.quantisation.is_none()
}

/// Where an element of a shape stands.
fn index_of(shape: &[usize], mut at: usize) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (index, &extent) in index.iter_mut().zip(shape).rev() {
        (*index, at) = (at % extent.max(1), at / extent.max(1));
    }
    index
}

/// The arrays of a file or folder: what `--dump-stages` wrote, a folder of `.npy`, a `.npz` or a `.npy`.
///
/// # Errors
/// If it is none of these, or cannot be read.
pub fn read(path: &Path) -> Result<Arrays, CompareError> {
    let system = |source| IoError::System { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(system)?.is_dir() {
        let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_npz = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz"));
        if !is_npz {
            return Ok(Arrays::Read(vec![(name(path), read_npy(path)?)]));
        }
        let npy = |source: NpyError| IoError::Npy { path: path.to_owned(), source };
        return Ok(Arrays::Read(crate::io::npy::from_npz(&crate::io::read(path)?).map_err(npy)?));
    }
    if Index::is_in(path) {
        return Ok(Arrays::Dump { folder: path.to_owned(), index: Box::new(Index::read(path)?) });
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(system)? {
        let file = entry.map_err(system)?.path();
        if file.extension().is_some_and(|extension| extension == "npy") && file.is_file() {
            files.push((stem(file.to_str().map(str::to_owned).as_ref()), file));
        }
    }
    files.sort();
    if files.is_empty() {
        let reason = "neither an index.json nor a .npy file is in this folder; expected what `--dump-stages` \
                      wrote, or arrays";
        return Err(CompareError::Contradiction { path: path.to_owned(), reason: reason.to_owned() });
    }
    Ok(Arrays::Files(files))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(a: &[(&str, Array)], b: &[(&str, Array)]) -> Comparison {
        let read = |arrays: &[(&str, Array)]| {
            Arrays::Read(arrays.iter().map(|(name, array)| ((*name).to_owned(), array.clone())).collect())
        };
        compare(&read(a), &read(b), &mut |_, _| {}).expect("arrays that are read")
    }

    fn floats(values: &[f32]) -> Array {
        Array::f32(vec![values.len()], values.to_vec())
    }

    #[test]
    fn figures_are_those_of_their_definitions() {
        let a = Array::f32(vec![2, 2], vec![1.0, 2.0, 3.5, 4.0]);
        let b = Array::f32(vec![2, 2], vec![1.0, 2.0, 3.0, 4.25]);
        let found = compared(&[("x", a.clone())], &[("x", b)]);
        let x = &found.tensors[0];
        assert!(!found.equal && x.status == Status::Differs);
        assert_eq!((x.n_elements, x.n_differing, x.max_difference), (4, 2, Some(0.5)));
        assert_eq!(x.first, Some(Difference { index: vec![1, 0], a: 3.5, b: 3.0 }));
        let expected = 10.0 * ((1.0 + 4.0 + 9.0 + 4.25 * 4.25) / (0.25 + 0.0625_f64)).log10();
        assert!((x.sqnr_db.expect("noise") - expected).abs() < 1e-12);
        let limits = |min_sqnr_db, max_difference| Limits { min_sqnr_db, max_difference };
        assert!(!x.is_within(&Limits::default()) && x.is_within(&limits(None, Some(0.5))));
        assert!(!x.is_within(&limits(None, Some(0.4))) && x.is_within(&limits(Some(20.0), Some(0.5))));
        assert!(!x.is_within(&limits(Some(21.0), None)));
        let same = compared(&[("x", a.clone())], &[("x", a)]);
        assert!(same.equal && same.tensors[0].sqnr_db.is_none());
    }

    #[test]
    fn what_is_no_number_is_told() {
        let (nan, infinite) = (f32::NAN, f32::INFINITY);
        let a = floats(&[nan, infinite, nan, 1.0, infinite]);
        let b = floats(&[nan, infinite, 1.0, 2.0, -infinite]);
        let found = compared(&[("x", a)], &[("x", b)]).tensors.remove(0);
        assert_eq!((found.n_differing, found.n_not_finite, found.max_difference), (3, 2, Some(1.0)));
        assert!(found.first.as_ref().is_some_and(|first| first.index == [2] && first.a.is_nan()));
        let limits = Limits { max_difference: Some(10.0), ..Limits::default() };
        assert!(!found.is_within(&limits), "a NaN is near nothing");
        let json = serde_json::to_string(&found).expect("JSON");
        assert!(json.contains("\"a\":\"NaN\""), "{json}");
    }

    #[test]
    fn figures_of_the_largest_and_smallest_numbers_are_numbers() {
        let doubles =
            |values: &[f64]| Array { shape: vec![values.len()], dtype: DType::F64, values: values.to_vec() };
        let of =
            |a: &[f64], b: &[f64]| compared(&[("x", doubles(a))], &[("x", doubles(b))]).tensors.remove(0);
        let near = |found: &TensorComparison, db: f64| {
            assert!((found.sqnr_db.expect("noise") - db).abs() < 1e-9, "{found:?}");
        };
        let twice = 10.0 * 0.25f64.log10();
        near(&of(&[1e300, 1.0], &[-1e300, 1.0]), twice);
        near(&of(&[1e-300, 0.0], &[-1e-300, 0.0]), twice);
        near(&of(&[5e-324], &[1e-323]), 10.0 * 4f64.log10());
        near(&of(&[1.0, 1e-200], &[1.0, 0.0]), 4000.0);
        let most = of(&[f64::MAX], &[-f64::MAX]);
        assert_eq!(most.max_difference, Some(f64::MAX));
        near(&most, 0.0);
        let silent = of(&[1.0], &[0.0]);
        assert_eq!(silent.sqnr_db, Some(f64::NEG_INFINITY));
        assert!(serde_json::to_string(&silent).expect("JSON").contains("\"sqnr_db\":\"-inf\""));
    }

    #[test]
    fn real_numbers_are_those_that_integers_stand_for() {
        let q = Quantisation { scale: 0.25, zero_point: 3 };
        let is_made = |integer, real| stands_for(integer, real, None, &q);
        assert!(is_made(7.0, 1.0) && is_made(7.0, 1.000_000_1));
        assert!(!is_made(7.0, 1.01) && !is_made(7.0, f64::NAN));
        // Of an input the integer is the nearest, or the last of its type.
        let is_taken = |integer, real| stands_for(integer, real, Some(DType::I8), &q);
        assert!(is_taken(7.0, 1.1) && is_taken(127.0, 1e9) && is_taken(-128.0, -1e9));
        assert!(!is_taken(7.0, 2.0) && !is_taken(7.0, 1e9));
        // Integers are measured by what they stand for.
        let loaded = |values: &[f64]| Loaded {
            raw: Some(Array { shape: vec![2], dtype: DType::I8, values: values.to_vec() }),
            quantisation: Some(q),
            ..Loaded::default()
        };
        let key = Key { kind: Kind::Layer, name: "x".to_owned() };
        let found = tensor(&key, &loaded(&[7.0, 3.0]), &loaded(&[7.0, 5.0]));
        assert_eq!((found.as_integers, found.n_differing, found.max_difference), (true, 1, Some(0.5)));
        assert!((found.sqnr_db.expect("noise") - 10.0 * (1.25f64 / 0.25).log10()).abs() < 1e-12);
    }

    #[test]
    fn what_has_no_counterpart_is_told() {
        let one = || floats(&[1.0]);
        let found = compared(
            &[("z", one()), ("x", one()), ("y", floats(&[1.0, 2.0]))],
            &[("x", one()), ("y", one()), ("w", one())],
        );
        let told: Vec<_> = found.tensors.iter().map(|t| (t.name.as_str(), t.status)).collect();
        let expected =
            [("z", Status::OnlyA), ("x", Status::Equal), ("y", Status::Shapes), ("w", Status::OnlyB)];
        assert_eq!(told, expected);
        // Two files of an array each are compared, whatever they are called.
        assert!(compared(&[("ours", one())], &[("theirs", one())]).equal);
    }

    #[test]
    fn axes_of_the_machine_are_brought_to_the_models() {
        let machine = Array::f32(vec![1, 2, 1, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let of = |array: Array, perm: [usize; 4]| Loaded {
            real: Some(array),
            machine: Some((vec![1, 2, 1, 3], perm.to_vec())),
            ..Loaded::default()
        };
        let values = permute(&machine.values, &machine.shape, &[0, 3, 1, 2]);
        let model = Array { shape: vec![1, 3, 2, 1], values, ..machine.clone() };
        let (nhwc, nchw) = (of(machine.clone(), [0, 1, 2, 3]), of(model.clone(), [0, 3, 1, 2]));
        assert_eq!(nhwc.clone().arranged_as(&nchw).real, Some(model));
        assert_eq!(nchw.arranged_as(&nhwc).real, Some(machine));
    }
}
