//! The blobs of large constants, and the side file that holds them when they do not stand in the text.
//!
//! The file is `STRATARS`, a little-endian `u32` version, a `u32` count, and for each blob a `u32` name
//! length, the name in UTF-8, a `u64` data length and the data, which is little-endian and row-major as
//! MLIR's `dense_resource` blobs are (without MLIR's leading alignment word). Names are unique. What the
//! printer names is named by its data (`handle`), so that damage is found.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::{fmt, io};

use crate::tensor::Tensor;
use crate::types::{ElemType, TensorType};

const MAGIC: &[u8; 8] = b"STRATARS";
const VERSION: u32 = 1;

/// Why bytes are not a side file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// The first bytes are something else.
    #[error("not a resource file: it does not begin with `STRATARS`")]
    NotResources,
    /// A newer or unknown version.
    #[error("resource file version {0} is not supported (this program reads {VERSION})")]
    Version(u32),
    /// The file ends early.
    #[error("the resource file ends at byte {0}, inside an entry")]
    Truncated(usize),
    /// A name is not UTF-8.
    #[error("the resource name at byte {0} is not UTF-8")]
    BadName(usize),
    /// Two blobs have one name.
    #[error("the resource file holds `{0}` twice")]
    Duplicate(String),
    /// Bytes follow the last blob.
    #[error("{0} bytes follow the last entry of the resource file")]
    TrailingBytes(usize),
}

/// Bytes that are held elsewhere, such as those of a mapped file.
type Shared = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A part of a file's bytes, or the data of a tensor. Clones share it.
#[derive(Clone)]
pub struct Blob(Source);

#[derive(Clone)]
enum Source {
    File { file: Shared, range: Range<usize> },
    Tensor(Arc<Tensor>),
}

impl Blob {
    /// Its bytes.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.0 {
            Source::File { file, range } => Cow::Borrowed(&(**file).as_ref()[range.clone()]),
            Source::Tensor(tensor) => tensor.data().bytes(),
        }
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob of {} bytes", self.bytes().len())
    }
}

impl Eq for Blob {}

impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Source::File { range: 0..bytes.len(), file: Arc::new(bytes) })
    }
}

impl From<Arc<Tensor>> for Blob {
    fn from(tensor: Arc<Tensor>) -> Self {
        Self(Source::Tensor(tensor))
    }
}

/// Tensors by the name of their blob and their type, as long as something holds them.
type Made = BTreeMap<(String, TensorType), Weak<Tensor>>;

/// Blobs by name. Clones share the data, and those of a file its bytes.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    blobs: BTreeMap<String, Blob>,
    /// What was made of the blobs: texts that name the same one share the tensor.
    made: Arc<Mutex<Made>>,
}

impl PartialEq for Resources {
    fn eq(&self, other: &Self) -> bool {
        self.blobs == other.blobs
    }
}

impl Resources {
    /// No blobs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a blob.
    pub fn insert(&mut self, name: impl Into<String>, bytes: Vec<u8>) {
        self.blobs.insert(name.into(), bytes.into());
        self.made = Arc::default();
    }

    /// Adds the blobs of another; of two of one name that of the other.
    pub fn extend(&mut self, other: Self) {
        self.blobs.extend(other.blobs);
        self.made = Arc::default();
    }

    /// The blobs whose names `keep` holds to, in the order of names.
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> impl Iterator<Item = (String, Blob)> {
        let kept = self.blobs.iter().filter(move |(name, _)| keep(name));
        kept.map(|(name, blob)| (name.clone(), blob.clone()))
    }

    /// A blob's bytes.
    pub fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.blobs.get(name).map(Blob::bytes)
    }

    /// The tensor that was made of a blob, if something holds it still.
    pub(crate) fn made(&self, name: &str, ty: &TensorType) -> Option<Arc<Tensor>> {
        self.all_made().get(&(name.to_owned(), ty.clone()))?.upgrade()
    }

    /// Tells of a tensor that was made of a blob.
    pub(crate) fn keep(&self, name: &str, ty: &TensorType, tensor: &Arc<Tensor>) {
        self.all_made().insert((name.to_owned(), ty.clone()), Arc::downgrade(tensor));
    }

    fn all_made(&self) -> MutexGuard<'_, Made> {
        // What panicked meanwhile left the map whole: entries are put in at once.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many blobs there are.
    pub fn len(&self) -> usize {
        self.blobs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Reads a side file, of which blobs stay parts.
    ///
    /// # Errors
    /// If the bytes are not exactly one side file.
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self, ResourceError> {
        let file: Shared = Arc::new(bytes);
        let bytes = (*file).as_ref();
        let mut reader = Reader { bytes, at: 0 };
        if bytes.get(..MAGIC.len()) != Some(MAGIC.as_slice()) {
            return Err(ResourceError::NotResources);
        }
        reader.at = MAGIC.len();
        let version = reader.u32()?;
        if version != VERSION {
            return Err(ResourceError::Version(version));
        }
        let mut blobs = BTreeMap::new();
        for _ in 0..reader.u32()? {
            let name_len = reader.u32()? as usize;
            let name_at = reader.at;
            let name = std::str::from_utf8(reader.take(name_len as u64)?)
                .map_err(|_| ResourceError::BadName(name_at))?
                .to_owned();
            let len = reader.u64()?;
            let start = reader.at;
            reader.take(len)?;
            let range = start..reader.at;
            if blobs.contains_key(&name) {
                return Err(ResourceError::Duplicate(name));
            }
            blobs.insert(name, Blob(Source::File { file: Arc::clone(&file), range }));
        }
        match bytes.len() - reader.at {
            0 => Ok(Self { blobs, made: Arc::default() }),
            rest => Err(ResourceError::TrailingBytes(rest)),
        }
    }
}

