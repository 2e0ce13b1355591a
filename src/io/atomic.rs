//! Writing a file whole or not at all.
//!
//! The bytes go to a file beside the target, which takes the target's name only when all of them are there: a
//! reader never sees half a file, and a command that is broken off leaves what stood there before.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::IoError;
use super::temporary::{Steady, TemporaryFile};

/// Writes `bytes` to `path`, replacing what is there. What is no regular file, such as `/dev/stdout`, is
/// written as it is.
///
/// # Errors
/// If the system refuses; the error names the file. Nothing is left behind then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), IoError> {
    write_atomic_with(path, &mut |out| out.write_all(bytes))
}

/// As [`write_atomic`], of what `content` writes.
///
/// # Errors
/// Likewise.
pub fn write_atomic_with(path: &Path, content: &mut Content<'_>) -> Result<(), IoError> {
    write(path, content).map_err(|source| IoError::System { path: path.to_owned(), source })
}

/// What writes the content of a file.
pub type Content<'a> = dyn FnMut(&mut dyn Write) -> std::io::Result<()> + 'a;

/// That [`write_atomic`] can write to a path, as far as that is known before it does: for what would be told
/// only after long work.
///
/// # Errors
/// If there is no such folder, or no file can be made in it.
pub fn demand_writable(path: &Path) -> Result<(), IoError> {
    let is_writable = || {
        let target = target_of(path);
        match std::fs::metadata(&target) {
            Ok(meta) if meta.is_dir() => {
                Err(std::io::Error::other("it is a folder; expected a file to write"))
            }
            Ok(meta) if !meta.is_file() => Ok(()),
            _ => beside(&target).map(drop),
        }
    };
    is_writable().map_err(|source| IoError::System { path: path.to_owned(), source })
}

/// The file that is replaced: through a link the file itself, not the link.
fn target_of(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// A temporary file in the folder of another.
fn beside(target: &Path) -> std::io::Result<TemporaryFile> {
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    if !folder.is_dir() {
        let what = format!("there is no folder {}; make it first", folder.display());
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, what));
    }
    let mut beside = tempfile::Builder::new();
    beside.prefix(".strata-");
    // Those of any new file, which the user's mask narrows; a temporary file would be for its owner alone.
    #[cfg(unix)]
    beside.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // The path of the temporary file would tell the user nothing.
    TemporaryFile::new(&beside, &folder).map_err(|error| {
        let what = format!("no file can be made in {}: {}", folder.display(), error.kind());
        std::io::Error::new(error.kind(), what)
    })
}

fn write(path: &Path, content: &mut Content<'_>) -> std::io::Result<()> {
    // Whatever standard output is, it is written on, not replaced.
    if super::is_standard_stream(path) {
        let mut out = std::io::stdout().lock();
        content(&mut out)?;
        return out.flush();
    }
    let target = target_of(path);
    let before = std::fs::metadata(&target).ok();
    if before.as_ref().is_some_and(|meta| !meta.is_file()) {
        return content(&mut std::fs::File::create(&target)?);
    }
    let file = std::io::BufWriter::new(beside(&target)?);
    let mut file = AtomicFile { path: path.to_owned(), file, target, before };
    content(&mut file)?;
    file.written()?.place(&Steady::begin())
}

/// A file that is being written beside its place. If it is never written and placed, nothing of it stays.
#[derive(Debug)]
pub struct AtomicFile {
    /// Its place, as messages name it.
    path: PathBuf,
    file: std::io::BufWriter<TemporaryFile>,
    target: PathBuf,
    /// What stood there before.
    before: Option<std::fs::Metadata>,
}

/// A file of which all bytes are there, beside its place.
#[derive(Debug)]
pub(crate) struct WrittenFile {
    path: PathBuf,
    file: TemporaryFile,
    target: PathBuf,
}

impl AtomicFile {
    /// A file for a place.
    ///
    /// # Errors
    /// If the system refuses, or what is no regular file is in its place.
    pub fn begin(path: &Path) -> Result<Self, IoError> {
        let system = |source| IoError::System { path: path.to_owned(), source };
        let target = target_of(path);
        let before = std::fs::metadata(&target).ok();
        if let Some(before) = before.as_ref().filter(|before| !before.is_file()) {
            let found = if before.is_dir() { "a folder" } else { "no regular file" };
            return Err(system(std::io::Error::other(format!("it is {found}; expected a file to write"))));
        }
        let file = std::io::BufWriter::new(beside(&target).map_err(system)?);
        Ok(Self { path: path.to_owned(), file, target, before })
    }

    /// Writes what is left of its bytes.
    pub(crate) fn written(self) -> std::io::Result<WrittenFile> {
        let Self { path, file, target, before } = self;
        let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        if let Some(before) = before {
            file.as_file().set_permissions(before.permissions())?;
        }
        Ok(WrittenFile { path, file, target })
    }

    /// Lets files take their places, one right after another: all or, if the bytes of one cannot be written
    /// or a signal comes before, none.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn finish_all(files: Vec<Self>) -> Result<(), IoError> {
        let files = Self::all_written(files)?;
        WrittenFile::place_all(files, &Steady::begin())
    }

    /// Writes what is left of the bytes of files.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn all_written(files: Vec<Self>) -> Result<Vec<WrittenFile>, IoError> {
        let written = |file: Self| {
            let path = file.path.clone();
            file.written().map_err(|source| IoError::System { path, source })
        };
        files.into_iter().map(written).collect()
    }
}

impl WrittenFile {
    fn place(self, steady: &Steady) -> std::io::Result<()> {
        self.file.persist(&self.target, steady)
    }

    /// Lets files take their places.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn place_all(files: Vec<Self>, steady: &Steady) -> Result<(), IoError> {
        for file in files {
            let path = file.path.clone();
            file.place(steady).map_err(|source| IoError::System { path, source })?;
        }
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_was_there_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.bin");
        write_atomic(&path, b"first").expect("written");
        write_atomic(&path, b"second").expect("written");
        assert_eq!(std::fs::read(&path).expect("read"), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
    }

    #[test]
    fn files_take_their_places_together_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = |name: &str| folder.path().join(name);
        let begin = |name: &str| {
            let mut file = AtomicFile::begin(&place(name))?;
            file.write_all(name.as_bytes()).expect("written");
            Ok::<_, IoError>(file)
        };
        std::fs::create_dir(place("taken")).expect("a folder");
        let files: Result<Vec<_>, _> = ["a", "b", "taken"].map(begin).into_iter().collect();
        assert!(files.expect_err("refused").to_string().contains("taken: it is a folder"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
        let files: Result<Vec<_>, _> = ["a", "b"].map(begin).into_iter().collect();
        AtomicFile::finish_all(files.expect("begun")).expect("placed");
        assert_eq!(std::fs::read(place("b")).expect("read"), b"b");
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 3);
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("no/such/out.bin");
        let error = write_atomic(&missing, b"x").expect_err("there is no such folder");
        assert!(error.to_string().contains("out.bin"), "{error}");
        assert!(write_atomic(folder.path(), b"x").is_err(), "a folder is no file");
        assert!(demand_writable(&missing).is_err() && demand_writable(folder.path()).is_err());
    }

    #[test]
    fn asking_whether_a_file_can_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.bin");
        demand_writable(&path).expect("it can");
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0);
        std::fs::write(&path, b"first").expect("written");
        demand_writable(&path).expect("it can");
        assert_eq!(std::fs::read(&path).expect("read"), b"first");
    }
}
