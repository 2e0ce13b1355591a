//! Tables and numbers that people can read.

use comfy_table::{CellAlignment, Table, presets};

use crate::report::human_bytes;
use crate::stats::{EnergyStats, HostNode, HostStats, PlanStats, SimulatedStats, StreamStats};
use strata_backend::model::DramBytes;

/// A table without frames: the first column to the left, the others to the right.
pub(super) fn table<H: ToString>(header: &[H]) -> Table {
    let mut table = words(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A table without frames, all columns to the left: for words.
pub(super) fn words<H: ToString>(header: &[H]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().map(ToString::to_string));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Adds a row.
pub(super) fn row<C: ToString>(table: &mut Table, cells: &[C]) {
    table.add_row(cells.iter().map(ToString::to_string));
}

/// The text of a table, without blanks at the ends of its lines.
pub(super) fn show(table: &Table) -> String {
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A whole number with thin groups: `61,895,776`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with a decimal prefix: `399.08 G`.
pub(super) fn si(number: f64) -> String {
    let prefixes = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    match prefixes.iter().find(|(size, _)| number >= *size) {
        Some((size, prefix)) => format!("{:.2}{prefix}", number / size),
        None => format!("{number:.0}"),
    }
}

/// Bytes in the decimal unit that fits: `121.1 MB`, `3.4 kB`.
pub(super) fn decimal_bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// A fraction: `87.3 %`.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.1} %", fraction * 100.0)
}

/// Energy in the unit that fits: `24.10 mJ`, `3.20 µJ`.
pub(super) fn joules(picojoules: f64) -> String {
    let millijoules = picojoules * 1e-9;
    if millijoules < 0.1 { format!("{:.2} µJ", millijoules * 1e3) } else { format!("{millijoules:.2} mJ") }
}

/// The lines of a comparison of plans: what, and its value for each.
pub(super) fn plan_lines(
    plans: &[(&PlanStats, Option<&SimulatedStats>)],
) -> Vec<(&'static str, Vec<String>)> {
    let of = |get: &dyn Fn(&PlanStats) -> String| plans.iter().map(|(plan, _)| get(plan)).collect::<Vec<_>>();
    let dram = |get: &dyn Fn(&DramBytes) -> u64| of(&|p| decimal_bytes(get(&p.dram_bytes)));
    let mut lines = vec![
        ("objective", of(&|p| p.objective.clone())),
        ("phases", of(&|p| count(p.phases))),
        ("stages", of(&|p| count(p.stages))),
        ("stages of the largest phase", of(&|p| count(p.largest_phase_stages))),
        ("DRAM traffic", dram(&|d| d.total)),
        ("  weights", dram(&|d| d.weights)),
        ("  inputs and outputs", dram(&|d| d.inputs + d.outputs)),
        ("  activations spilled", dram(&|d| d.spill_write)),
        ("  activations read back", dram(&|d| d.spill_read)),
        ("  compulsory (no plan has less)", dram(&|d| d.compulsory)),
        ("predicted cycles", of(&|p| count(p.cycles))),
        ("  lower bound", of(&|p| count(p.lower_bound_cycles))),
        (
            "gap to the bound of the objective",
            of(&|p| if p.objective == "sram" { "no bound known".to_owned() } else { percent(p.gap) }),
        ),
        ("  what binds", of(&|p| p.bound_argument.in_words().to_owned())),
        ("proven optimal among its groups", of(&|p| proven(p).to_owned())),
        ("peak activation SRAM", of(&|p| human_bytes(p.peak_activation_sram_bytes))),
        ("peak weight SRAM", of(&|p| human_bytes(p.peak_weight_sram_bytes))),
        ("MAC use, predicted", of(&|p| percent(p.mac_utilisation))),
        ("frames a second, predicted", of(&|p| format!("{:.2}", p.frames_per_second))),
        ("energy of an inference", of(&|p| joules(p.energy_pj.total))),
        ("  MACs, SRAM, DRAM", of(&|p| energy_parts(&p.energy_pj))),
    ];
    if plans.iter().any(|(_, simulated)| simulated.is_some()) {
        let of = |get: &dyn Fn(&SimulatedStats) -> String| {
            plans.iter().map(|(_, s)| s.map_or_else(|| "-".to_owned(), get)).collect::<Vec<_>>()
        };
        lines.push(("simulated cycles", of(&|s| count(s.cycles))));
        lines.push(("MAC use, simulated", of(&|s| percent(s.mac_utilisation))));
        lines.push(("frames a second, simulated", of(&|s| format!("{:.2}", s.frames_per_second))));
    }
    let streams: Vec<Option<&StreamStats>> =
        plans.iter().map(|(_, s)| s.and_then(|s| s.stream.as_ref())).collect();
    if streams.iter().any(Option::is_some) {
        let of = |get: &dyn Fn(&StreamStats) -> String| {
            streams.iter().map(|stream| stream.map_or_else(|| "-".to_owned(), get)).collect::<Vec<_>>()
        };
        lines.push(("cycles of a frame in a stream", of(&|s| count(s.cycles))));
        lines.push(("  lower bound", of(&|s| count(s.lower_bound_cycles))));
        lines.push(("  gap to it", of(&|s| percent(s.gap))));
        lines.push(("  what binds", of(&|s| s.bound_argument.in_words().to_owned())));
        lines.push(("  DRAM traffic", of(&|s| decimal_bytes(s.dram_bytes.total))));
        lines.push(("frames a second of a stream", of(&|s| format!("{:.2}", s.frames_per_second))));
    }
    lines
}

/// Why there are no figures of a stream of frames, if there are none of a bundle with so many programs.
pub(super) fn no_stream_text(simulated: &SimulatedStats, n_programs: usize) -> String {
    match (&simulated.stream, n_programs) {
        (None, 2..) => format!(
            "frames of a stream are not simulated: the machine runs {n_programs} programs for each, which \
             take weight SRAM from each other\n"
        ),
        _ => String::new(),
    }
}

fn energy_parts(energy: &EnergyStats) -> String {
    let share = |part: f64| {
        if energy.total > 0.0 { format!("{:.0} %", 100.0 * part / energy.total) } else { "-".to_owned() }
    };
    [energy.mac, energy.sram, energy.dram].map(share).join(", ")
}

/// What is known of the best plan among the groups that were offered, and whether there were more of them, or
/// less of a look at them, than without limits: `--stats` says which.
fn proven(plan: &PlanStats) -> &'static str {
    match (plan.proven_optimal, plan.offer_limited || plan.search_limited) {
        (true, false) => "yes",
        (true, true) => "yes (limited)",
        (false, false) => "no",
        (false, true) => "no (limited)",
    }
}

/// Nodes of the host that are listed by name.
const SHOWN_HOST_NODES: usize = 12;

/// What the host runs, and why.
pub(super) fn host_text(host: &HostStats) -> String {
    let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut text = format!(
        "the host runs {} in {}: {} of the MACs, {} of the elements\n",
        many(host.nodes.len(), "node"),
        many(host.parts as usize, "part"),
        percent(host.macs_share),
        percent(host.elements_share)
    );
    for HostNode { name, op, why } in host.nodes.iter().take(SHOWN_HOST_NODES) {
        text += &format!("  {op} `{name}`: {why}\n");
    }
    match host.nodes.len().saturating_sub(SHOWN_HOST_NODES) {
        0 => text,
        more => text + &format!("  and {more} more; --stats lists them all\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(count(61_895_776), "61,895,776");
        assert_eq!([count(0), count(999), count(1000)], ["0", "999", "1,000"]);
        assert_eq!(si(399.08e9), "399.08 G");
        assert_eq!(si(12.0), "12");
        assert_eq!(decimal_bytes(121_100_000), "121.1 MB");
        assert_eq!([decimal_bytes(999), decimal_bytes(1_000)], ["999 B", "1.0 kB"]);
        assert_eq!([joules(24.1e9), joules(3.2e6)], ["24.10 mJ", "3.20 µJ"]);
        assert_eq!(percent(0.25), "25.0 %");
    }
}
