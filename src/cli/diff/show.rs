//! A difference as people read it.

use comfy_table::{CellAlignment, Table};

use super::Difference;
use crate::cli::console::Console;
use crate::cli::tables::{count, decimal_bytes, joules, percent, row, show, table, words};
use crate::diff::figures::Unit;
use crate::diff::ops::OpChanges;
use crate::diff::plans::{Change, FigureChange, PhaseMatch, PlanChanges};
use crate::diff::view::{Key, PlacedStage, PlacedStream, WeightTime};
use crate::report::human_bytes;

/// Lines of a list that are shown unasked.
const SHOWN: usize = 24;

/// All of it, or that there is none.
pub(super) fn text(difference: &Difference, all: bool, console: &Console) -> String {
    let Difference { a, b, equal, plan, ops, .. } = difference;
    if *equal {
        return format!("{a} and {b} are the same in all that was compared\n");
    }
    let mut page = Page { text: format!("A: {a}\nB: {b}\n"), all, width: console.width() };
    if let Some(plan) = plan {
        page.plan(plan);
    }
    if let Some(ops) = ops {
        page.ops(ops);
    }
    page.text
}

struct Page {
    text: String,
    all: bool,
    width: u16,
}

impl Page {
    fn plan(&mut self, plan: &PlanChanges) {
        self.figures(&plan.figures);
        self.phases(&plan.phases);
        let moved = plan
            .moved
            .iter()
            .map(|moved| [named(&moved.a.key), placed(&moved.a), placed(&moved.b), moved.what.join(", ")]);
        self.list("stages that moved", &["stage", "A", "B", "what"], moved.collect());
        let alone = |stages: &[PlacedStage]| stages.iter().map(|s| [named(&s.key), placed(s)]).collect();
        self.list("stages of A alone", &["stage", "A"], alone(&plan.only_a));
        self.list("stages of B alone", &["stage", "B"], alone(&plan.only_b));
        let is_resident = |change: &&Change<PlacedStream>| {
            [&change.a, &change.b].into_iter().flatten().any(PlacedStream::is_resident)
        };
        let (residents, rings): (Vec<_>, Vec<_>) = plan.streams.iter().partition(is_resident);
        let rows = |changes: Vec<&Change<PlacedStream>>| changes.into_iter().map(stream_row).collect();
        let header = ["stream", "A", "B"];
        self.list("tensors that stay over phases", &header, rows(residents));
        self.list("streams placed elsewhere", &header, rows(rings));
        let weights = plan.weights.iter().map(weight_row).collect();
        self.list("weights loaded at another time", &["stage", "bytes", "A", "B"], weights);
    }

    fn figures(&mut self, figures: &[FigureChange]) {
        let changed: Vec<&FigureChange> = figures.iter().filter(|figure| figure.a != figure.b).collect();
        if changed.is_empty() {
            self.text += "\nall figures are equal\n";
            return;
        }
        let mut lines = table(&["figure", "A", "B", "change", ""]);
        for figure in changed {
            let (a, b) = (amount(figure.a, figure.unit), amount(figure.b, figure.unit));
            let sign = if figure.b > figure.a { "+" } else { "-" };
            let change = format!("{sign}{}", amount((figure.b - figure.a).abs(), figure.unit));
            row(&mut lines, &[figure.key.clone(), a, b, change, relative(figure)]);
        }
        self.text += &format!("\n{}", show(&lines));
    }

    fn phases(&mut self, phases: &[PhaseMatch]) {
        let is_other = |phase: &&PhaseMatch| {
            phase.a.is_none() || phase.b.is_none() || phase.a != phase.b || phase.a_cycles != phase.b_cycles
        };
        let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let cycles = |cycles: Option<u64>| cycles.map_or_else(|| "-".to_owned(), count);
        let rows = phases.iter().filter(is_other).map(|phase| {
            let common = phase.common_stages.to_string();
            [number(phase.a), number(phase.b), common, cycles(phase.a_cycles), cycles(phase.b_cycles)]
        });
        let header = ["A", "B", "stages of both", "cycles of A", "cycles of B"];
        self.list("phases, matched by their stages", &header, rows.collect());
    }

