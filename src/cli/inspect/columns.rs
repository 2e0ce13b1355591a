//! The columns of the table of layers, and its forms as CSV and Markdown.

use crate::cli::tables::si;
use crate::inspect::{Inspection, Layer, Part, Runner};
use crate::io::array::show_shape;
use crate::report::human_bytes;

/// A column of the table of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Phase,
    Stage,
    Partition,
    Name,
    Op,
    Output,
    Macs,
    InputBytes,
    OutputBytes,
    WeightBytes,
    WeightsSoFar,
    Live,
    Host,
}

impl Column {
    const ALL: [Self; 13] = [
        Self::Phase,
        Self::Stage,
        Self::Partition,
        Self::Name,
        Self::Op,
        Self::Output,
        Self::Macs,
        Self::InputBytes,
        Self::OutputBytes,
        Self::WeightBytes,
        Self::WeightsSoFar,
        Self::Live,
        Self::Host,
    ];

    /// The columns that say something of some layer.
    pub(super) fn of(layers: &[Layer]) -> Vec<Self> {
        let says = |column: &Self| match column {
            Self::Phase => layers.iter().any(|layer| layer.phase.is_some()),
            Self::Stage => layers.iter().any(|layer| layer.stage.is_some()),
            Self::Partition => layers.iter().any(|layer| layer.partition.is_some()),
            Self::Live => layers.iter().any(|layer| layer.live_bytes.is_some()),
            Self::Host => layers.iter().any(|layer| layer.host.is_some()),
            _ => true,
        };
        Self::ALL.into_iter().filter(says).collect()
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Phase => "phase",
            Self::Stage => "stage",
            Self::Partition => "part.",
            Self::Name => "layer",
            Self::Op => "op",
            Self::Output => "output",
            Self::Macs => "MACs",
            Self::InputBytes => "in",
            Self::OutputBytes => "out",
            Self::WeightBytes => "weights",
            Self::WeightsSoFar => "sum",
            Self::Live => "live",
            Self::Host => "why the host",
        }
    }

    /// Whether its cells are words, which may be broken into lines.
    pub(super) fn is_words(self) -> bool {
        matches!(self, Self::Name | Self::Op | Self::Host)
    }

    pub(super) fn cell(self, layer: &Layer) -> String {
        let number = |number: Option<u32>| number.map_or_else(String::new, |number| number.to_string());
        // What is not there is left out, so that what is there is seen.
        let bytes = |bytes: u64| if bytes == 0 { String::new() } else { human_bytes(bytes) };
        match self {
            Self::Phase => number(layer.phase),
            Self::Stage => number(layer.stage),
            Self::Partition => number(layer.partition),
            Self::Name => layer.name.clone(),
            // With blanks, a line can be broken between two ops.
            Self::Op => layer.op.replace('+', " + "),
            Self::Output => format!("{} {}", show_shape(&layer.shape), layer.dtype),
            Self::Macs if layer.macs == 0 => String::new(),
            Self::Macs => si(layer.macs as f64),
            Self::InputBytes => bytes(layer.input_bytes),
            Self::OutputBytes => bytes(layer.output_bytes),
            Self::WeightBytes => bytes(layer.weight_bytes),
            Self::WeightsSoFar => bytes(layer.weight_bytes_so_far),
            Self::Live => layer.live_bytes.map_or_else(String::new, human_bytes),
            Self::Host => layer.host.clone().unwrap_or_default(),
        }
    }
}

/// The word for who runs a part.
pub(super) fn runner(part: &Part) -> &'static str {
    match part.runner {
        Runner::Machine => "machine",
        Runner::Ir => "host (IR)",
        Runner::Onnx => "host (ONNX)",
    }
}

/// The layers as a table of Markdown, with its parts under headings if there are several.
pub(super) fn markdown(shown: &Inspection) -> String {
    let mut text = String::new();
    for (index, part) in shown.parts.iter().enumerate() {
        if shown.parts.len() > 1 {
            text += &format!("{}### Part {index}: {}\n\n", if index > 0 { "\n" } else { "" }, runner(part));
        }
        let columns = Column::of(&part.layers);
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        text += &line(columns.iter().map(|column| column.title().to_owned()).collect());
        let rule = |column: &Column| if column.is_words() { "---" } else { "---:" }.to_owned();
        text += &line(columns.iter().map(rule).collect());
        for layer in &part.layers {
            let cell = |column: &Column| column.cell(layer).replace('|', "\\|").replace('\n', " ");
            text += &line(columns.iter().map(cell).collect());
        }
    }
    text
}

/// The keys of CSV, which are those of JSON.
const KEYS: &str = "part,runner,name,op,shape,dtype,macs,input_bytes,output_bytes,weight_bytes,\
                    weight_bytes_so_far,live_bytes,phase,stage,partition,is_transfer,host,nodes\n";

/// The layers of all parts, a line each, with plain numbers.
pub(super) fn csv(shown: &Inspection) -> String {
    let mut text = KEYS.to_owned();
    for (index, part) in shown.parts.iter().enumerate() {
        for layer in &part.layers {
            text += &csv_line(index, part.runner, layer);
        }
    }
    text
}

fn csv_line(part: usize, runner: Runner, layer: &Layer) -> String {
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    let mut nodes: Vec<&str> = layer.ops.iter().map(|step| step.node.as_str()).collect();
    nodes.dedup();
    let runner = match runner {
        Runner::Machine => "machine",
        Runner::Ir => "ir",
        Runner::Onnx => "onnx",
    };
    let cells = [
        part.to_string(),
        runner.to_owned(),
        quoted(&layer.name),
        quoted(&layer.op),
        show_shape(&layer.shape),
        layer.dtype.clone(),
        layer.macs.to_string(),
        layer.input_bytes.to_string(),
        layer.output_bytes.to_string(),
        layer.weight_bytes.to_string(),
        layer.weight_bytes_so_far.to_string(),
        number(layer.live_bytes),
        number(layer.phase.map(u64::from)),
        number(layer.stage.map(u64::from)),
        number(layer.partition.map(u64::from)),
        layer.is_transfer.to_string(),
        quoted(layer.host.as_deref().unwrap_or_default()),
        quoted(&nodes.join(" ")),
    ];
    cells.join(",") + "\n"
}

/// A cell of CSV, in quotes if it needs them.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_csv_are_quoted_where_they_must_be() {
        assert_eq!(quoted("conv1"), "conv1");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"so\""), "\"say \"\"so\"\"\"");
    }

    #[test]
    fn a_line_has_a_cell_a_key() {
        let line = csv_line(0, Runner::Machine, &Layer { name: "conv".to_owned(), ..Layer::default() });
        assert_eq!(line.matches(',').count(), KEYS.matches(',').count());
    }
}
