//! Modules as files: their text, and their large constants in it, in a file beside it, or left out.
//!
//! Constants are never lost unsaid. A text without them names each by a hash of its data, so it is refused
//! wherever no file beside it has just these, and [`write`] tells of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use strata_ir::Module;
use strata_ir::text::file::join_modules;
use strata_ir::text::resources::{self, Blob};
use strata_ir::text::{Form, PrintOptions, Printed, ResourceError, ResourcePlacement, Resources, print};

use super::console::Console;
use super::failure::Failure;
use crate::io::{self, write_atomic};
use crate::report::human_bytes;

/// Bytes of large constants up to which they stand in what is printed, unasked.
const SMALL_BYTES: usize = 64 << 10;

/// The side file of all dumps of a folder.
const OF_FOLDER: &str = "constants.resources";

/// How modules are written.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct PrintArgs {
    /// Keep large constants in the text of the IR, where every MLIR tool reads them. Otherwise they go to a
    /// file beside it, and what is printed has them only if they are few
    #[arg(long)]
    inline_constants: bool,
    /// Write the IR in MLIR's generic form, which any MLIR tool reads
    #[arg(long)]
    generic: bool,
    /// Show where ops come from in what is printed, too; files of the IR always tell
    #[arg(long)]
    locations: bool,
}

impl PrintArgs {
    fn options(self, locations: bool, resources: ResourcePlacement) -> PrintOptions {
        let form = if self.generic { Form::Generic } else { Form::Pretty };
        PrintOptions { form, locations, resources, ..PrintOptions::default() }
    }

    /// Where large constants go.
    fn placement(self) -> ResourcePlacement {
        if self.inline_constants { ResourcePlacement::Inline } else { ResourcePlacement::SideFile }
    }

    /// A module without its large constants, to be looked at.
    pub(super) fn outline(self, module: &Module) -> String {
        print(module, &self.options(self.locations, ResourcePlacement::SideFile)).text
    }
}

/// A module in the pretty form without its large constants and locations, to be looked at.
pub(super) fn outline(module: &Module) -> String {
    let resources = ResourcePlacement::SideFile;
    print(module, &PrintOptions { locations: false, resources, ..PrintOptions::default() }).text
}

/// The side file of one file of modules.
fn side_file(path: &Path) -> PathBuf {
    path.with_extension("resources")
}

/// The large constants beside a file of modules: in a file of its own, and in that of its folder. Where it
/// has its own, that of the folder may be of others, and damaged.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn side_resources(path: &Path) -> Result<Resources, Failure> {
    if io::is_standard_stream(path) {
        return Ok(Resources::new());
    }
    let of_folder = read_side_file(&path.with_file_name(OF_FOLDER));
    match read_side_file(&side_file(path))? {
        Some(own) => {
            let mut all = of_folder.ok().flatten().unwrap_or_default();
            all.extend(own);
            Ok(all)
        }
        None => Ok(of_folder?.unwrap_or_default()),
    }
}

fn read_side_file(side: &Path) -> Result<Option<Resources>, Failure> {
    if !side.is_file() {
        return Ok(None);
    }
    let about = |error: ResourceError| Failure::file(side, error);
    Resources::from_bytes(io::map(side)?).map(Some).map_err(about)
}

fn write_side_file(path: &Path, blobs: &BTreeMap<String, Blob>) -> Result<(), Failure> {
    let blobs: Vec<(&str, Blob)> = blobs.iter().map(|(name, blob)| (name.as_str(), blob.clone())).collect();
    Ok(io::write_atomic_with(path, &mut |out| resources::write(&blobs, out))?)
}

/// The handles that the texts of a folder name.
fn handles_in(folder: &Path) -> Result<BTreeSet<String>, Failure> {
    let about = |source| io::IoError::System { path: folder.to_owned(), source };
    let mut handles = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(about)? {
        let path = entry.map_err(about)?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == "mlir") {
            let text = String::from_utf8_lossy(&io::read(&path)?).into_owned();
            let named = text.split("dense_resource<").skip(1).filter_map(|rest| rest.split('>').next());
            handles.extend(named.map(str::to_owned));
        }
    }
    Ok(handles)
}

/// Modules as text, and the large constants that do not stand in it, each once.
struct Emitted {
    text: String,
    blobs: BTreeMap<String, Blob>,
}

