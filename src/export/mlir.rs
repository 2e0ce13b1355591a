//! A network as plain TOSA in MLIR's generic form, with its constants: one file that any MLIR tool reads.

use strata_ir::text::{Form, PrintOptions, ResourcePlacement, print};

use super::{ExportError, Format, Kind, Source, plain};

/// The row of this format.
pub(super) const FORMAT: Format = Format {
    name: "mlir",
    summary: "plain TOSA in MLIR's generic form with its constants, for tosa-opt and any MLIR tool",
    takes: &[Kind::Ir, Kind::Tosa, Kind::Onnx],
    is_text: true,
    write,
};

fn write(source: &Source) -> Result<Vec<u8>, ExportError> {
    let options =
        PrintOptions { form: Form::Generic, resources: ResourcePlacement::Inline, ..PrintOptions::default() };
    Ok(print(&plain::module(source)?, &options).text.into_bytes())
}
