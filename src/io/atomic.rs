//! Writing a file whole or not at all.
//!
//! The bytes go to a file beside the target, which takes the target's name only when all of them are there: a
//! reader never sees half a file, and a command that is broken off leaves what stood there before.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::IoError;

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
        let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match std::fs::metadata(&target) {
            Ok(meta) if meta.is_dir() => {
                Err(std::io::Error::other("it is a folder; expected a file to write"))
            }
            Ok(meta) if !meta.is_file() => Ok(()),
            _ => beside(&target)?.close(),
        }
    };
    is_writable().map_err(|source| IoError::System { path: path.to_owned(), source })
}

/// A temporary file in the folder of another.
fn beside(target: &Path) -> std::io::Result<tempfile::NamedTempFile> {
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
    beside.tempfile_in(&folder).map_err(|error| {
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
    // Through a link the file itself is replaced, not the link.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let before = std::fs::metadata(&target).ok();
    if before.as_ref().is_some_and(|meta| !meta.is_file()) {
        return content(&mut std::fs::File::create(&target)?);
    }
    let mut file = AtomicFile { file: std::io::BufWriter::new(beside(&target)?), target, before };
    content(&mut file)?;
    file.finish()
}

/// A file that is being written beside its place.
#[derive(Debug)]
pub struct AtomicFile {
    file: std::io::BufWriter<tempfile::NamedTempFile>,
    target: PathBuf,
    /// What stood there before.
    before: Option<std::fs::Metadata>,
}

impl AtomicFile {
    /// A file that takes its place when it is [finished](Self::finish); if it never is, nothing of it stays.
    ///
    /// # Errors
    /// If the system refuses, or there is a folder in its place.
    pub fn begin(path: &Path) -> std::io::Result<Self> {
        let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let before = std::fs::metadata(&target).ok();
        if before.as_ref().is_some_and(std::fs::Metadata::is_dir) {
            return Err(std::io::Error::other("it is a folder; expected a file to write"));
        }
        Ok(Self { file: std::io::BufWriter::new(beside(&target)?), target, before })
    }

    /// Lets it take its place.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn finish(self) -> std::io::Result<()> {
        let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        if let Some(before) = self.before {
            file.as_file().set_permissions(before.permissions())?;
        }
        file.persist(&self.target)?;
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
