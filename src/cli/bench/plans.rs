//! `strata bench plans`: the networks and sizes of SRAM of the reference, planned, beside its figures; and
//! how far these and the networks of today are from their bounds.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;
use strata_passes::rewrite::Families;

use super::gaps::{self, Gap, GapLine, NETWORKS_OF_TODAY, SIZES};
use super::page::{Table, mb};
use super::reference::{self, Row};
use super::subject::{Size, Subject};
use crate::cli::console::{Console, Progress};
use crate::cli::failure::Failure;
use crate::io::write_atomic;
use crate::stats::Stats;
use crate::{Mode, Objective};

/// Plan the networks of the reference at every size of activation SRAM, and set them beside its figures
///
/// For each row: DRAM traffic of the plan for least traffic, layer by layer and multi-layer, and frames a
/// second, as the timed interpreter finds them, of the plan for least latency. Then, with networks that the
/// reference does not have, how far plans are from their bounds, and what binds these. Weights are random but
/// seeded; plans do not depend on their values.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this network, such as unet or yolov3@416x416; may be repeated
    #[arg(long, value_name = "NET")]
    only: Vec<String>,
    /// Only this size of activation SRAM; may be repeated
    #[arg(long, value_name = "MIB")]
    sram: Vec<f64>,
    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the tables as a page of Markdown
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// One row: ours and the reference's.
#[derive(Clone, Debug, Serialize)]
struct Line {
    network: String,
    activation_mib: f64,
    /// The plans, or why one of them could not be made.
    ours: Result<Ours, String>,
    reference: Figures,
    verdict: String,
    misses: bool,
}

/// What our plans come to.
#[derive(Clone, Debug, Default, Serialize)]
struct Ours {
    single_bytes: u64,
    multi_bytes: u64,
    compulsory_bytes: u64,
    single_fps: f64,
    multi_fps: f64,
    /// MAC use of the multi-layer plan for latency, simulated.
    mac_utilisation: f64,
    /// Gaps of the multi-layer plans to their bounds.
    latency: Gap,
    traffic: Gap,
}

/// What the reference has.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    single_mb: f64,
    best_known_mb: f64,
    bound_mb: f64,
    compulsory_mb: f64,
    single_fps: f64,
    multi_fps: f64,
    roofline_fps: f64,
}

impl From<&Row> for Figures {
    fn from(row: &Row) -> Self {
        Self {
            single_mb: row.single_mb,
            best_known_mb: row.best_known_mb,
            bound_mb: row.bound_mb,
            compulsory_mb: row.compulsory_mb,
            single_fps: row.single_fps,
            multi_fps: row.multi_fps,
            roofline_fps: row.roofline_fps,
        }
    }
}

/// All that the command found.
#[derive(Debug, Default, Serialize)]
struct Found {
    reference: Vec<Line>,
    gaps: Vec<GapLine>,
    /// Rows that have no plan, and why.
    refused: String,
}

/// Runs the command.
pub(super) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let all = reference::rows().map_err(Failure::Failed)?;
    let is_wanted = |network: &str, (width, height): Size| {
        let title = format!("{network}@{width}x{height}");
        args.only.is_empty() || args.only.iter().any(|only| *only == network || *only == title)
    };
    let has_size = |mib: f64| args.sram.is_empty() || args.sram.contains(&mib);
    let of_today: Vec<(&str, Size)> =
        NETWORKS_OF_TODAY.into_iter().filter(|&(network, size)| is_wanted(network, size)).collect();
    let sizes: Vec<f64> = SIZES.into_iter().filter(|&mib| has_size(mib)).collect();
    let rows: Vec<&Row> =
        all.iter().filter(|row| is_wanted(&row.network, row.size) && has_size(row.activation_mib)).collect();
    if rows.is_empty() && (of_today.is_empty() || sizes.is_empty()) {
        let of_reference: BTreeSet<&str> = all.iter().map(|row| &*row.network).collect();
        let of_today = NETWORKS_OF_TODAY.into_iter().map(|(network, _)| network);
        let known: Vec<&str> = of_reference.into_iter().chain(of_today).collect();
        return Err(Failure::Usage(format!(
            "no row is of that network and SRAM; there are {}",
            known.join(", ")
        )));
    }
    let progress = console.progress(None);
    let mut found = Found::default();
    let mut subject: Option<Subject> = None;
    for row in rows {
        let name = format!("{}@{}x{}", row.network, row.size.0, row.size.1);
        if subject.as_ref().is_none_or(|subject| subject.name != name) {
            // The one before is large; both need not be there at once.
            drop(subject.take());
        }
        let subject = match &subject {
            Some(subject) => subject,
            None => subject.insert(Subject::zoo(&row.network, row.size, &progress)?),
        };
        let ours = ours(subject, row, &progress).map_err(|failure| failure.to_string());
        let verdict = match &ours {
            Ok(ours) => verdict(ours, row),
            Err(_) => Verdict { text: "**no plan**".to_owned(), misses: true },
        };
        if let Ok(ours) = &ours {
            found.gaps.push(ours.gaps(&name, row.activation_mib));
        }
        found.reference.push(Line {
            network: name,
            activation_mib: row.activation_mib,
            ours,
            reference: row.into(),
            misses: verdict.misses,
            verdict: verdict.text,
        });
    }
    drop(subject);
    for (network, size) in of_today {
        let subject = Subject::zoo(network, size, &progress)?;
        for &mib in &sizes {
            match gaps::line(&subject, mib, &progress) {
                Ok(line) => found.gaps.push(line),
                Err(failure) => found.refused += &no_plan(&subject.name, mib, &failure.to_string()),
            }
        }
    }
    drop(progress);

    let mut text = String::new();
    if !found.reference.is_empty() {
        text += &beside_reference(&found.reference);
        text += "\n";
    }
    text += &gaps::section(&found.gaps, &found.refused);
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&found).map_err(Failure::failed)?;
        write_atomic(path, format!("{json}\n").as_bytes())?;
    }
    match &args.write {
        Some(path) => {
            write_atomic(path, format!("{PREFACE}{text}").as_bytes())?;
            console.summary(&format!("wrote {}\n", path.display()))
        }
        None => console.print(&text),
    }
}

