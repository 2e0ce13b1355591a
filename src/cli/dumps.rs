//! Modules as files: their text, and their large constants in it, in a file beside it, or left out.
//!
//! Constants are never lost unsaid. What leaves them out names them so that no side file has them, so such a
//! text is refused wherever a module is read, and [`write`] tells of it.

use std::path::{Path, PathBuf};

use strata_ir::Module;
use strata_ir::text::{self, PrintOptions, ResourcePlacement, print};

use super::console::Console;
use super::failure::Failure;
use crate::io::{self, write_atomic};
use crate::report::human_bytes;

/// The line between the modules of a file, as `mlir-opt --split-input-file` has it.
pub(super) const BETWEEN_MODULES: &str = "// -----";

/// Bytes of large constants up to which they stand in what is printed, unasked.
const SMALL_BYTES: usize = 64 << 10;

/// What the names of constants that are left out begin with.
const LEFT_OUT: &str = "left_out_";

/// The side file that holds the large constants of a dump.
pub(super) fn side_file(path: &Path) -> PathBuf {
    path.with_extension("resources")
}

/// Modules as text, and their large constants if they stand in a file of their own.
pub(super) struct Emitted {
    /// The text.
    pub(super) text: String,
    /// The bytes of the side file.
    side: Option<Vec<u8>>,
}

impl Emitted {
    /// A text that is no module's.
    pub(super) fn plain(text: String) -> Self {
        Self { text, side: None }
    }

    /// Modules with all constants in the text, or with those that are large in a side file.
    pub(super) fn of(modules: &[Module], inline: bool) -> Self {
        let placement = if inline { ResourcePlacement::Inline } else { ResourcePlacement::SideFile };
        let (mut texts, mut resources) = (Vec::new(), Vec::new());
        for (index, module) in modules.iter().enumerate() {
            let prefix = if modules.len() > 1 { format!("part{index}_") } else { String::new() };
            let options = PrintOptions { resources: placement, prefix, ..PrintOptions::default() };
            let printed = print(module, &options);
            texts.push(printed.text);
            resources.extend(printed.resources);
        }
        let text = texts.join(&format!("{BETWEEN_MODULES}\n"));
        let side = (!resources.is_empty()).then(|| text::resources::to_bytes(&resources));
        Self { text, side }
    }

    /// The same with lines before the first.
    pub(super) fn headed(mut self, header: &str) -> Self {
        self.text.insert_str(0, header);
        self
    }

    /// Writes the text, and the side file beside it.
    pub(super) fn write_to(&self, path: &Path) -> Result<(), Failure> {
        if let Some(side) = &self.side {
            write_atomic(&side_file(path), side)?;
        }
        Ok(write_atomic(path, self.text.as_bytes())?)
    }
}

/// A module without its large constants, to be looked at.
pub(super) fn outline(module: &Module) -> String {
    left_out(module).text
}

fn left_out(module: &Module) -> text::Printed {
    let resources = ResourcePlacement::SideFile;
    print(module, &PrintOptions { resources, prefix: LEFT_OUT.to_owned(), ..PrintOptions::default() })
}

/// Writes modules to a file with a side file, or prints them. What is printed has no file beside it: large
/// constants are left out of it, and a note says so, unless they are few bytes or `inline` asks for them.
pub(super) fn write(
    output: Option<&Path>,
    modules: &[Module],
    inline: bool,
    console: &Console,
) -> Result<(), Failure> {
    if let Some(path) = output.filter(|path| has_files_beside(path)) {
        return Emitted::of(modules, inline).write_to(path);
    }
    let outlines: Vec<text::Printed> =
        if inline { Vec::new() } else { modules.iter().map(left_out).collect() };
    let blobs = outlines.iter().flat_map(|printed| &printed.resources);
    let n_bytes: usize = blobs.map(|(_, bytes)| bytes.len()).sum();
    let emitted = if inline || n_bytes <= SMALL_BYTES {
        Emitted::of(modules, true)
    } else {
        let size = human_bytes(n_bytes as u64);
        console.note(&format!(
            "{size} of constants are left out, so this text is not read again; `-o FILE` writes them beside \
             it, --inline-constants into it"
        ));
        let texts: Vec<String> = outlines.into_iter().map(|printed| printed.text).collect();
        Emitted::plain(texts.join(&format!("{BETWEEN_MODULES}\n")))
    };
    match output.filter(|path| *path != Path::new("-")) {
        Some(path) => Ok(write_atomic(path, emitted.text.as_bytes())?),
        None => console.print(&emitted.text),
    }
}

/// Whether a file can stand beside that of a path: not beside a pipe or a terminal.
fn has_files_beside(path: &Path) -> bool {
    !io::is_standard_stream(path) && std::fs::metadata(path).map_or(true, |meta| meta.is_file())
}
