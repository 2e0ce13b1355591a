//! Files at the border of the library: arrays, pictures, and writing that never leaves half a file.
//!
//! | module | what it holds |
//! |---|---|
//! | [`array`](mod@array) | [`Array`], a tensor as a user hands it in and gets it back |
//! | [`npy`] | NumPy's `.npy` and `.npz` |
//! | [`batch`] | many inputs in one `.npz` |
//! | [`images`] | PNG and JPEG pictures as network inputs |
//! | `picture` | their pixels, decoded and scaled |
//! | [`atomic`] | writing a file whole or not at all |
//! | `temporary` | temporary files and folders, erased on signals too |
//! | [`side_files`] | data of a model that stand in files beside it |
//!
//! Decoding works on bytes; only the functions that take a path touch the file system. No content of a file
//! makes anything here panic.

pub mod array;
pub mod atomic;
pub mod batch;
pub mod images;
pub mod npy;
mod picture;
pub mod side_files;
pub(crate) mod temporary;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

pub use array::{Array, ArrayError, DType};
pub(crate) use atomic::AtomicFile;
pub use atomic::{demand_writable, write_atomic, write_atomic_with};
pub use images::{ChannelOrder, Fit, ImageError, ImageOptions, Layout};
pub use npy::NpyError;
pub use side_files::ModelFolder;
pub(crate) use temporary::OutputFolders;

/// A folder that is there afterwards.
///
/// # Errors
/// If the system refuses, or a file stands there.
pub fn create_folder(path: &Path) -> Result<(), IoError> {
    demand_folder(path)?;
    std::fs::create_dir_all(path).map_err(|source| IoError::System { path: path.to_owned(), source })
}

/// As [`create_folder`], of a folder for outputs: one that was made and is empty in the end is erased.
pub(crate) fn create_output_folder(folders: &mut OutputFolders, path: &Path) -> Result<(), IoError> {
    demand_folder(path)?;
    folders.create(path).map_err(|source| IoError::System { path: path.to_owned(), source })
}

/// That there is a folder, or nothing, where one is to be, and where those above it are.
///
/// # Errors
/// If there is something else.
pub fn demand_folder(path: &Path) -> Result<(), IoError> {
    let there = path.ancestors().find(|path| path.as_os_str().is_empty() || path.exists());
    match there.filter(|there| !there.as_os_str().is_empty() && !there.is_dir()) {
        None => Ok(()),
        Some(file) => {
            let what = match file == path {
                true => "it is a file; expected a folder".to_owned(),
                false => format!("{} is a file; expected a folder", file.display()),
            };
            let source = std::io::Error::new(std::io::ErrorKind::NotADirectory, what);
            Err(IoError::System { path: path.to_owned(), source })
        }
    }
}

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// The system refused.
    #[error("{}: {source}", shown(path))]
    System {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no `.npy` or `.npz`, or holds what Strata has no type for.
    #[error("{}: {source}", path.display())]
    Npy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: NpyError,
    },
    /// The file is no picture, or none that suits the input.
    #[error("{}: {source}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ImageError,
    },
    /// The file's name ends in nothing that we read.
    #[error("{}: not a file that Strata reads; it takes .npy, .npz, .png, .jpg and .jpeg", path.display())]
    UnknownKind {
        /// The file.
        path: PathBuf,
    },
    /// A folder holds no file that we read.
    #[error("{}: no .npy, .npz, .png, .jpg or .jpeg file in this folder", path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A `.npz` was given where one array is needed.
    #[error("{}: holds {found} arrays where one is needed", path.display())]
    NotOneArray {
        /// The file.
        path: PathBuf,
        /// How many it holds.
        found: usize,
    },
}

/// Whether a path stands for standard input or output: `-`, or their names in `/dev`.
pub fn is_standard_stream(path: &Path) -> bool {
    ["-", "/dev/stdin", "/dev/stdout"].iter().any(|name| path == Path::new(name))
}