impl Emitted {
    fn of(modules: &[Module], options: &PrintOptions) -> Self {
        let (mut texts, mut blobs) = (Vec::new(), BTreeMap::new());
        let mut options = options.clone();
        for (index, module) in modules.iter().enumerate() {
            if modules.len() > 1 {
                options.aliases = format!("part{index}_loc");
            }
            let Printed { text, resources } = print(module, &options);
            texts.push(text);
            blobs.extend(resources);
        }
        Self { text: join_modules(&texts), blobs }
    }
}

/// Writes modules to a file, with a side file if constants are to stand there. `header` stands before them.
pub(super) fn write_file(
    path: &Path,
    header: &str,
    modules: &[Module],
    how: PrintArgs,
) -> Result<(), Failure> {
    let side = side_file(path);
    if side == path || side.file_name().is_some_and(|name| name == OF_FOLDER) {
        let why = "the constants of modules stand in files of this name: choose another";
        return Err(Failure::Usage(format!("{}: {why}", path.display())));
    }
    let Emitted { text, blobs } = Emitted::of(modules, &how.options(true, how.placement()));
    if !blobs.is_empty() {
        write_side_file(&side, &blobs)?;
    }
    Ok(write_atomic(path, format!("{header}{text}").as_bytes())?)
}

/// A folder of dumps, which share a side file.
#[derive(Debug)]
pub(super) struct DumpFolder {
    path: PathBuf,
    how: PrintArgs,
    /// What the side file holds.
    blobs: BTreeMap<String, Blob>,
}

impl DumpFolder {
    /// The folder at a path, which is there afterwards. Constants that texts in it name are kept.
    ///
    /// # Errors
    /// If it cannot be made, or its side file cannot be read.
    pub(super) fn create(path: &Path, how: PrintArgs) -> Result<Self, Failure> {
        io::create_folder(path)?;
        let mut blobs = BTreeMap::new();
        if let Some(before) = read_side_file(&path.join(OF_FOLDER))? {
            let named = handles_in(path)?;
            blobs.extend(before.filtered(|name| named.contains(name)));
        }
        Ok(Self { path: path.to_owned(), how, blobs })
    }

    /// Writes modules to a file of the folder; before it the side file, if they have constants that no dump
    /// before them has.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(super) fn write(&mut self, name: &str, modules: &[Module]) -> Result<(), Failure> {
        let Emitted { text, blobs } = Emitted::of(modules, &self.how.options(true, self.how.placement()));
        let n_before = self.blobs.len();
        self.blobs.extend(blobs);
        if self.blobs.len() > n_before {
            write_side_file(&self.path.join(OF_FOLDER), &self.blobs)?;
        }
        Ok(write_atomic(&self.path.join(name), text.as_bytes())?)
    }
}

/// Writes modules to a file with a side file, or prints them. What is printed has no file beside it: large
/// constants are left out of it, and a note says so, unless they are few bytes or are asked for.
pub(super) fn write(
    output: Option<&Path>,
    modules: &[Module],
    how: PrintArgs,
    console: &Console,
) -> Result<(), Failure> {
    if let Some(path) = output.filter(|path| has_files_beside(path)) {
        return write_file(path, "", modules, how);
    }
    let outline = Emitted::of(modules, &how.options(how.locations, how.placement()));
    let n_bytes: usize = outline.blobs.values().map(|blob| blob.bytes().len()).sum();
    let text = if n_bytes == 0 {
        outline.text
    } else if n_bytes <= SMALL_BYTES {
        Emitted::of(modules, &how.options(how.locations, ResourcePlacement::Inline)).text
    } else {
        let size = human_bytes(n_bytes as u64);
        console.note(&format!(
            "{size} of constants are left out, so this text is not read again; `-o FILE` writes them beside \
             it, --inline-constants into it"
        ));
        outline.text
    };
    match output.filter(|path| *path != Path::new("-")) {
        Some(path) => Ok(write_atomic(path, text.as_bytes())?),
        None => console.print(&text),
    }
}

/// Whether a file can stand beside that of a path: not beside a pipe or a terminal.
fn has_files_beside(path: &Path) -> bool {
    !io::is_standard_stream(path) && std::fs::metadata(path).map_or(true, |meta| meta.is_file())
}