    fn ops(&mut self, ops: &OpChanges) {
        let placed = |ops: &[crate::diff::ops::PlacedOp]| -> Vec<[String; 4]> {
            let cells = ops
                .iter()
                .map(|op| [op.key.op.clone(), of_node(&op.key), op.results.join(", "), op.place.clone()]);
            cells.collect()
        };
        let header = ["op", "node", "results", "in"];
        self.list("ops of A alone", &header, placed(&ops.removed));
        self.list("ops of B alone", &header, placed(&ops.added));
        let changed = ops.changed.iter().map(|op| [op.key.op.clone(), of_node(&op.key), op.what.join(", ")]);
        self.list("ops that changed", &["op", "node", "what"], changed.collect());
        let moved =
            ops.moved.iter().map(|op| [op.key.op.clone(), of_node(&op.key), op.from.clone(), op.to.clone()]);
        self.list("ops that moved", &["op", "node", "from", "to"], moved.collect());
        let attributes = ops.attributes.iter().map(|name| [name.clone()]).collect();
        self.list("attributes that differ", &["attribute"], attributes);
    }

    /// A list with a title, cut where it is long.
    fn list<const N: usize>(&mut self, title: &str, header: &[&str; N], rows: Vec<[String; N]>) {
        if rows.is_empty() {
            return;
        }
        self.text += &format!("\n{title}: {}\n", rows.len());
        let shown = if self.all { rows.len() } else { rows.len().min(SHOWN) };
        let mut lines: Table = words(header);
        for cells in &rows[..shown] {
            row(&mut lines, cells);
        }
        for (column, title) in lines.column_iter_mut().zip(header) {
            if title.starts_with("cycles") || *title == "bytes" {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        lines.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
        lines.set_width(self.width);
        self.text += &show(&lines);
        if shown < rows.len() {
            self.text += &format!("and {} more; --all shows them\n", rows.len() - shown);
        }
    }
}

/// A value in its unit.
fn amount(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => decimal_bytes(value as u64),
        Unit::Picojoules => joules(value),
        Unit::Share => percent(value),
        Unit::Rate => format!("{value:.2}"),
        Unit::Count | Unit::Cycles | Unit::ClusterCycles => count(value as u64),
    }
}

/// How much more or less the second is, as a part of the first.
fn relative(figure: &FigureChange) -> String {
    if figure.a == 0.0 || figure.unit == Unit::Share {
        return String::new();
    }
    format!("{:+.1} %", 100.0 * (figure.b / figure.a - 1.0))
}

fn named(key: &Key) -> String {
    let nth = if key.nth > 0 { format!(" #{}", key.nth + 1) } else { String::new() };
    format!("{} {}{nth}", key.op, key.name)
}

fn of_node(key: &Key) -> String {
    if key.nth > 0 { format!("{} #{}", key.name, key.nth + 1) } else { key.name.clone() }
}

fn placed(stage: &PlacedStage) -> String {
    let mut text = format!("phase {}", stage.phase);
    if let Some(partition) = stage.partition {
        text += &format!(", partition {partition}");
    }
    if let Some(clusters) = stage.clusters {
        text += &format!(" of {clusters}");
    }
    if stage.winograd == Some(true) {
        text += ", Winograd";
    }
    text
}

fn stream_row(change: &Change<PlacedStream>) -> [String; 3] {
    let place = |stream: &Option<PlacedStream>| match stream {
        None => "-".to_owned(),
        Some(stream) => {
            let prefix = match stream.prefix_rows {
                0 => String::new(),
                rows => format!(" + {rows} rows before them"),
            };
            let phases = if stream.is_resident() {
                format!("phases {} to {}", stream.first_phase, stream.last_phase)
            } else {
                format!("phase {}", stream.first_phase)
            };
            let bytes = human_bytes(stream.bytes);
            format!(
                "{phases} at {:#x}, {} of {} rows{prefix}, {bytes}",
                stream.base, stream.slots, stream.rows
            )
        }
    };
    let key = [&change.a, &change.b].into_iter().flatten().next().map(|stream| named(&stream.key));
    [key.unwrap_or_default(), place(&change.a), place(&change.b)]
}

fn weight_row(change: &Change<WeightTime>) -> [String; 4] {
    let time = |weights: &Option<WeightTime>| match weights {
        None => "-".to_owned(),
        Some(weights) if weights.is_early() => {
            format!("phase {}, used in {}", weights.loaded_in, weights.used_in)
        }
        Some(weights) => format!("phase {}", weights.used_in),
    };
    let either = [&change.a, &change.b].into_iter().flatten().next();
    let (key, bytes) = either.map_or_else(Default::default, |w| (named(&w.key), human_bytes(w.bytes)));
    [key, bytes, time(&change.a), time(&change.b)]
}