/// Plans one row.
fn ours(subject: &Subject, row: &Row, progress: &Progress<'_>) -> Result<Ours, Failure> {
    let target = gaps::target(row.activation_mib)?;
    let plan = |mode, objective| -> Result<Stats, Failure> {
        progress
            .step(&format!("{} with {} MiB: {mode:?} for {objective:?}", subject.name, row.activation_mib));
        Ok(subject.compile(&target, (mode, objective), &Families::default())?.stats)
    };
    let fps = |stats: &Stats| stats.simulated.as_ref().map_or(0.0, |simulated| simulated.frames_per_second);
    let traffic = plan(Mode::Multi, Objective::Traffic)?;
    let latency = plan(Mode::Multi, Objective::Latency)?;
    Ok(Ours {
        single_bytes: plan(Mode::Single, Objective::Traffic)?.plan.dram_bytes.total,
        multi_bytes: traffic.plan.dram_bytes.total,
        compulsory_bytes: traffic.plan.dram_bytes.compulsory,
        single_fps: fps(&plan(Mode::Single, Objective::Latency)?),
        multi_fps: fps(&latency),
        mac_utilisation: latency.simulated.as_ref().map_or(0.0, |simulated| simulated.mac_utilisation),
        latency: Gap::of(&latency.plan),
        traffic: Gap::of(&traffic.plan),
    })
}

impl Ours {
    /// How far the multi-layer plans are from their bounds.
    fn gaps(&self, network: &str, activation_mib: f64) -> GapLine {
        GapLine {
            network: network.to_owned(),
            activation_mib,
            frames_per_second: self.multi_fps,
            latency: self.latency,
            dram_bytes: self.multi_bytes,
            traffic: self.traffic,
        }
    }
}

/// That a row has no plan, and why.
fn no_plan(network: &str, activation_mib: f64, why: &str) -> String {
    let why: Vec<&str> = why.lines().map(str::trim).collect();
    format!("\n{network} with {activation_mib} MiB: {}.\n", why.join(" "))
}

/// What is to be said of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    text: String,
    misses: bool,
}

/// Holds ours against the reference, whose figures have one decimal.
fn verdict(ours: &Ours, row: &Row) -> Verdict {
    let round = |value: f64| (value * 10.0).round() / 10.0;
    let multi = round(ours.multi_bytes as f64 / 1e6);
    let spilled = (ours.multi_bytes - ours.compulsory_bytes.min(ours.multi_bytes)) as f64 / 1e6;
    let mut misses = Vec::new();
    let mut notes = Vec::new();
    if multi > row.best_known_mb {
        let excess = format!("{:.1} MB", multi - row.best_known_mb);
        // The reference counts neither biases nor tables of multipliers, which are compulsory too.
        if round(spilled) <= round(row.best_known_mb - row.compulsory_mb) {
            notes.push(format!("{excess} of biases and tables"));
        } else {
            misses.push(format!("traffic +{excess}"));
        }
    } else if multi < row.bound_mb {
        notes.push("below the bound".to_owned());
    }
    if round(ours.multi_fps) < row.multi_fps {
        misses.push(format!("frames {:+.1} %", (ours.multi_fps / row.multi_fps - 1.0) * 100.0));
    }
    let text = if misses.is_empty() { "ok".to_owned() } else { format!("**{}**", misses.join(", ")) };
    let text = [vec![text], notes].concat().join("; ");
    Verdict { text, misses: !misses.is_empty() }
}

