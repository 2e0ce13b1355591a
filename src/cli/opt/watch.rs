//! What is shown and written of a module between passes, and what is told of the passes at the end.

use std::collections::BTreeMap;
use std::path::PathBuf;

use strata_ir::Module;
use strata_ir::pass::{PassReport, Pipeline, Progress, Registry};

use crate::cli::console::{self, Console};
use crate::cli::dumps::{DumpFolder, PrintArgs};
use crate::cli::failure::Failure;
use crate::cli::tables::{count, percent, row, show, table, words};
use crate::diff::text::changes;

/// What to show between passes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Between passes, on standard error; large constants are left out")]
pub(super) struct WatchArgs {
    /// Show the module before these passes: their names, or `all`
    #[arg(long, value_name = "PASS|all", value_delimiter = ',')]
    print_ir_before: Vec<String>,
    /// Show the module after these passes: their names, `all`, or `changed`, those that changed it
    #[arg(long, value_name = "PASS|all|changed", value_delimiter = ',')]
    print_ir_after: Vec<String>,
    /// Show what passes changed instead of whole modules; of every pass, unless --print-ir-after names some
    #[arg(long)]
    diff: bool,
    /// Write the module after each pass to a folder, as 01-PASS.mlir and so on, with its large constants
    #[arg(long, value_name = "DIR")]
    dump_dir: Option<PathBuf>,
    /// Tell how long each pass took
    #[arg(long)]
    timing: bool,
    /// Tell what each pass counted
    #[arg(long)]
    pass_stats: bool,
}

/// At which passes to show a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// At every one.
    All,
    /// At those that change it.
    Changed,
    /// At those of a name.
    Pass(&'static str),
}

impl When {
    /// Whether a pass is one; `changed` is whether it changed the module.
    fn holds(self, pass: &str, changed: bool) -> bool {
        match self {
            Self::All => true,
            Self::Changed => changed,
            Self::Pass(name) => name == pass,
        }
    }
}

fn before(registry: &Registry, text: &str) -> Result<When, String> {
    if text == "all" { Ok(When::All) } else { named(registry, text, "`all`") }
}

fn after(registry: &Registry, text: &str) -> Result<When, String> {
    match text {
        "all" => Ok(When::All),
        "changed" => Ok(When::Changed),
        name => named(registry, name, "`all`, `changed`"),
    }
}

fn named(registry: &Registry, name: &str, others: &str) -> Result<When, String> {
    if let Some(info) = registry.find(name) {
        return Ok(When::Pass(info.name));
    }
    Err(match registry.closest(name) {
        Some(closest) => format!("there is no such pass; did you mean `{closest}`?"),
        None => format!("expected {others} or the name of a pass; `strata opt --list-passes` lists them"),
    })
}

/// What texts of an argument say.
fn places(
    argument: &str,
    texts: &[String],
    registry: &Registry,
    read: fn(&Registry, &str) -> Result<When, String>,
) -> Result<Vec<When>, Failure> {
    let read = |text: &String| {
        read(registry, text).map_err(|what| Failure::Usage(format!("{argument} {text}: {what}")))
    };
    texts.iter().map(read).collect()
}

/// What one pass did, of all modules together.
#[derive(Debug, Default)]
struct Done {
    name: &'static str,
    seconds: f64,
    counters: BTreeMap<&'static str, u64>,
}

/// Follows the passes.
pub(super) struct Watch<'a> {
    args: &'a WatchArgs,
    /// Before which passes to show the module.
    before_passes: Vec<When>,
    /// After which.
    after_passes: Vec<When>,
    /// Passes of the pipeline.
    n_passes: usize,
    print: PrintArgs,
    folder: Option<DumpFolder>,
    console: &'a Console,
    progress: console::Progress<'a>,
    /// Which module it is, from 0.
    module: usize,
    /// What the names of passes are followed by.
    label: String,
    /// The module before the pass that runs now, where a diff may be shown.
    before: Option<String>,
    done: BTreeMap<usize, Done>,
    failure: Option<Failure>,
}

impl<'a> Watch<'a> {
    /// Nothing has run yet.
    pub(super) fn new(
        args: &'a WatchArgs,
        registry: &Registry,
        pipeline: &Pipeline,
        print: PrintArgs,
        console: &'a Console,
    ) -> Result<Self, Failure> {
        let before_passes = places("--print-ir-before", &args.print_ir_before, registry, before)?;
        let after_passes = places("--print-ir-after", &args.print_ir_after, registry, after)?;
        let n_passes = pipeline.passes().len();
        let folder = args.dump_dir.as_deref().map(|path| DumpFolder::create(path, print)).transpose()?;
        let progress = console.progress(Some(n_passes as u64));
        Ok(Self {
            args,
            before_passes,
            after_passes,
            n_passes,
            print,
            folder,
            console,
            progress,
            module: 0,
            label: String::new(),
            before: None,
            done: BTreeMap::new(),
            failure: None,
        })
    }

    /// The passes run on another module; the label is empty where there is but one.
    pub(super) fn begin_module(&mut self, index: usize, label: String) {
        (self.module, self.label) = (index, label);
    }

