//! How far plans are from their bounds, and what binds these.

use serde::{Deserialize, Serialize};
use strata_backend::model::BoundArgument;
use strata_isa_spec::Target;
use strata_passes::rewrite::Families;

use super::page::{Table, mb};
use super::subject::{Size, Subject};
use crate::cli::console::Progress;
use crate::cli::failure::Failure;
use crate::stats::{PlanStats, Stats};
use crate::{Mode, Objective};

/// Networks of the zoo, and their sizes, that no reference has figures of.
pub(super) const NETWORKS_OF_TODAY: [(&str, Size); 11] = [
    ("squeezenet", (224, 224)),
    ("efficientnet-lite0", (224, 224)),
    ("mobilenetv3-large", (224, 224)),
    ("yolov8n", (640, 640)),
    ("inception-v3", (299, 299)),
    ("hrnet-w18-small", (224, 224)),
    ("deeplabv3-mobilenetv2", (512, 512)),
    ("convnext-tiny", (224, 224)),
    ("efficientdet-d0", (512, 512)),
    ("regnetx-400mf", (224, 224)),
    ("densenet121", (224, 224)),
];

/// Activation SRAM, in MiB, for which these are planned.
pub(super) const SIZES: [f64; 3] = [0.5, 2.0, 8.0];

/// How far a plan is from the bound of its objective.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Gap {
    /// Cost over bound, minus one.
    pub(super) gap: f64,
    /// Why the bound is as high as it is.
    pub(super) argument: BoundArgument,
    /// Whether no choice among the groups offered is better.
    pub(super) proven_optimal: bool,
}

impl Gap {
    /// That of a plan.
    pub(super) fn of(plan: &PlanStats) -> Self {
        Self { gap: plan.gap, argument: plan.bound_argument, proven_optimal: plan.proven_optimal }
    }

    /// In percent, with a word if it is proven.
    fn in_percent(&self) -> String {
        let proven = if self.proven_optimal { ", proven" } else { "" };
        format!("{:.1} %{proven}", self.gap * 100.0)
    }
}

/// The plans of a network on one size of activation SRAM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct GapLine {
    pub(super) network: String,
    pub(super) activation_mib: f64,
    /// The plan for least latency: frames a second that the timed interpreter finds.
    pub(super) frames_per_second: f64,
    pub(super) latency: Gap,
    /// The plan for least traffic.
    pub(super) dram_bytes: u64,
    pub(super) traffic: Gap,
}

/// The target `x1` with so much activation SRAM.
pub(super) fn target(activation_mib: f64) -> Result<Target, Failure> {
    let bytes = (activation_mib * f64::from(1 << 20)) as u64;
    Ok(Target::preset("x1", &[("memory.activation".to_owned(), bytes.to_string())])?)
}

/// Plans a network for one size of activation SRAM, for least latency and for least traffic.
pub(super) fn line(
    subject: &Subject,
    activation_mib: f64,
    progress: &Progress<'_>,
) -> Result<GapLine, Failure> {
    let target = target(activation_mib)?;
    let plan = |objective: Objective| -> Result<Stats, Failure> {
        progress.step(&format!("{} with {activation_mib} MiB for {objective:?}", subject.name));
        Ok(subject.compile(&target, (Mode::Multi, objective), &Families::default())?.stats)
    };
    let (latency, traffic) = (plan(Objective::Latency)?, plan(Objective::Traffic)?);
    Ok(GapLine {
        network: subject.name.clone(),
        activation_mib,
        frames_per_second: latency.simulated.as_ref().map_or(0.0, |simulated| simulated.frames_per_second),
        latency: Gap::of(&latency.plan),
        dram_bytes: traffic.plan.dram_bytes.total,
        traffic: Gap::of(&traffic.plan),
    })
}

/// Columns of a table that say how far the plans for least latency and for least traffic are from their
/// bounds.
pub(super) const COLUMNS: [&str; 5] =
    ["gap, latency", "what binds", "traffic, MB", "gap, traffic", "what binds"];

/// The cells of these columns.
pub(super) fn cells(latency: &Gap, dram_bytes: u64, traffic: &Gap) -> [String; 5] {
    [
        latency.in_percent(),
        latency.argument.in_words().to_owned(),
        mb(dram_bytes),
        traffic.in_percent(),
        traffic.argument.in_words().to_owned(),
    ]
}

/// A section of a page. `refused` says what has no plan.
pub(super) fn section(lines: &[GapLine], refused: &str) -> String {
    let mut table = Table::new(&[&["network", "SRAM, MiB", "frames/s"][..], &COLUMNS].concat());
    for line in lines {
        let of_plan =
            [line.network.clone(), line.activation_mib.to_string(), format!("{:.1}", line.frames_per_second)];
        table.row(&[&of_plan[..], &cells(&line.latency, line.dram_bytes, &line.traffic)].concat());
    }
    let within = |gap: &dyn Fn(&GapLine) -> f64, most: f64| {
        // What is shown as the most counts as that.
        lines.iter().filter(|line| gap(line) < most + 0.0005).count()
    };
    format!(
        "## Gaps to the bounds\n\n\
         Of plans for least latency and for least traffic on `x1`, to what no plan beats.\n\
         Of {} rows, {} are within 5 % of the bound of latency, and {} within 25 % of that of traffic.\n\n\
         {}{refused}",
        lines.len(),
        within(&|line| line.latency.gap, 0.05),
        within(&|line| line.traffic.gap, 0.25),
        table.markdown()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_within_are_counted() {
        let line = |latency: f64, traffic: f64| GapLine {
            network: "net@8x8".to_owned(),
            activation_mib: 0.5,
            frames_per_second: 12.5,
            latency: Gap { gap: latency, argument: BoundArgument::Array, proven_optimal: false },
            dram_bytes: 2_000_000,
            traffic: Gap { gap: traffic, argument: BoundArgument::Bytes, proven_optimal: true },
        };
        let text = section(&[line(0.05, 0.26), line(0.06, 0.0)], "\nAnother has none.\n");
        assert!(text.contains("Of 2 rows, 1 are within 5 % of the bound of latency, and 1 within 25 %"));
        assert!(text.contains(
            "| net@8x8 | 0.5 | 12.5 | 5.0 % | the array's work | 2.0 | 26.0 %, proven | weights, inputs and \
             outputs once |\n"
        ));
        assert!(text.ends_with("\n\nAnother has none.\n"), "{text}");
    }
}