const PREFACE: &str = "# Plans\n\n\
    Made by `strata bench plans --write docs/plans.md`; do not edit.\n\n";

/// What misses come from, as far as it was looked into.
const WHY: &str = "\
    - Frames short by half a percent: the reference takes a phase to last as long as its computing or its \
    transfers, whichever is \
    longer. On the machine, rows that come from DRAM may be there before a phase begins; but a stage waits \
    for those that another \
    stage of its phase makes, and the last rows are stored after they are made, which is about 3 % of a \
    phase of two stages over 128 \
    rows and 0.4 % of one of a single stage.\n\
    - Traffic below the best known: first rows of tensors that are spilled stay in SRAM, which the reference \
    does not know.\n";

fn beside_reference(lines: &[Line]) -> String {
    let mut table = Table::new(&[
        "network",
        "SRAM, MiB",
        "single, MB",
        "multi, MB",
        "best known",
        "bound",
        "spilled",
        "reference's",
        "single, frames/s",
        "multi, frames/s",
        "reference single",
        "reference multi",
        "roofline",
        "gap",
        "verdict",
    ]);
    let mut refused = String::new();
    for line in lines {
        let Line { ours, reference, .. } = line;
        let shown = |show: &dyn Fn(&Ours) -> String| ours.as_ref().map_or_else(|_| "-".to_owned(), show);
        let one = |value: f64| format!("{value:.1}");
        table.row(&[
            line.network.clone(),
            line.activation_mib.to_string(),
            shown(&|ours| mb(ours.single_bytes)),
            shown(&|ours| mb(ours.multi_bytes)),
            one(reference.best_known_mb),
            one(reference.bound_mb),
            shown(&|ours| mb(ours.multi_bytes.saturating_sub(ours.compulsory_bytes))),
            one(reference.best_known_mb - reference.compulsory_mb),
            shown(&|ours| one(ours.single_fps)),
            shown(&|ours| one(ours.multi_fps)),
            one(reference.single_fps),
            one(reference.multi_fps),
            one(reference.roofline_fps),
            shown(&|ours| format!("{:.1} %", ours.latency.gap * 100.0)),
            line.verdict.clone(),
        ]);
        if let Err(why) = ours {
            refused += &no_plan(&line.network, line.activation_mib, why);
        }
    }
    let missed = lines.iter().filter(|line| line.misses).count();
    format!(
        "## Beside an independent model\n\n\
         Target `x1` with other sizes of activation SRAM.\n\
         Traffic is of plans for least traffic, in millions of bytes a frame; frames a second are what the \
         timed interpreter \
         finds of plans for least latency whatever they move (`--tolerance 0`), and the gap is theirs to \
         their bound.\n\
         `best known`, `bound` (without recompute) and the reference's frame rates are those of \
         `benches/reference/traffic.csv`.\n\
         `spilled` is traffic above what no plan can avoid, ours and the reference's best known; it leaves \
         out what the two \
         models count differently: the reference has no biases and no tables of multipliers, and another \
         shape of heads.\n\
         Of {} rows, {missed} miss the best known traffic or the frame rate.\n\n{WHY}\n{}{refused}",
        lines.len(),
        table.markdown()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            network: "unet".to_owned(),
            size: (512, 512),
            activation_mib: 1.0,
            single_mb: 400.0,
            best_known_mb: 120.4,
            bound_mb: 58.1,
            compulsory_mb: 32.3,
            single_fps: 34.0,
            multi_fps: 47.5,
            roofline_fps: 48.3,
        }
    }

    fn said(multi_bytes: u64, compulsory_bytes: u64, multi_fps: f64) -> (String, bool) {
        let ours = Ours { multi_bytes, compulsory_bytes, multi_fps, ..Ours::default() };
        let Verdict { text, misses } = verdict(&ours, &row());
        (text, misses)
    }

    #[test]
    fn verdicts_allow_for_rounding_and_tables_only() {
        assert_eq!(said(120_440_000, 32_300_000, 47.46), ("ok".to_owned(), false));
        assert_eq!(
            said(121_000_000, 33_000_000, 48.0),
            ("ok; 0.6 MB of biases and tables".to_owned(), false)
        );
        assert_eq!(said(121_000_000, 32_300_000, 48.0), ("**traffic +0.6 MB**".to_owned(), true));
        assert_eq!(
            said(121_000_000, 32_300_000, 38.0),
            ("**traffic +0.6 MB, frames -20.0 %**".to_owned(), true)
        );
        assert_eq!(said(50_000_000, 32_300_000, 47.5), ("ok; below the bound".to_owned(), false));
    }
}
