//! Files beside a model's, in which data of it stand.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use strata_frontend::import::SideFiles;

/// The folder of a model's file.
///
/// A file in it may be a link to another place only if the model's own file is a link to the same folder, as
/// in the caches of model hubs.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    /// The folder as the model's path names it.
    folder: PathBuf,
    /// That folder, and the one in which the model's file really is; without links.
    allowed: Vec<PathBuf>,
}

impl ModelFolder {
    /// The folder of the model at `path`.
    pub fn of(path: &Path) -> Self {
        let parent = |path: &Path| match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let folder = parent(path);
        let real = path.canonicalize().ok().as_deref().map(parent);
        let allowed = folder.canonicalize().into_iter().chain(real).collect();
        Self { folder, allowed }
    }

    fn open(&self, name: &str) -> Result<File, String> {
        let path = self.folder.join(name);
        let about = |error: std::io::Error| format!("{}: {error}", path.display());
        let real = path.canonicalize().map_err(about)?;
        if !self.allowed.iter().any(|folder| real.starts_with(folder)) {
            return Err(format!("{}: it leads out of the model's folder", path.display()));
        }
        let file = File::open(&real).map_err(about)?;
        if file.metadata().map_err(about)?.is_dir() {
            return Err(format!("{}: it is a folder", path.display()));
        }
        Ok(file)
    }
}

impl SideFiles for ModelFolder {
    fn size_bytes(&self, name: &str) -> Result<u64, String> {
        let metadata = self.open(name)?.metadata();
        Ok(metadata.map_err(|error| error.to_string())?.len())
    }

    fn read(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, String> {
        let mut file = self.open(name)?;
        let wanted = usize::try_from(length).map_err(|_| format!("{length} bytes are too many"))?;
        let mut read = || -> std::io::Result<Vec<u8>> {
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::with_capacity(wanted);
            file.by_ref().take(length).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| error.to_string())?;
        if bytes.len() == wanted { Ok(bytes) } else { Err(format!("it ended after {} bytes", bytes.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_in_the_folder_and_nowhere_else() {
        let outer = tempfile::tempdir().expect("a folder");
        let folder = outer.path().join("model");
        std::fs::create_dir_all(folder.join("deep")).expect("made");
        std::fs::write(outer.path().join("secret"), b"secret").expect("written");
        std::fs::write(folder.join("deep/w"), b"0123456789").expect("written");
        let files = ModelFolder::of(&folder.join("model.onnx"));
        assert_eq!(files.size_bytes("deep/w"), Ok(10));
        assert_eq!(files.read("deep/w", 3, 4).expect("read"), b"3456");
        assert!(files.read("deep/w", 8, 4).expect_err("short").contains("ended"));
        assert!(files.size_bytes("deep").expect_err("a folder").contains("folder"));
        assert!(files.size_bytes("none").expect_err("missing").contains("none"));
        assert!(files.size_bytes("../secret").expect_err("outside").contains("out of the model's folder"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_only_to_where_the_model_is() {
        use std::os::unix::fs::symlink;
        let outer = tempfile::tempdir().expect("a folder");
        let (store, folder) = (outer.path().join("store"), outer.path().join("model"));
        for made in [&store, &folder] {
            std::fs::create_dir_all(made).expect("made");
        }
        std::fs::write(store.join("w"), b"weights").expect("written");
        symlink(store.join("w"), folder.join("w.data")).expect("linked");
        let refused = ModelFolder::of(&folder.join("model.onnx")).size_bytes("w.data");
        assert!(refused.expect_err("outside").contains("out of the model's folder"));
        std::fs::write(store.join("m"), b"model").expect("written");
        symlink(store.join("m"), folder.join("model.onnx")).expect("linked");
        assert_eq!(ModelFolder::of(&folder.join("model.onnx")).size_bytes("w.data"), Ok(7));
    }
}