    /// Sees what the driver tells.
    pub(super) fn see(&mut self, told: &Progress<'_>) {
        match *told {
            Progress::Begins { index, pass, module } => {
                self.progress.step(pass.name);
                if self.before_passes.iter().any(|when| when.holds(pass.name, false)) {
                    self.show("IR before", index, pass.name, &self.print.outline(module));
                }
                self.before = self.args.diff.then(|| self.print.outline(module));
            }
            Progress::Ended { index, report, module } => {
                self.progress.done(index as u64 + 1);
                self.ended(index, report, module);
            }
        }
    }

    fn ended(&mut self, index: usize, report: &PassReport, module: &Module) {
        let changed = report.changed.is_yes();
        let wanted = &self.after_passes;
        let is_wanted = wanted.iter().any(|when| when.holds(report.name, changed));
        match self.before.take() {
            Some(before) if is_wanted || wanted.is_empty() => {
                let lines = changes(&before, &self.print.outline(module), self.console.colour());
                let lines = match (lines.is_empty(), changed) {
                    (false, _) => lines,
                    (true, true) => "// nothing but names\n".to_owned(),
                    (true, false) => "// nothing\n".to_owned(),
                };
                self.show("changes of", index, report.name, &lines);
            }
            Some(_) => {}
            None if is_wanted => self.show("IR after", index, report.name, &self.print.outline(module)),
            None => {}
        }
        if let Err(failure) = self.dump(index, report.name, module) {
            self.failure.get_or_insert(failure);
        }
        let done = self.done.entry(index).or_default();
        done.name = report.name;
        done.seconds += report.seconds;
        for (counter, n) in &report.counters {
            *done.counters.entry(counter).or_default() += n;
        }
    }

    fn show(&self, what: &str, index: usize, pass: &str, text: &str) {
        let place = format!("{} of {}", index + 1, self.n_passes);
        let header = format!("// ----- {what} {pass}{} ({place}) -----\n", self.label);
        self.progress.above(|console| console.show(&format!("{header}{text}")));
    }

    fn dump(&mut self, index: usize, pass: &str, module: &Module) -> Result<(), Failure> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        let part = if self.label.is_empty() { String::new() } else { format!("module{}-", self.module + 1) };
        folder.write(&format!("{part}{:02}-{pass}.mlir", index + 1), std::slice::from_ref(module))
    }

    /// Says something while passes run.
    pub(super) fn note(&self, text: &str) {
        self.progress.note(text);
    }

    /// Tells of a module that failed, where others follow.
    pub(super) fn error(&self, failure: &Failure) {
        self.progress.above(|console| console.error(failure));
    }

    /// Tells of all passes that ran.
    ///
    /// # Errors
    /// The first file that could not be written.
    pub(super) fn finish(self) -> Result<(), Failure> {
        drop(self.progress);
        if self.args.timing {
            self.console.show(&times(&self.done));
        }
        if self.args.pass_stats {
            self.console.show(&counters(&self.done));
        }
        self.failure.map_or(Ok(()), Err)
    }
}

fn times(done: &BTreeMap<usize, Done>) -> String {
    let mut lines = table(&["pass", "seconds", "share"]);
    let total: f64 = done.values().map(|done| done.seconds).sum();
    let share = |seconds: f64| percent(if total > 0.0 { seconds / total } else { 0.0 });
    for Done { name, seconds, .. } in done.values() {
        row(&mut lines, &[(*name).to_owned(), format!("{seconds:.4}"), share(*seconds)]);
    }
    row(&mut lines, &["total".to_owned(), format!("{total:.4}"), share(total)]);
    show(&lines)
}

fn counters(done: &BTreeMap<usize, Done>) -> String {
    let mut lines = words(&["pass", "counter", "count"]);
    for Done { name, counters, .. } in done.values() {
        if counters.is_empty() {
            row(&mut lines, &[name, "(none)", ""]);
        }
        for (counter, n) in counters {
            row(&mut lines, &[name, *counter, &count(*n)]);
        }
    }
    show(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done() -> BTreeMap<usize, Done> {
        let counters = BTreeMap::from([("folded", 1200)]);
        let first = Done { name: "canonicalise", seconds: 0.75, counters };
        let second = Done { name: "erase-wrappers", seconds: 0.25, counters: BTreeMap::new() };
        BTreeMap::from([(0, first), (1, second)])
    }

    #[test]
    fn times_have_shares() {
        let expected = "pass            seconds    share\n\
                        canonicalise     0.7500   75.0 %\n\
                        erase-wrappers   0.2500   25.0 %\n\
                        total            1.0000  100.0 %\n";
        assert_eq!(times(&done()), expected);
        assert!(times(&BTreeMap::new()).ends_with(" 0.0 %\n"));
    }

    #[test]
    fn counters_stand_beside_their_pass() {
        let expected = "pass            counter  count\n\
                        canonicalise    folded   1,200\n\
                        erase-wrappers  (none)\n";
        assert_eq!(counters(&done()), expected);
    }

    #[test]
    fn passes_are_told_by_name() {
        let registry = crate::registry();
        assert_eq!(after(&registry, "changed"), Ok(When::Changed));
        assert_eq!(before(&registry, "schedule"), Ok(When::Pass("schedule")));
        assert!(before(&registry, "changed").expect_err("only after").contains("--list-passes"));
        let meant = after(&registry, "canonicalize").expect_err("no pass");
        assert!(meant.contains("did you mean `canonicalise`?"));
        assert!(When::Changed.holds("schedule", true) && !When::Changed.holds("schedule", false));
        assert!(When::Pass("schedule").holds("schedule", false) && !When::Pass("x").holds("schedule", true));
    }
}
