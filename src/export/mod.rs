//! Models, plans and programs in forms that other tools read: `strata export`.
//!
//! A format is a module of this folder and a row of [`FORMATS`]. It is written from a [`Source`], which is
//! what a file holds, and says which kinds of files it can be written from. Formats do no IO, and the same
//! source gives the same bytes. None of them is read back: what Strata reads is the IR's own text.

mod dot;
mod graph;
mod mlir;
mod model_explorer;
mod onnx;
mod perfetto;
mod plain;
mod tosa;

use std::fmt;

use strata_ir::Module;
use strata_isa_spec::bundle::Bundle;

/// A form that other tools read.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is and what reads it, in a line.
    pub summary: &'static str,
    /// The kinds of files that it is written from.
    pub takes: &'static [Kind],
    /// Whether it is text, which may go to a terminal.
    pub is_text: bool,
    write: fn(&Source) -> Result<Vec<u8>, ExportError>,
}

/// All formats.
pub const FORMATS: &[Format] =
    &[perfetto::FORMAT, dot::FORMAT, model_explorer::FORMAT, onnx::FORMAT, tosa::FORMAT, mlir::FORMAT];

/// What kind of file something was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bundle.
    Bundle,
    /// The text of the IR.
    Ir,
    /// A TOSA flatbuffer.
    Tosa,
    /// An ONNX model.
    Onnx,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bundle => "a bundle (.strata)",
            Self::Ir => "a module of the IR (.mlir)",
            Self::Tosa => "a TOSA flatbuffer (.tosa)",
            Self::Onnx => "an ONNX model",
        })
    }
}

/// What is exported.
#[derive(Debug)]
pub struct Source {
    /// What the file is called.
    pub name: String,
    /// What kind of file it is.
    pub kind: Kind,
    /// What it holds.
    pub content: Content,
}

/// What a file holds.
#[derive(Debug)]
pub enum Content {
    /// A compiled network.
    Bundle(Box<Bundle>),
    /// A module of the IR for each part of a network; an ONNX model is its import.
    Modules(Vec<Module>),
}

/// Why something cannot be exported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The format is written from other kinds of files.
    #[error("{found}, of which `{format}` is not written; it is of {}", list(takes))]
    Kind {
        /// The format.
        format: &'static str,
        /// The kind of file that was given.
        found: Kind,
        /// The kinds of which it is written.
        takes: &'static [Kind],
    },
    /// The file holds nothing of what the format shows, or what it has no form for.
    #[error("{0}")]
    Content(String),
}

fn list(kinds: &[Kind]) -> String {
    kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

impl Format {
    /// The format of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        FORMATS.iter().find(|format| format.name == name)
    }

    /// The bytes of a source in this format.
    ///
    /// # Errors
    /// If the format is not written from such a source.
    pub fn write(&self, source: &Source) -> Result<Vec<u8>, ExportError> {
        if !self.takes.contains(&source.kind) {
            return Err(ExportError::Kind { format: self.name, found: source.kind, takes: self.takes });
        }
        (self.write)(source)
    }
}

impl Source {
    /// The compiled network that it is.
    ///
    /// # Errors
    /// If it is none.
    fn bundle(&self) -> Result<&Bundle, ExportError> {
        match &self.content {
            Content::Bundle(bundle) => Ok(bundle),
            Content::Modules(_) => Err(ExportError::Content("no compiled network".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_says_what_it_is_written_from() {
        let name = "x.mlir".to_owned();
        let source = Source { name, kind: Kind::Ir, content: Content::Modules(Vec::new()) };
        let format = Format::named("perfetto").expect("listed");
        let error = format.write(&source).expect_err("a trace is of a program");
        let text =
            "a module of the IR (.mlir), of which `perfetto` is not written; it is of a bundle (.strata)";
        assert_eq!(error.to_string(), text);
    }
}
