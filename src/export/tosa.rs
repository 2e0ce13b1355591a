//! A network as a TOSA flatbuffer, which the TOSA reference model and other backends run.

use strata_frontend::tosa;

use super::{ExportError, Format, Kind, Source, plain};

/// The row of this format.
pub(super) const FORMAT: Format = Format {
    name: "tosa",
    summary: "a TOSA 1.0 flatbuffer, for the TOSA reference model",
    takes: &[Kind::Ir, Kind::Tosa, Kind::Onnx],
    is_text: false,
    write,
};

fn write(source: &Source) -> Result<Vec<u8>, ExportError> {
    tosa::write(&plain::module(source)?).map_err(|error| ExportError::Content(error.to_string()))
}
