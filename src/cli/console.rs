//! What people see: results on standard output; notes, progress and errors on standard error.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::failure::Failure;

/// Whether the user wants no colours anywhere.
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Columns of what is printed elsewhere than on a terminal.
const PAGE_COLUMNS: u16 = 140;
/// Columns that a table needs at least: a narrower terminal breaks its lines.
const LEAST_COLUMNS: u16 = 60;

/// How messages on standard error look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum MessageFormat {
    /// For people
    Human,
    /// One JSON object a line
    Json,
}

/// The terminal, as the user wants it used.
#[derive(Debug)]
pub(super) struct Console {
    quiet: bool,
    format: MessageFormat,
    terminal: bool,
    colour: bool,
}

impl Console {
    /// Colours and progress are for terminals only; `NO_COLOR` turns colours off there too.
    pub(super) fn new(quiet: bool, format: MessageFormat) -> Self {
        let terminal = std::io::stderr().is_terminal() && format == MessageFormat::Human;
        Self { quiet, format, terminal, colour: terminal && !no_color() }
    }

    /// Whether messages may be coloured.
    pub(super) fn colour(&self) -> bool {
        self.colour
    }

    /// Whether results may be coloured.
    pub(super) fn colours_results(&self) -> bool {
        std::io::stdout().is_terminal() && !no_color()
    }

    /// Columns of the terminal that results go to; as many as a page has where they go elsewhere.
    pub(super) fn width(&self) -> u16 {
        match terminal_size::terminal_size_of(std::io::stdout()) {
            Some((terminal_size::Width(columns), _)) => columns.max(LEAST_COLUMNS),
            None => PAGE_COLUMNS,
        }
    }

    /// Prints a result.
    pub(super) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::ClosedPipe),
            Err(error) => Err(Failure::Failed(format!("standard output: {error}"))),
        }
    }

    /// Prints a summary of what was done, unless it is to be quiet.
    pub(super) fn summary(&self, text: &str) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { self.print(text) }
    }

    /// Says something that the user should know.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            self.message("note", "36", text, None);
        }
    }

    /// Shows what was asked for beside the result, on standard error and as it is.
    pub(super) fn show(&self, text: &str) {
        match self.format {
            MessageFormat::Json => self.message("output", "", text, None),
            // There is nobody left to tell if standard error is closed.
            MessageFormat::Human => drop(std::io::stderr().lock().write_all(text.as_bytes())),
        }
    }

    /// Says why the command failed.
    pub(super) fn error(&self, failure: &Failure) {
        self.message("error", "31", &failure.to_string(), Some(failure.code()));
    }

    fn message(&self, level: &str, colour: &str, text: &str, code: Option<u8>) {
        let text = text.trim_end();
        let line = match (self.format, self.colour) {
            (MessageFormat::Json, _) => {
                let mut object = serde_json::json!({ "level": level, "message": text });
                if let Some(code) = code {
                    object["exit_code"] = code.into();
                }
                format!("{object}\n")
            }
            (MessageFormat::Human, true) => format!("\u{1b}[1;{colour}m{level}:\u{1b}[0m {text}\n"),
            (MessageFormat::Human, false) => format!("{level}: {text}\n"),
        };
        // There is nobody left to tell if standard error is closed.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    /// Shows that long work goes on; `steps` if it is known how many there are.
    pub(super) fn progress(&self, steps: Option<u64>) -> Progress<'_> {
        let bar = (self.terminal && !self.quiet).then(|| {
            let (bar, template) = match steps {
                Some(steps) => (ProgressBar::new(steps), "{spinner} [{bar:30}] {pos}/{len} {msg} {elapsed}"),
                None => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Progress { console: self, bar }
    }
}

/// Long work that is shown on a terminal until this is dropped.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    console: &'a Console,
    bar: Option<ProgressBar>,
}

impl Progress<'_> {
    /// What is done now.
    pub(super) fn step(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// How much is done.
    pub(super) fn done(&self, steps: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(steps);
        }
    }

    /// A note, above what is shown.
    pub(super) fn note(&self, text: &str) {
        self.above(|console| console.note(text));
    }

    /// Lets the console write above what is shown.
    pub(super) fn above(&self, write: impl FnOnce(&Console)) {
        match &self.bar {
            Some(bar) => bar.suspend(|| write(self.console)),
            None => write(self.console),
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
