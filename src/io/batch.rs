//! Many inputs in one `.npz`, read one by one, and the outputs of many in one `.npy` each, written one by
//! one: memory holds one of each, however many there are.
//!
//! An array of a batch has the shape of its input with an axis of N more before it; or, if the input's first
//! axis has an extent of 1, N on that axis. The ranks tell which, so nothing is ambiguous. All inputs have to
//! have the same N, which may be 1.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use super::IoError;
use super::array::{Array, DType, n_elements, show_shape};
use super::atomic::AtomicFile;
use super::npy::{Header, NpyError, read_header};

/// An input that a batch is of.
#[derive(Clone, Debug)]
pub struct BatchInput<'a> {
    /// Its name, which its array has too.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
}

/// Why a file holds no batch.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Its arrays are not those of a batch; all that is wrong.
    #[error("{}: {}", path.display(), problems.join("; "))]
    Arrays {
        /// The file.
        path: PathBuf,
        /// What is wrong with each.
        problems: Vec<String>,
    },
}

/// Where an array has its N inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BatchAxis {
    /// On an axis that the input has not.
    Extra,
    /// On the input's first axis, whose extent is 1.
    First,
}

/// The array of an input.
#[derive(Clone, Debug)]
struct BatchArray {
    /// Which entry of the archive it is.
    entry: usize,
    name: String,
    header: Header,
    shape: Vec<usize>,
}

/// A `.npz` whose arrays hold N inputs each.
#[derive(Debug)]
pub struct BatchFile {
    path: PathBuf,
    arrays: Vec<BatchArray>,
    n: usize,
    axis: BatchAxis,
}

type Archive = ZipArchive<BufReader<File>>;

impl BatchFile {
    /// Opens a `.npz` of a network's inputs; `None` if each of its arrays is just one input, and not all of
    /// them have a first axis of extent 1, on which N is 1. A network with one input takes the one array of a
    /// file, whatever its name; arrays that are no input are passed over.
    ///
    /// # Errors
    /// If it is no `.npz`, an input has no array, or an array is not that of so many inputs as the others.
    pub fn open(path: &Path, inputs: &[BatchInput<'_>]) -> Result<Option<Self>, BatchError> {
        let npy = |source| IoError::Npy { path: path.to_owned(), source };
        let headers = headers(&mut open(path)?).map_err(npy)?;
        let mut problems = Vec::new();
        let (mut arrays, mut counts) = (Vec::new(), Vec::new());
        let mut is_on_first = false;
        let mut n_without_axis = 0;
        for input in inputs {
            let named = headers.iter().position(|(name, _)| name == input.name);
            let entry = named.or_else(|| (inputs.len() == 1 && headers.len() == 1).then_some(0));
            let Some(entry) = entry else {
                let found: Vec<String> = headers.iter().map(|(name, _)| format!("`{name}`")).collect();
                problems.push(format!(
                    "there is no array for input `{}`; the arrays are {}",
                    input.name,
                    found.join(", ")
                ));
                continue;
            };
            let (name, header) = &headers[entry];
            let count = match count_of(&header.shape, input.shape) {
                Some(Count::One) => {
                    n_without_axis += 1;
                    let has_axis = input.shape.first() == Some(&1);
                    is_on_first |= has_axis;
                    has_axis.then_some(1)
                }
                Some(Count::Many(n, axis)) => {
                    is_on_first |= axis == BatchAxis::First;
                    Some(n)
                }
                None => {
                    problems.push(not_of_batch(input, header));
                    continue;
                }
            };
            if count.is_some_and(|n| n > 1) && header.is_fortran {
                problems.push(format!(
                    "array `{name}` is in Fortran order, in which inputs do not stand one after another; \
                     save it in C order (numpy.ascontiguousarray)"
                ));
            }
            counts.push((input.name, count));
            let shape = input.shape.to_vec();
            arrays.push(BatchArray { entry, name: name.clone(), header: header.clone(), shape });
        }
        let is_one = n_without_axis == inputs.len() && counts.iter().any(|(_, count)| count.is_none());
        if problems.is_empty() && (is_one || inputs.is_empty()) {
            return Ok(None);
        }
        let n = counts.iter().find_map(|(_, count)| *count);
        if counts.iter().any(|(_, count)| *count != n) {
            let told = counts.iter().map(|(name, count)| match count {
                Some(n) => format!("{n} of `{name}`"),
                None => format!("one of `{name}`, without an axis of N"),
            });
            let told: Vec<String> = told.collect();
            problems.push(format!("expected as many inputs in each array, found {}", told.join(", ")));
        }
        if n == Some(0) {
            problems.push("the arrays hold no input: their axis of N has an extent of 0".to_owned());
        }
        match (n, problems.is_empty()) {
            (Some(n), true) => {
                let axis = if is_on_first { BatchAxis::First } else { BatchAxis::Extra };
                Ok(Some(Self { path: path.to_owned(), arrays, n, axis }))
            }
            _ => Err(BatchError::Arrays { path: path.to_owned(), problems }),
        }
    }

    /// How many inputs it holds.
    pub fn n(&self) -> usize {
        self.n
    }

    /// What an output of one input becomes for all: N on its first axis, if the inputs have theirs there and
    /// its extent is 1; else an axis of N more.
    pub fn stacked(&self, shape: &[usize]) -> Vec<usize> {
        match (self.axis, shape) {
            (BatchAxis::First, [1, rest @ ..]) => [&[self.n], rest].concat(),
            _ => [&[self.n], shape].concat(),
        }
    }

    /// The archive once for each input, each of which is read on its own.
    ///
    /// # Errors
    /// If it has changed since it was opened.
    pub fn archives(&self) -> Result<Vec<Archive>, IoError> {
        self.arrays.iter().map(|_| open(&self.path)).collect()
    }

    /// The inputs, one after another: of each an array an input of the network, in its order.
    ///
    /// # Errors
    /// If the archive is damaged.
    pub fn samples<'a>(&'a self, archives: &'a mut [Archive]) -> Result<Samples<'a>, IoError> {
        let mut readers: Vec<Box<dyn Read + 'a>> = Vec::with_capacity(self.arrays.len());
        for (array, archive) in self.arrays.iter().zip(archives) {
            let archived = |e: &dyn std::fmt::Display| self.damaged(NpyError::Archive(e.to_string()));
            let mut file = archive.by_index(array.entry).map_err(|e| archived(&e))?;
            read_header(&mut file).map_err(|source| self.damaged(source))?;
            readers.push(Box::new(file));
        }
        Ok(Samples { batch: self, readers, next: 0 })
    }

    fn damaged(&self, source: NpyError) -> IoError {
        IoError::Npy { path: self.path.clone(), source }
    }
}

/// The inputs of a batch, read one by one.
pub struct Samples<'a> {
    batch: &'a BatchFile,
    readers: Vec<Box<dyn Read + 'a>>,
    next: usize,
}

