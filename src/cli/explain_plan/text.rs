//! An explanation as people read it.

use comfy_table::Table;
use strata_backend::model::Objective;
use strata_passes::fuse::explain::borders::{Border, Reason};
use strata_passes::fuse::explain::spills::{Spill, SpillReason};
use strata_passes::fuse::explain::what_if::WhatIfs;
use strata_passes::fuse::explain::{PlanCost, Shortage};

use crate::cli::console::Console;
use crate::cli::tables::{count, decimal_bytes, joules, percent, row, show, table, words};
use crate::cli::times::show_times;
use crate::explain_plan::{Explanation, PartExplanation, PhaseSummary, PlanSummary};

/// All of it.
pub(super) fn text(shown: &Explanation, with_what_if: bool, console: &Console) -> String {
    let mut text = format!("{} on {}\n", shown.network, shown.target);
    for (index, part) in shown.parts.iter().enumerate() {
        if shown.parts.len() > 1 {
            text += &format!("\npart {index} of those that the machine runs\n");
        }
        let page = Page { objective: part.plan.objective, width: console.width() };
        text += &page.part(part);
        if let Some(what_if) = &part.what_if {
            text += &page.what_if(what_if);
        } else if with_what_if {
            text += "\nThe plan runs layers in column strips, so the stages that would be planned anew are \
                     not in this dump: give\none at level `stages` to have changed machines tried.\n";
        }
    }
    text
}

struct Page {
    objective: Objective,
    width: u16,
}

impl Page {
    fn part(&self, part: &PartExplanation) -> String {
        let mut text = self.summary(&part.plan);
        text += &format!("\n{}", show_times(&part.simulated));
        text += &format!("\nphases, as simulated\n{}", phases(&part.phases));
        text += &self.borders(part);
        text += &self.spills(part);
        text
    }

    /// What the plan costs, and what no plan can beat.
    fn summary(&self, plan: &PlanSummary) -> String {
        let (bound, gap) = if plan.lower_bound > 0.0 {
            (self.amount(plan.lower_bound), percent(plan.gap))
        } else {
            ("none known".to_owned(), "-".to_owned())
        };
        let mut lines = table(&["plan", ""]);
        for (what, value) in [
            ("objective", plan.objective.name().to_owned()),
            ("cost", self.amount(plan.cost)),
            ("lower bound", bound),
            ("  what binds", plan.bound_argument.in_words().to_owned()),
            ("gap", gap),
            ("cycles", count(plan.cycles)),
            ("DRAM traffic", decimal_bytes(plan.dram_bytes)),
        ] {
            row(&mut lines, &[what.to_owned(), value]);
        }
        format!("\n{}", show(&lines))
    }

    fn borders(&self, part: &PartExplanation) -> String {
        let borders = &part.explained.borders;
        if borders.is_empty() {
            return "\nThe network is one phase.\n".to_owned();
        }
        let mut lines = self.words(&["phases", "between", "why they are two", "as one phase"]);
        for border in borders {
            let cells = [
                format!("{}, {}", border.after_phase, border.after_phase + 1),
                format!("{} → {}", border.ends_with, border.begins_with),
                self.why(border),
                self.saved(&border.apart, &border.merged),
            ];
            row(&mut lines, &cells);
        }
        let mut text = format!("\nborders between phases\n{}", show(&lines));
        let margins = borders.iter().filter(|border| {
            let margins = &border.margins;
            margins.activation_kib > 0.0 || margins.weight_kib > 0.0 || margins.cluster > 0.0
        });
        let mut lines =
            table(&["phases", "one KiB of activation SRAM", "one KiB of weight SRAM", "one cluster"]);
        let mut n_shown = 0;
        for border in margins {
            let cell = |saved: f64| if saved > 0.0 { self.amount(saved) } else { String::new() };
            let margins = &border.margins;
            let phases = format!("{}, {}", border.after_phase, border.after_phase + 1);
            row(
                &mut lines,
                &[phases, cell(margins.activation_kib), cell(margins.weight_kib), cell(margins.cluster)],
            );
            n_shown += 1;
        }
        if n_shown > 0 {
            text += &format!("\nwhat a little more would save there\n{}", show(&lines));
        }
        text
    }

    fn why(&self, border: &Border) -> String {
        match border.reason {
            Reason::LayerByLayer => "the plan is layer by layer, as was asked".to_owned(),
            Reason::Strips => "they are column strips of the same layers".to_owned(),
            Reason::LongestPhase => "together they have more stages than was asked".to_owned(),
            Reason::Shortage => {
                let shortages: Vec<String> = border.shortages.iter().map(shortage).collect();
                shortages.join("; ")
            }
            Reason::CostsMore => {
                format!("as one they cost {} more, with any SRAM", self.more(border))
            }
            Reason::CostsTheSame => "as one they cost the same".to_owned(),
            Reason::PassedOver => {
                "nothing is missing, and as one they should cost less: addresses, tolerance, \
                                   simulation or limits of the search"
                    .to_owned()
            }
        }
    }

    fn more(&self, border: &Border) -> String {
        self.amount(border.merged.cost - border.apart.cost)
    }