impl FromIterator<(String, Vec<u8>)> for Resources {
    fn from_iter<I: IntoIterator<Item = (String, Vec<u8>)>>(blobs: I) -> Self {
        let blobs = blobs.into_iter().map(|(name, data)| (name, data.into())).collect();
        Self { blobs, made: Arc::default() }
    }
}

/// Hexadecimal digits of a hash in a handle.
const HASH_DIGITS: usize = 16;

/// The handle of a constant: its element type and the first digits of the hash of its data, or all of them.
pub(crate) fn handle(elem: ElemType, bytes: &[u8], whole: bool) -> String {
    let hash = hash(bytes);
    format!("{elem}_{}", if whole { &hash } else { &hash[..HASH_DIGITS] })
}

/// The hash of some data, which may be large, in hexadecimal digits.
fn hash(bytes: &[u8]) -> impl std::ops::Deref<Target = str> {
    blake3::Hasher::new().update_rayon(bytes).finalize().to_hex()
}

/// Whether a name is a handle that other data has.
pub(crate) fn is_of_other_data(name: &str, elem: ElemType, bytes: &[u8]) -> bool {
    let digits = name.strip_prefix(elem.keyword()).and_then(|rest| rest.strip_prefix('_'));
    let is_hash = |hash: &&str| {
        [HASH_DIGITS, 2 * blake3::OUT_LEN].contains(&hash.len())
            && hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    digits.filter(is_hash).is_some_and(|digits| !hash(bytes).starts_with(digits))
}

/// Writes the side file of some blobs, in their order.
///
/// # Errors
/// If it cannot be written.
pub fn write(blobs: &[(impl AsRef<str>, Blob)], out: &mut dyn io::Write) -> io::Result<()> {
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&u32_len(blobs.len()).to_le_bytes())?;
    for (name, blob) in blobs {
        let (name, data) = (name.as_ref(), blob.bytes());
        out.write_all(&u32_len(name.len()).to_le_bytes())?;
        out.write_all(name.as_bytes())?;
        out.write_all(&(data.len() as u64).to_le_bytes())?;
        out.write_all(&data)?;
    }
    Ok(())
}

/// The side file of some blobs, in their order.
pub fn to_bytes(blobs: &[(impl AsRef<str>, Blob)]) -> Vec<u8> {
    let mut out = Vec::new();
    write(blobs, &mut out).expect("writing to a vector does not fail");
    out
}

fn u32_len(n: usize) -> u32 {
    u32::try_from(n).expect("blobs and the bytes of a name are fewer than 2^32")
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8], ResourceError> {
        let truncated = ResourceError::Truncated(self.bytes.len());
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n)).ok_or(truncated.clone())?;
        let taken = self.bytes.get(self.at..end).ok_or(truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ResourceError> {
        let bytes = self.take(N as u64)?;
        bytes.try_into().map_err(|_| ResourceError::Truncated(self.bytes.len()))
    }

    fn u32(&mut self) -> Result<u32, ResourceError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ResourceError> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<(String, Blob)> {
        vec![("w".to_owned(), vec![1, 2, 3].into()), ("é".to_owned(), vec![].into())]
    }

    #[test]
    fn a_side_file_reads_back() {
        let read = Resources::from_bytes(to_bytes(&two())).expect("a file just written reads");
        for (name, blob) in two() {
            assert_eq!(read.get(&name), Some(blob.bytes()));
        }
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = to_bytes(&two());
        for len in 0..bytes.len() {
            assert!(
                Resources::from_bytes(bytes[..len].to_vec()).is_err(),
                "{len} bytes of {} read",
                bytes.len()
            );
        }
    }

    #[test]
    fn lengths_are_not_believed() {
        let mut bytes = to_bytes(&[("w", vec![7].into())]);
        let at = bytes.len() - 9;
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(Resources::from_bytes(bytes.clone()), Err(ResourceError::Truncated(bytes.len())));
    }

    #[test]
    fn duplicates_and_trailing_bytes_are_errors() {
        let twice = to_bytes(&[("w", vec![].into()), ("w", vec![].into())]);
        assert_eq!(Resources::from_bytes(twice), Err(ResourceError::Duplicate("w".to_owned())));
        let mut long = to_bytes(&two());
        long.push(0);
        assert_eq!(Resources::from_bytes(long), Err(ResourceError::TrailingBytes(1)));
    }
}