/// A path as messages name it.
pub fn shown(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

/// A file's bytes; those of standard input where the path is `-`.
///
/// # Errors
/// If the system refuses; the error names the file.
pub fn read(path: &Path) -> Result<Vec<u8>, IoError> {
    let bytes = if path == Path::new("-") { read_standard_input() } else { std::fs::read(path) };
    bytes.map_err(|source| IoError::System { path: path.to_owned(), source })
}

/// The bytes of a file, read when they are looked at.
///
/// # Errors
/// If the system refuses.
pub fn map(path: &Path) -> Result<Mmap, IoError> {
    let system = |source| IoError::System { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(system)?;
    // SAFETY: the bytes must not change while they are mapped. Strata replaces files by others, whose old
    // bytes stay as they are; who writes into one that is being read has damaged it, and what is read is
    // checked against the hashes that name it.
    unsafe { Mmap::map(&file) }.map_err(system)
}

fn read_standard_input() -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a file name says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Npy,
    Npz,
    Picture,
}

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "npy" => Some(Self::Npy),
            "npz" => Some(Self::Npz),
            "png" | "jpg" | "jpeg" => Some(Self::Picture),
            _ => None,
        }
    }
}

/// One array for an input of `shape`: from a `.npy`, a `.npz` with one entry, or a picture brought to that
/// shape.
///
/// The shape of an array that is no picture is the file's own; whether it suits is for the caller to judge.
///
/// # Errors
/// If the file cannot be read as such.
pub fn load_array(path: &Path, shape: &[usize], images: &ImageOptions) -> Result<Array, IoError> {
    let mut arrays = load_named(path, |_| shape.to_vec(), images)?;
    match arrays.pop() {
        Some((_, array)) if arrays.is_empty() => Ok(array),
        last => Err(IoError::NotOneArray {
            path: path.to_owned(),
            found: arrays.len() + usize::from(last.is_some()),
        }),
    }
}

/// The arrays of a file with their names, which only a `.npz` gives (`None` for the others). `shape_of` tells
/// the shape of the input that a picture is brought to.
///
/// # Errors
/// If the file cannot be read as such.
pub fn load_named(
    path: &Path,
    shape_of: impl Fn(Option<&str>) -> Vec<usize>,
    images: &ImageOptions,
) -> Result<Vec<(Option<String>, Array)>, IoError> {
    let kind = Kind::of(path).ok_or_else(|| IoError::UnknownKind { path: path.to_owned() })?;
    let bytes = read(path)?;
    let npy = |source| IoError::Npy { path: path.to_owned(), source };
    Ok(match kind {
        Kind::Npy => vec![(None, Array::from_npy(&bytes).map_err(npy)?)],
        Kind::Npz => npy::from_npz(&bytes).map_err(npy)?.into_iter().map(|(n, a)| (Some(n), a)).collect(),
        Kind::Picture => {
            let picture = images::decode(&bytes, images, &shape_of(None));
            vec![(None, picture.map_err(|source| IoError::Image { path: path.to_owned(), source })?)]
        }
    })
}

/// The files that a path stands for: itself, or, if it is a folder, those in it that hold arrays or pictures,
/// in the order of their names.
///
/// # Errors
/// If the folder cannot be listed or holds no such file.
pub fn array_files(path: &Path) -> Result<Vec<PathBuf>, IoError> {
    let system = |source| IoError::System { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(system)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(system)? {
        let file = entry.map_err(system)?.path();
        if Kind::of(&file).is_some() && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(IoError::EmptyFolder { path: path.to_owned() }) } else { Ok(files) }
}

/// A tensor's name as a file name: what could lead out of a folder or trouble a shell becomes `_`.
pub fn file_stem(name: &str) -> String {
    let stem: String = name
        .chars()
        .map(|c| {
            if c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|') {
                '_'
            } else {
                c
            }
        })
        .collect();
    if stem.is_empty() || stem.starts_with('.') { format!("_{stem}") } else { stem }
}