    /// What a change saves, by the estimate.
    fn saved(&self, before: &PlanCost, after: &PlanCost) -> String {
        let signed = |before: u64, after: u64| {
            let sign = if after > before { "+" } else { "-" };
            (sign, before.abs_diff(after))
        };
        let (cycles_sign, cycles) = signed(before.cycles, after.cycles);
        let (bytes_sign, bytes) = signed(before.dram_bytes, after.dram_bytes);
        let mut parts = Vec::new();
        if cycles > 0 {
            parts.push(format!("{cycles_sign}{} cycles", count(cycles)));
        }
        if bytes > 0 {
            parts.push(format!("{bytes_sign}{} of DRAM", decimal_bytes(bytes)));
        }
        if parts.is_empty() { "the same".to_owned() } else { parts.join(", ") }
    }

    fn spills(&self, part: &PartExplanation) -> String {
        let spills = &part.explained.spills;
        if spills.is_empty() {
            return "\nNo tensor is written to DRAM and read back.\n".to_owned();
        }
        let header = ["tensor", "bytes", "written, read in", "why it is not kept", "kept"];
        let mut lines = self.words(&header);
        for spill in spills {
            let read: Vec<String> = spill.read_in.iter().map(ToString::to_string).collect();
            let cells = [
                spill.tensor.clone(),
                count(spill.keep_bytes),
                format!("{}, {}", spill.written_in, read.join(" ")),
                why_spilled(spill),
                self.saved(&spill.spilled, &spill.kept),
            ];
            row(&mut lines, &cells);
        }
        format!("\ntensors that go through DRAM\n{}", show(&lines))
    }

    fn what_if(&self, what_if: &WhatIfs) -> String {
        let mut lines =
            table(&["the best change for its size first", "change", "cost", "saved", "per change"]);
        for tried in &what_if.changes {
            let cost = tried.cost.map_or_else(|| "no plan".to_owned(), |cost| self.amount(cost));
            row(
                &mut lines,
                &[
                    format!("{}={} instead of {}", tried.field, count(tried.to), count(tried.from)),
                    percent(tried.relative_change),
                    cost,
                    percent(tried.relative_saved),
                    format!("{:.3}", tried.gain),
                ],
            );
        }
        let cost = self.amount(what_if.cost);
        format!("\nplans for other machines, beside one for this of {cost}\n{}", show(&lines))
    }

    /// An amount in the objective's unit.
    fn amount(&self, cost: f64) -> String {
        match self.objective {
            Objective::Latency => format!("{} cycles", count(cost.round() as u64)),
            Objective::Traffic | Objective::Sram => format!("{} B", count(cost.round() as u64)),
            Objective::Energy => joules(cost),
            Objective::Edp => format!("{cost:.3e} pJ cycles"),
        }
    }

    /// A table of words that is no wider than the page.
    fn words(&self, header: &[&str]) -> Table {
        let mut lines = words(header);
        lines.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
        lines.set_width(self.width);
        lines
    }
}

fn shortage(shortage: &Shortage) -> String {
    let Shortage { field, limit, needed, missing } = shortage;
    let unit = if field.starts_with("memory") { " B" } else { "" };
    let what = match field.as_str() {
        "memory.activation" => "activation SRAM",
        "memory.weight" => "weight SRAM",
        "limits.streams" => "streams",
        _ => "stages, with transfers",
    };
    let [limit, needed, missing] = [*limit, *needed, *missing].map(count);
    format!("{what}: {missing}{unit} too few ({needed}{unit} of {limit}{unit})")
}

fn why_spilled(spill: &Spill) -> String {
    let Spill { missing_bytes, fullest_phase, resident_rows, rows, full_phases, .. } = spill;
    let mut why = match spill.reason {
        SpillReason::NoRoom => {
            let full = ranges(full_phases);
            format!("{} B too few in phase {fullest_phase}; full: {full}", count(*missing_bytes))
        }
        SpillReason::NoRoomAsPhasesRun => "there is room only if phases run with smaller rings".to_owned(),
        SpillReason::SavesNothing => "there is room, but it would save nothing".to_owned(),
        SpillReason::PassedOver => {
            "there is room by bytes; addresses, tolerance or limits of the search".to_owned()
        }
    };
    if *resident_rows > 0 {
        why += &format!("; its first {resident_rows} of {rows} rows stay");
    }
    why
}

/// Numbers in order, those that follow each other as a range: `0 to 3, 5`.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let shown = runs.map(|run| match *run {
        [first, .., last] => format!("{first} to {last}"),
        _ => run.iter().map(ToString::to_string).collect(),
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn phases(phases: &[PhaseSummary]) -> String {
    let all: u64 = phases.iter().map(|phase| phase.cycles).sum();
    let mut lines =
        table(&["phase", "stages", "cycles", "of all", "busy", "on weights", "on rows", "its turn"]);
    for (at, phase) in phases.iter().enumerate() {
        let total = phase.array.total().max(1) as f64;
        let share = |cycles: u64| percent(cycles as f64 / total);
        row(
            &mut lines,
            &[
                format!("{at} {}", phase.first_stage),
                count(phase.stages as u64),
                count(phase.cycles),
                percent(phase.cycles as f64 / all.max(1) as f64),
                share(phase.array.busy),
                share(phase.array.stalled_weights),
                share(phase.array.stalled_input),
                share(phase.array.waiting_turn),
            ],
        );
    }
    show(&lines)
}