impl Iterator for Samples<'_> {
    type Item = Result<Vec<Array>, IoError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.batch.n {
            return None;
        }
        self.next += 1;
        let is_last = self.next == self.batch.n;
        let read = |(array, reader): (&BatchArray, &mut Box<dyn Read>)| {
            let problem = |source: NpyError| {
                let (name, source) = (array.name.clone(), Box::new(source));
                self.batch.damaged(NpyError::Entry { name, source })
            };
            let unread = |error: std::io::Error| problem(NpyError::Malformed(error.to_string()));
            let n_bytes = n_elements(&array.shape).unwrap_or(0) * array.header.dtype.size_bytes();
            let mut bytes = array.header.with_shape(&array.shape);
            let head = bytes.len();
            bytes.resize(head + n_bytes, 0);
            reader.read_exact(&mut bytes[head..]).map_err(unread)?;
            // The archive's check of all that was read is made at the end of an entry.
            if is_last && reader.read(&mut [0]).map_err(unread)? > 0 {
                return Err(problem(NpyError::Malformed("bytes after its last element".to_owned())));
            }
            Array::from_npy(&bytes).map_err(problem)
        };
        let readers = self.readers.iter_mut();
        Some(self.batch.arrays.iter().zip(readers).map(read).collect())
    }
}

/// How many inputs an array holds.
enum Count {
    One,
    Many(usize, BatchAxis),
}

fn count_of(shape: &[usize], input: &[usize]) -> Option<Count> {
    match (shape, input) {
        (shape, input) if shape == input => Some(Count::One),
        ([n, rest @ ..], input) if rest == input => Some(Count::Many(*n, BatchAxis::Extra)),
        ([n, rest @ ..], [1, inner @ ..]) if rest == inner => Some(Count::Many(*n, BatchAxis::First)),
        _ => None,
    }
}

