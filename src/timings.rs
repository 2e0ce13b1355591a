//! What the steps of a compile take: wall time, processor time, and the memory that the process came to need.
//!
//! A [`Stopwatch`] follows one step after another; the [`Timings`] of several stopwatches can be joined,
//! since each step knows when it began. Nothing that a compile makes depends on them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::stats::{cpu_time, peak_rss_bytes};

/// A step that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTime {
    /// Its name.
    pub name: String,
    /// When it began.
    pub begun: Instant,
    /// How long it took.
    pub wall: Duration,
    /// Processor time of all threads, in user code and in the kernel; 0 where the system does not tell.
    pub cpu: Duration,
    /// Largest resident set of the process until the step's end, in bytes; 0 where the system does not tell.
    pub peak_rss_bytes: u64,
}

/// What the steps of a compile took, in the order in which they ran. A step may run several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// The steps.
    pub steps: Vec<StepTime>,
}

/// All runs of the steps of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TotalTime {
    /// Their name.
    pub name: String,
    /// Wall time of all of them.
    pub wall: Duration,
    /// Processor time of all of them.
    pub cpu: Duration,
    /// Largest resident set of the process until the end of the last, in bytes.
    pub peak_rss_bytes: u64,
}

impl Timings {
    /// Steps of the same name together, in the order in which they first ran.
    pub fn by_name(&self) -> Vec<TotalTime> {
        let mut totals: Vec<TotalTime> = Vec::new();
        for StepTime { name, wall, cpu, peak_rss_bytes, .. } in &self.steps {
            let (wall, cpu, peak_rss_bytes) = (*wall, *cpu, *peak_rss_bytes);
            match totals.iter_mut().find(|total| total.name == *name) {
                Some(total) => {
                    total.wall += wall;
                    total.cpu += cpu;
                    total.peak_rss_bytes = total.peak_rss_bytes.max(peak_rss_bytes);
                }
                None => totals.push(TotalTime { name: name.clone(), wall, cpu, peak_rss_bytes }),
            }
        }
        totals
    }

    /// Wall seconds of each step by name.
    pub fn seconds(&self) -> BTreeMap<String, f64> {
        self.by_name().into_iter().map(|total| (total.name, total.wall.as_secs_f64())).collect()
    }

    /// The steps as a trace in Chrome's event format, which ui.perfetto.dev and chrome://tracing show.
    /// `process` is what was done, such as `compile net.onnx`.
    ///
    /// # Units
    /// Times are microseconds since the first step began.
    ///
    /// # Source
    /// "Trace Event Format" of the Chromium project: complete events (`X`), counters (`C`), metadata (`M`).
    pub fn to_trace(&self, process: &str) -> serde_json::Value {
        let first = self.steps.iter().map(|step| step.begun).min();
        let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
        let mut events = vec![
            json!({ "ph": "M", "name": "process_name", "pid": 1, "tid": 1, "args": { "name": process } }),
            json!({ "ph": "M", "name": "thread_name", "pid": 1, "tid": 1, "args": { "name": "steps" } }),
        ];
        for step in &self.steps {
            let since = first.map_or(Duration::ZERO, |first| step.begun.duration_since(first));
            events.push(json!({
                "ph": "X", "name": step.name, "cat": "step", "pid": 1, "tid": 1,
                "ts": micros(since), "dur": micros(step.wall),
                "args": { "cpu_seconds": step.cpu.as_secs_f64(), "peak_rss_bytes": step.peak_rss_bytes },
            }));
            events.push(json!({
                "ph": "C", "name": "peak memory", "pid": 1, "ts": micros(since + step.wall),
                "args": { "bytes": step.peak_rss_bytes },
            }));
        }
        json!({ "displayTimeUnit": "ms", "traceEvents": events })
    }

    /// Joins the steps of another stopwatch, in the order in which all began.
    pub fn extend(&mut self, other: Self) {
        self.steps.extend(other.steps);
        self.steps.sort_by_key(|step| step.begun);
    }
}

/// Follows steps, of which one runs at a time.
#[derive(Clone, Debug, Default)]
pub struct Stopwatch {
    running: Option<Running>,
    done: Timings,
}

/// A step that is not done yet.
#[derive(Clone, Debug)]
struct Running {
    name: String,
    begun: Instant,
    cpu: Duration,
}

impl Stopwatch {
    /// A step begins, and the one before it is done.
    pub fn begin(&mut self, step: &str) {
        self.stop();
        self.running = Some(Running { name: step.to_owned(), begun: Instant::now(), cpu: cpu_time() });
    }

    /// The step that runs is done.
    pub fn stop(&mut self) {
        let Some(Running { name, begun, cpu }) = self.running.take() else { return };
        let (wall, cpu) = (begun.elapsed(), cpu_time().saturating_sub(cpu));
        let peak_rss_bytes = peak_rss_bytes();
        self.done.steps.push(StepTime { name, begun, wall, cpu, peak_rss_bytes });
    }

    /// All steps, the one that runs too.
    pub fn finish(mut self) -> Timings {
        self.stop();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timings() -> Timings {
        let now = Instant::now();
        let step = |name: &str, from: u64, to: u64, peak_rss_bytes| StepTime {
            name: name.to_owned(),
            begun: now + Duration::from_millis(from),
            wall: Duration::from_millis(to - from),
            cpu: Duration::from_millis(2 * (to - from)),
            peak_rss_bytes,
        };
        let mut timings = Timings { steps: vec![step("import", 0, 5, 100), step("emit", 20, 21, 300)] };
        timings.extend(Timings { steps: vec![step("plan", 5, 12, 200), step("import", 12, 20, 300)] });
        timings
    }

    #[test]
    fn steps_of_one_name_are_added_up() {
        let totals = timings().by_name();
        let names: Vec<&str> = totals.iter().map(|total| total.name.as_str()).collect();
        assert_eq!(names, ["import", "plan", "emit"]);
        assert_eq!((totals[0].wall, totals[0].cpu), (Duration::from_millis(13), Duration::from_millis(26)));
        assert_eq!(totals[0].peak_rss_bytes, 300);
        assert_eq!(timings().seconds()["plan"], 0.007);
    }

    #[test]
    fn a_trace_has_every_step_where_it_ran() {
        let trace = timings().to_trace("compile net.onnx");
        let events = trace["traceEvents"].as_array().expect("a list").iter();
        let steps: Vec<_> = events.filter(|event| event["ph"] == "X").collect();
        let names: Vec<_> = steps.iter().map(|step| step["name"].as_str().expect("a name")).collect();
        assert_eq!(names, ["import", "plan", "import", "emit"]);
        assert_eq!((steps[1]["ts"].as_f64(), steps[1]["dur"].as_f64()), (Some(5000.0), Some(7000.0)));
        assert_eq!(trace["traceEvents"][0]["args"]["name"], "compile net.onnx");
    }

    #[test]
    fn a_stopwatch_follows_one_step_at_a_time() {
        let mut stopwatch = Stopwatch::default();
        stopwatch.begin("first");
        stopwatch.begin("second");
        let steps = stopwatch.finish().steps;
        assert_eq!(steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["first", "second"]);
        assert!(steps[0].begun + steps[0].wall <= steps[1].begun);
    }
}
