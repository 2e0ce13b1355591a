//! Drawings of growth: a cost over the size of a graph, both on logarithmic axes, as SVG.

use maud::{PreEscaped, html};

/// One kind of graph.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    /// Any CSS colour.
    pub(super) colour: &'static str,
    /// Whether the points are of one family, to be joined by a line.
    pub(super) joined: bool,
    /// Size and cost, both above zero, by size.
    pub(super) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;

/// A logarithmic axis over whole decades.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    /// Exponents of ten at its ends.
    low: i32,
    high: i32,
    /// Where the ends are drawn.
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min).log10().floor() as i32;
        let high = values.fold(0.0, f64::max).log10().ceil() as i32;
        Self { low, high: high.max(low + 1), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        (self.low..=self.high).map(|exponent| 10f64.powi(exponent))
    }
}

/// The drawing. Nothing to draw gives an empty frame.
pub(super) fn growth(series: &[Series], size: &str, cost: &str) -> String {
    let points = series.iter().flat_map(|s| &s.points);
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let (x, y) = if points.clone().next().is_some() {
        (Axis::over(points.clone().map(|p| p.0), LEFT, right), Axis::over(points.map(|p| p.1), bottom, TOP))
    } else {
        (Axis { low: 0, high: 1, from: LEFT, to: right }, Axis { low: 0, high: 1, from: bottom, to: TOP })
    };
    let place = |value: f64| format!("{value:.1}");
    let style = "text{font:12px \
        system-ui,sans-serif;fill:#555}.grid{stroke:#ddd}polyline{fill:none;stroke-width:1.5}";
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" {
            style { (PreEscaped(style)) }
            rect width=(WIDTH) height=(HEIGHT) fill="#fff" {}
            @for value in x.ticks() {
                line.grid x1=(place(x.at(value))) x2=(place(x.at(value))) y1=(TOP) y2=(bottom) {}
                text x=(place(x.at(value))) y=(bottom + 16.0) text-anchor="middle" { (value) }
            }
            @for value in y.ticks() {
                line.grid x1=(LEFT) x2=(right) y1=(place(y.at(value))) y2=(place(y.at(value))) {}
                text x=(LEFT - 6.0) y=(place(y.at(value) + 4.0)) text-anchor="end" { (value) }
            }
            text x=(place(f64::midpoint(LEFT, right))) y=(HEIGHT - 8.0) text-anchor="middle" { (size) }
            text transform=(format!("translate(14 {:.1}) rotate(-90)", f64::midpoint(TOP, bottom)))
                text-anchor="middle" { (cost) }
            @for (at, one) in series.iter().enumerate() {
                @if one.joined {
                    polyline stroke=(one.colour) points=(one.points.iter()
                        .map(|p| format!("{:.1},{:.1}", x.at(p.0), y.at(p.1)))
                            .collect::<Vec<_>>().join(" ")) {}
                }
                @for p in &one.points {
                    circle cx=(place(x.at(p.0))) cy=(place(y.at(p.1))) r="3.5" fill=(one.colour) {}
                }
                @let row = TOP + 12.0 + 20.0 * at as f64;
                circle cx=(right + 14.0) cy=(place(row - 4.0)) r="4" fill=(one.colour) {}
                text x=(right + 24.0) y=(place(row)) { (one.name) }
            }
        }
    }
    .into_string()
        + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_span_whole_decades() {
        let axis = Axis::over([20.0, 300.0].into_iter(), 0.0, 200.0);
        assert_eq!((axis.low, axis.high), (1, 3));
        assert!((axis.at(100.0) - 100.0).abs() < 1e-9);
        assert_eq!(axis.ticks().collect::<Vec<_>>(), [10.0, 100.0, 1000.0]);
    }

    #[test]
    fn points_and_names_are_drawn() {
        let points = vec![(10.0, 0.1), (100.0, 1.0)];
        let series = Series { name: "chain".to_owned(), colour: "#27a", joined: true, points };
        let svg = growth(&[series], "stages", "seconds");
        assert_eq!((svg.matches("<circle").count(), svg.matches("<polyline").count()), (3, 1));
        assert!(svg.contains(">chain<") && svg.contains(">0.1<") && svg.contains(">stages<"));
        assert!(growth(&[], "stages", "seconds").contains("<svg"));
    }
}
