//! The page of `strata quantise --report`: noise over depth as a drawing, and every layer in a table.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use strata_passes::quantise::noise::LayerNoise;

use crate::ptq::{PtqOptions, Study};

/// Decibels as people read them.
pub(super) fn decibels(db: f64) -> String {
    if db.is_finite() { format!("{db:.1}") } else { "exact".to_owned() }
}

/// The layers by the noise that each alone makes in the outputs, worst first.
pub(super) fn ranked(layers: &[LayerNoise]) -> Vec<&LayerNoise> {
    let mut ranked: Vec<_> = layers.iter().collect();
    ranked.sort_by(|a, b| a.outputs_db.total_cmp(&b.outputs_db));
    ranked
}

/// What the page is about.
pub(super) struct About<'a> {
    pub(super) model: &'a str,
    pub(super) options: &'a PtqOptions,
    pub(super) n_calibration_samples: usize,
    pub(super) n_measured_samples: usize,
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 \
    1em;color:#222}\
    table{border-collapse:collapse;margin:1em 0}td,th{padding:.15em .8em;text-align:right;border-bottom:1px \
    solid #ddd}\
    td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}\
    table.outputs td:nth-child(2),table.outputs th:nth-child(2){text-align:right}\
    svg{width:100%;height:auto;margin:1em 0}svg text{font:11px system-ui,sans-serif;fill:#555}\
    .grid{stroke:#ddd}.bar{fill:#e92}.bar:hover{fill:#c52}.cumulative{fill:none;stroke:#27a;stroke-width:1.5}\
    .own{fill:none;stroke:#2a7;stroke-width:1.5;stroke-dasharray:4 3}\
    .key span{display:inline-block;width:1.4em;height:.7em;margin:0 .3em 0 1em}\
    .k-bar{background:#e92}.k-cumulative{background:#27a}.k-own{background:#2a7}";

/// The page.
pub(super) fn page(about: &About<'_>, study: &Study) -> String {
    let on = |on: bool| if on { "on" } else { "off" };
    let PtqOptions { range, equalise, bias_correction } = about.options;
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "Strata: noise of " (about.model) } style { (STYLE) } }
            body {
                h1 { "What quantising " (about.model) " costs" }
                p {
                    "Ranges by " (range.name()) ", equalisation " (on(*equalise))
                    ", bias correction " (on(*bias_correction))
                    "; calibrated on " (about.n_calibration_samples)
                    " samples, measured on " (about.n_measured_samples)
                    ". All figures are signal to noise ratios against f32, in decibels: six of them are a \
                        bit."
                }
                table.outputs {
                    tr { th { "output" } th { "SQNR" } }
                    @for (name, noise) in &study.outputs {
                        tr { td { (name) } td { (decibels(noise.power.decibels())) } }
                    }
                }
                h2 { "Over depth" }
                p.key {
                    "From the input to the output:"
                    span.k-bar {} "at the network's outputs, if only this layer is quantised (the shorter, \
                        the worse)"
                    span.k-own {} "at its own output, if only it is quantised"
                    span.k-cumulative {} "at its own output, with all before it quantised"
                }
                (plot(&study.layers))
                h2 { "Layers, worst first" }
                table {
                    tr { th { "layer" } th { "what" } th { "alone, at the outputs" }
                        th { "alone" } th { "with all before" }
                    }
                    @for layer in ranked(&study.layers) {
                        tr {
                            td { (layer.name) } td { (layer.op) }
                            td { (decibels(layer.outputs_db)) } td { (decibels(layer.own_db)) }
                            td { (decibels(layer.cumulative_db)) }
                        }
                    }
                }
            }
        }
    }
    .into_string()
}

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 34.0;
const BOTTOM: f64 = 18.0;
const TOP: f64 = 8.0;
/// What is better is drawn as if it were this good; what adds no noise at all reaches the top.
const CEILING_DB: f64 = 90.0;

/// The noise of every layer over its depth.
fn plot(layers: &[LayerNoise]) -> Markup {
    let shown = |db: f64| db.clamp(0.0, CEILING_DB);
    let all = layers.iter().flat_map(|l| [l.outputs_db, l.own_db, l.cumulative_db]);
    let top = (all.filter(|db| db.is_finite()).map(shown).fold(20.0, f64::max) / 10.0).ceil() * 10.0;
    let step = (WIDTH - LEFT) / layers.len().max(1) as f64;
    let x = |at: usize| LEFT + step * at as f64;
    let y = |db: f64| TOP + (HEIGHT - BOTTOM - TOP) * (1.0 - shown(db).min(top) / top);
    let line = |of: &dyn Fn(&LayerNoise) -> f64| {
        let points = layers.iter().enumerate();
        points
            .map(|(at, l)| format!("{:.1},{:.1}", x(at) + step / 2.0, y(of(l))))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let grid = (0..).map(|tens| f64::from(tens) * 10.0).take_while(|db| *db <= top);
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" {
            @for db in grid {
                line.grid x1=(LEFT) x2=(WIDTH) y1=(format!("{:.1}", y(db))) y2=(format!("{:.1}", y(db))) {}
                text x=(LEFT - 6.0) y=(format!("{:.1}", y(db) + 4.0)) text-anchor="end" { (db) }
            }
            @for (at, layer) in layers.iter().enumerate() {
                @let height = (HEIGHT - BOTTOM) - y(layer.outputs_db);
                rect.bar x=(format!("{:.1}", x(at) + step * 0.1)) y=(format!("{:.1}", y(layer.outputs_db)))
                    width=(format!("{:.1}", step * 0.8)) height=(format!("{height:.1}")) {
                    title { (layer.name) " (" (layer.op) "): " (decibels(layer.outputs_db)) " dB at the \
                        outputs, "
                        (decibels(layer.own_db)) " alone, "
                    (decibels(layer.cumulative_db)) " with all before"
                }
                }
            }
            polyline.own points=(PreEscaped(line(&|l| l.own_db))) {}
            polyline.cumulative points=(PreEscaped(line(&|l| l.cumulative_db))) {}
            text x=(LEFT) y=(HEIGHT - 3.0) { "input" }
            text x=(WIDTH) y=(HEIGHT - 3.0) text-anchor="end" { "output" }
        }
    }
}