fn not_of_batch(input: &BatchInput<'_>, header: &Header) -> String {
    let with_n = |rest: &[usize]| {
        let extents = rest.iter().map(ToString::to_string);
        std::iter::once("N".to_owned()).chain(extents).collect::<Vec<_>>().join("x")
    };
    let mut expected = vec![show_shape(input.shape), with_n(input.shape)];
    if let [1, rest @ ..] = input.shape {
        expected.push(with_n(rest));
    }
    let (name, found) = (input.name, show_shape(&header.shape));
    format!("input `{name}`: expected shape {}, found {found}", expected.join(" or "))
}

/// The archive of a file.
fn open(path: &Path) -> Result<Archive, IoError> {
    let system = |source| IoError::System { path: path.to_owned(), source };
    let file = File::open(path).map_err(system)?;
    ZipArchive::new(BufReader::new(file)).map_err(|error| {
        let source = NpyError::Archive(error.to_string());
        IoError::Npy { path: path.to_owned(), source }
    })
}

/// The names and headers of an archive's arrays, each of which is as long as its header promises.
fn headers(zip: &mut Archive) -> Result<Vec<(String, Header)>, NpyError> {
    let archive = |e: &dyn std::fmt::Display| NpyError::Archive(e.to_string());
    let mut headers = Vec::with_capacity(zip.len());
    for index in 0..zip.len() {
        let mut file = zip.by_index(index).map_err(|e| archive(&e))?;
        let path = file.name().map_err(|e| archive(&e))?.into_owned();
        let name = npyz::npz::array_name_from_file_name(&path).unwrap_or(&path).to_owned();
        let header = read_header(&mut file);
        let header = header.and_then(|header| {
            let expected = n_elements(&header.shape).unwrap_or(usize::MAX);
            let expected = expected.saturating_mul(header.dtype.size_bytes());
            let found = usize::try_from(file.size()).unwrap_or(usize::MAX).saturating_sub(header.length);
            if found == expected { Ok(header) } else { Err(NpyError::Length { expected, found }) }
        });
        let header =
            header.map_err(|source| NpyError::Entry { name: name.clone(), source: Box::new(source) })?;
        headers.push((name, header));
    }
    Ok(headers)
}

/// A `.npy` of the results of many inputs, which takes its place when all of them are there.
#[derive(Debug)]
pub struct StackedFile {
    path: PathBuf,
    file: AtomicFile,
    shape: Vec<usize>,
    dtype: DType,
}

impl StackedFile {
    /// Begins a file of arrays like `first`, which together have the shape `stacked`.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn begin(path: &Path, first: &Array, stacked: &[usize]) -> Result<Self, IoError> {
        let system = |source| IoError::System { path: path.to_owned(), source };
        let mut file = AtomicFile::begin(path)?;
        file.write_all(&Header::of(first.dtype, stacked).with_shape(stacked)).map_err(system)?;
        Ok(Self { path: path.to_owned(), file, shape: first.shape.clone(), dtype: first.dtype })
    }

    /// Adds an array.
    ///
    /// # Errors
    /// If it is not like the first, told as a text; if the system refuses.
    pub fn push(&mut self, array: &Array) -> Result<(), StackError> {
        if array.shape != self.shape || array.dtype != self.dtype {
            let expected = format!("{} {}", show_shape(&self.shape), self.dtype);
            let found = format!("{} {}", show_shape(&array.shape), array.dtype);
            return Err(StackError::Unlike { expected, found });
        }
        let system = |source| IoError::System { path: self.path.clone(), source };
        Ok(self.file.write_all(&array.to_le_bytes()).map_err(system)?)
    }

    /// The file, which holds all arrays that were added.
    pub fn into_file(self) -> AtomicFile {
        self.file
    }
}

