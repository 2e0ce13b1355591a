//! The figures of an independent model that plans are held against: `benches/reference/traffic.csv`.

use super::subject::Size;

/// The file; where its figures come from stands at its head.
const CSV: &str = include_str!("../../../benches/reference/traffic.csv");

/// One network at one size of activation SRAM.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) network: String,
    pub(super) size: Size,
    /// Activation SRAM in MiB.
    pub(super) activation_mib: f64,
    /// Layer by layer, in millions of bytes.
    pub(super) single_mb: f64,
    /// Multi-layer, with column strips and dynamic buffers.
    pub(super) best_known_mb: f64,
    /// No plan without recompute is below it.
    pub(super) bound_mb: f64,
    /// Weights, inputs and outputs once.
    pub(super) compulsory_mb: f64,
    /// Frames a second, layer by layer.
    pub(super) single_fps: f64,
    /// Frames a second, multi-layer.
    pub(super) multi_fps: f64,
    /// Frames a second that nothing can beat.
    pub(super) roofline_fps: f64,
}

/// All rows, in the order of the file.
///
/// # Errors
/// The first line that cannot be read: a defect of the file.
pub(super) fn rows() -> Result<Vec<Row>, String> {
    parse(CSV)
}

fn parse(text: &str) -> Result<Vec<Row>, String> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty());
    let header: Vec<&str> = lines.next().map(|(_, line)| line.split(',').collect()).unwrap_or_default();
    let column =
        |name: &str| header.iter().position(|h| *h == name).ok_or_else(|| format!("no column `{name}`"));
    let mut rows = Vec::new();
    for (at, line) in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |name: &str| -> Result<&str, String> {
            cells.get(column(name)?).copied().ok_or_else(|| format!("line {}: no `{name}`", at + 1))
        };
        let number = |name: &str| -> Result<f64, String> {
            cell(name)?.parse().map_err(|_| format!("line {}: `{name}` is no number", at + 1))
        };
        let size = super::super::args::parse_size(cell("size")?);
        rows.push(Row {
            network: cell("network")?.to_owned(),
            size: size.map_err(|error| format!("line {}: {error}", at + 1))?,
            activation_mib: number("activation_mib")?,
            single_mb: number("single_mb")?,
            best_known_mb: number("best_known_mb")?,
            bound_mb: number("bound_mb")?,
            compulsory_mb: number("compulsory_mb")?,
            single_fps: number("single_fps")?,
            multi_fps: number("multi_fps")?,
            roofline_fps: number("roofline_fps")?,
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read_and_makes_sense() {
        let rows = rows().expect("the file is sound");
        assert_eq!(rows.len(), 42);
        for row in rows {
            let falling = [row.single_mb, row.best_known_mb, row.bound_mb, row.compulsory_mb];
            assert!(falling.is_sorted_by(|a, b| a >= b), "{row:?}");
            assert!([row.single_fps, row.multi_fps, row.roofline_fps].is_sorted(), "{row:?}");
            assert!(strata_frontend::zoo::ZooModel::names().contains(&&*row.network), "{row:?}");
        }
    }

    #[test]
    fn faults_name_the_line() {
        assert_eq!(
            parse("network,size\nunet,5"),
            Err("line 2: expected WIDTHxHEIGHT, such as 416x416".to_owned())
        );
        assert_eq!(parse("network\nunet"), Err("no column `size`".to_owned()));
    }
}