/// Names of the files of a folder, without extensions: each is given once, also where capitals do not count.
#[derive(Clone, Debug, Default)]
pub struct FileStems {
    /// Those that are given, in small letters.
    taken: BTreeSet<String>,
}

impl FileStems {
    /// Bytes of a name at most; file systems have 255 for all of it.
    const MOST_BYTES: usize = 200;

    /// The names for the files of tensors. One whose name is free and makes a file name as it is keeps it.
    /// Then the others have theirs, in order: what a file name cannot have is `_` ([`file_stem`]), 200 bytes
    /// are kept, and `.2`, `.3` and so on are added to what is taken.
    pub fn add(&mut self, names: &[&str]) -> Vec<String> {
        let is_plain = |name: &str| name.len() <= Self::MOST_BYTES && file_stem(name) == name;
        let as_they_are: Vec<bool> =
            (names.iter()).map(|name| is_plain(name) && self.taken.insert(name.to_lowercase())).collect();
        let stems = names.iter().zip(as_they_are);
        stems.map(|(name, keeps)| if keeps { (*name).to_owned() } else { self.other(name) }).collect()
    }

    /// A name that is not taken.
    fn other(&mut self, name: &str) -> String {
        let mut base = file_stem(name);
        while base.len() > Self::MOST_BYTES {
            base.pop();
        }
        let mut stem = base.clone();
        let mut n = 2;
        while !self.taken.insert(stem.to_lowercase()) {
            stem = format!("{base}.{n}");
            n += 1;
        }
        stem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_stems_stay_in_their_folder() {
        assert_eq!(file_stem("features/conv:0"), "features_conv_0");
        assert_eq!(file_stem("../up"), "_.._up");
        assert_eq!(file_stem(""), "_");
        assert_eq!(file_stem("plain.1"), "plain.1");
    }

    #[test]
    fn files_have_names_of_their_own() {
        let long = "n".repeat(300);
        let names = ["a/b", "0", "a_b", "A_b", "", "..", "a:b", "a_b.2", &long, "a_b"];
        let expected = ["a_b.3", "0", "a_b", "A_b.4", "_", "_..", "a_b.5", "a_b.2", &long[..200], "a_b.6"];
        let mut stems = FileStems::default();
        assert_eq!(stems.add(&names), expected);
        assert_eq!(stems.add(&["0", "1"]), ["0.2", "1"]);
    }

    #[test]
    fn a_file_in_place_of_a_folder_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("written");
        let told = |path: &Path| create_folder(path).expect_err("refused").to_string();
        assert!(told(&file).ends_with("file: it is a file; expected a folder"), "{}", told(&file));
        let inner = told(&file.join("a/b"));
        assert!(
            inner.contains("file/a/b: ") && inner.ends_with("file is a file; expected a folder"),
            "{inner}"
        );
        create_folder(&folder.path().join("a/b")).expect("made");
    }

    #[test]
    fn standard_streams_are_told_by_their_names() {
        assert!(["-", "/dev/stdin"].iter().all(|name| is_standard_stream(Path::new(name))));
        assert!(!is_standard_stream(Path::new("./-")));
        assert_eq!(shown(Path::new("-")), "standard input");
    }

    #[test]
    fn a_folder_stands_for_its_files_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        assert!(matches!(array_files(path), Err(IoError::EmptyFolder { .. })));
        let bytes = Array::f32(vec![1], vec![0.5]).to_npy();
        for name in ["b.npy", "a.npy", "notes.txt"] {
            std::fs::write(path.join(name), &bytes).expect("written");
        }
        assert_eq!(array_files(path).expect("files"), [path.join("a.npy"), path.join("b.npy")]);
        assert!(matches!(array_files(&path.join("c.npy")), Err(IoError::System { .. })));
        let options = ImageOptions::default();
        assert_eq!(load_array(&path.join("a.npy"), &[1], &options).expect("an array").values, [0.5]);
        let refused = load_array(&path.join("notes.txt"), &[1], &options);
        assert!(matches!(refused, Err(IoError::UnknownKind { .. })));
    }
}