/// Why an array could not be added to those of a file.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// It is not like the first.
    #[error("it is {found}, that of the first input {expected}: arrays of different shapes make no batch")]
    Unlike {
        /// Shape and type of the first.
        expected: String,
        /// Its own.
        found: String,
    },
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::npy::to_npz;

    fn array(shape: &[usize], first: f32) -> Array {
        let n = shape.iter().product::<usize>();
        Array::f32(shape.to_vec(), (0..n).map(|i| first + i as f32).collect())
    }

    /// Opens a batch of arrays, which stands in a folder.
    fn open_in(
        folder: &Path,
        arrays: &[(&str, Array)],
        inputs: &[BatchInput<'_>],
    ) -> Result<Option<BatchFile>, BatchError> {
        let path = folder.join("b.npz");
        let arrays: Vec<_> = arrays.iter().map(|(name, array)| ((*name).to_owned(), array.clone())).collect();
        std::fs::write(&path, to_npz(&arrays).expect("written")).expect("written");
        BatchFile::open(&path, inputs)
    }

    const X: BatchInput<'static> = BatchInput { name: "x", shape: &[1, 2, 3] };
    const Y: BatchInput<'static> = BatchInput { name: "y", shape: &[2] };

    #[test]
    fn inputs_are_read_one_by_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = |arrays: &[(&str, Array)], inputs: &[_]| open_in(folder.path(), arrays, inputs);
        let batch = open(&[("y", array(&[4, 2], 100.0)), ("x", array(&[4, 2, 3], 0.0))], &[X, Y]);
        let batch = batch.expect("a batch").expect("of many");
        assert_eq!((batch.n(), batch.stacked(&[1, 7]), batch.stacked(&[7])), (4, vec![4, 7], vec![4, 7]));
        let mut archives = batch.archives().expect("archives");
        let samples = batch.samples(&mut archives).expect("samples").collect::<Result<Vec<_>, _>>();
        let samples = samples.expect("read");
        assert_eq!(samples.len(), 4);
        assert_eq!(samples[3], [array(&[1, 2, 3], 18.0), array(&[2], 106.0)]);
        let extra = open(&[("any", array(&[4, 1, 2, 3], 0.0))], &[X]).expect("a batch").expect("of many");
        assert_eq!(extra.stacked(&[1, 7]), [4, 1, 7]);
        // One input is a batch of one, unless there is no axis for its N.
        let one = open(&[("x", array(&[1, 2, 3], 0.0))], &[X]).expect("a batch").expect("of one");
        assert_eq!((one.n(), one.stacked(&[1, 7]), one.stacked(&[7])), (1, vec![1, 7], vec![1, 7]));
        let one = open(&[("x", array(&[1, 1, 2, 3], 0.0))], &[X]).expect("a batch").expect("of one");
        assert_eq!((one.n(), one.stacked(&[1, 7])), (1, vec![1, 1, 7]));
        let one = open(&[("x", array(&[1, 2, 3], 0.0)), ("y", array(&[1, 2], 0.0))], &[X, Y]);
        assert_eq!(one.expect("a batch").expect("of one").n(), 1);
        let x = ("x", array(&[1, 2, 3], 0.0));
        assert!(open(&[x, ("y", array(&[2], 0.0))], &[X, Y]).expect("an input").is_none());
    }

    #[test]
    fn a_batch_of_one_may_be_in_fortran_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("b.npz");
        // 1x2x3 in Fortran order: the last axis is the slowest.
        let values: Vec<u8> =
            [0.0f32, 3.0, 1.0, 4.0, 2.0, 5.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut header = Header::of(DType::F32, &[1, 2, 3]);
        header.is_fortran = true;
        let mut zip = zip::ZipWriter::new(File::create(&path).expect("made"));
        zip.start_file("x.npy", zip::write::SimpleFileOptions::default()).expect("begun");
        zip.write_all(&[header.with_shape(&[1, 2, 3]), values].concat()).expect("written");
        zip.finish().expect("written");
        let batch = BatchFile::open(&path, &[X]).expect("a batch").expect("of one");
        let mut archives = batch.archives().expect("archives");
        let sample = batch.samples(&mut archives).expect("samples").next().expect("one").expect("read");
        assert_eq!(sample, [array(&[1, 2, 3], 0.0)]);
    }

    #[test]
    fn what_is_no_batch_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = |arrays: &[(&str, Array)]| {
            open_in(folder.path(), arrays, &[X, Y]).expect_err("refused").to_string()
        };
        let (x, y) = (array(&[4, 2, 3], 0.0), array(&[2], 0.0));
        let error = refused(&[("x", x.clone()), ("y", y)]);
        assert!(error.contains("found 4 of `x`, one of `y`, without an axis of N"), "{error}");
        let error = refused(&[("x", x.clone())]);
        assert!(error.contains("no array for input `y`; the arrays are `x`"), "{error}");
        let error = refused(&[("x", x.clone()), ("y", array(&[4, 3], 0.0))]);
        assert!(error.contains("input `y`: expected shape 2 or Nx2, found 4x3"), "{error}");
        let error = refused(&[("x", array(&[3, 2], 0.0)), ("y", array(&[3, 2], 0.0))]);
        assert!(error.contains("expected shape 1x2x3 or Nx1x2x3 or Nx2x3, found 3x2"), "{error}");
        let error = refused(&[("x", array(&[0, 2, 3], 0.0)), ("y", array(&[0, 2], 0.0))]);
        assert!(error.contains("no input"), "{error}");
    }
}
