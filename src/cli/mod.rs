//! The `strata` command, a thin layer over the library.
//!
//! One module a command; [`console`](self) alone writes to the terminal, and `main` alone picks the exit
//! code:
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | the input or the compile failed |
//! | 2 | wrong usage |
//! | 3 | a valid model that Strata does not support |
//! | 4 | `diff` and `compare` with `--exit-code`: the two differ |
//!
//! Results go to standard output, all else to standard error. Files are written whole or not at all.

mod alloc;
mod args;
mod bench;
mod compare;
mod compile;
mod completions;
mod console;
mod demo;
mod diff;
mod docs;
mod dumps;
mod explain;
mod explain_plan;
mod export;
mod failure;
mod inspect;
mod model;
mod noise_page;
mod opt;
mod program;
mod quantise;
mod reduce;
mod report;
mod run;
mod tables;
mod test;
mod times;
mod zoo;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use console::{Console, MessageFormat};
use failure::Failure;
use strata_ir::pass::Registry;

use crate::{io, registry};

/// Compiles neural networks for a multi-layer accelerator, and runs what it compiled.
#[derive(Debug, Parser)]
#[command(name = "strata", version, max_term_width = 110, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print nothing but results and errors
    #[arg(long, short, global = true)]
    quiet: bool,
    /// How messages on standard error look
    #[arg(long, global = true, value_enum, default_value = "human", value_name = "FORMAT")]
    message_format: MessageFormat,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 the input or the compile failed, 2 wrong usage, 3 a valid \
    model that \
                          Strata does not support, 4 the two differ (`--exit-code` of `diff` and \
                          `compare`).";

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Compile(compile::Args),
    Run(run::Args),
    Inspect(inspect::Args),
    Quantise(quantise::Args),
    Report(report::Args),
    Diff(diff::Args),
    Compare(compare::Args),
    Zoo(zoo::Args),
    Opt(opt::Args),
    Test(test::Args),
    Reduce(reduce::Args),
    Explain(explain::Args),
    ExplainPlan(explain_plan::Args),
    Export(export::Args),
    Disasm(program::DisasmArgs),
    Verify(program::VerifyArgs),
    Alloc(alloc::Args),
    Bench(bench::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    Docs(docs::Args),
}

/// Reads the command line, does what it says, and gives the exit code.
pub fn main() -> ExitCode {
    main_with(&registry())
}

/// As [`main`], with other passes than Strata's own, such as those and a user's: what takes the names of
/// passes knows the registry's.
///
/// ```no_run
/// # use strata_ir::pass::PassInfo;
/// # fn example(own: &'static PassInfo) -> std::process::ExitCode {
/// strata::cli::main_with(&strata::registry().with([own]))
/// # }
/// ```
pub fn main_with(registry: &Registry) -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        // Help and version go to standard output and are no errors. There is nobody to tell if printing
        // fails.
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) if wants_json(std::env::args_os()) => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text).to_owned();
            let failure = Failure::Usage(text);
            Console::new(false, MessageFormat::Json).error(&failure);
            return ExitCode::from(failure.code());
        }
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(2);
        }
    };
    let console = Console::new(cli.quiet, cli.message_format);
    io::temporary::erase_on_signals();
    limit_threads(&console);
    match dispatch(cli.command, registry, &console) {
        Ok(()) | Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Differs) => ExitCode::from(Failure::Differs.code()),
        Err(failure) => {
            console.error(&failure);
            ExitCode::from(failure.code())
        }
    }
}

/// Threads that run at most, for each processor.
const MOST_THREADS_A_PROCESSOR: usize = 4;

/// Has no more threads run than are of use, however many the environment asks for: thousands of them would
/// only wait for each other.
fn limit_threads(console: &Console) {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    let asked = std::env::var(VARIABLE).ok().and_then(|number| number.trim().parse::<usize>().ok());
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let most = processors.saturating_mul(MOST_THREADS_A_PROCESSOR);
    let Some(asked) = asked.filter(|&asked| asked > most) else { return };
    console.note(&format!(
        "{VARIABLE}={asked}: {most} threads run, {MOST_THREADS_A_PROCESSOR} for each of {processors} \
         processors"
    ));
    // Whoever runs the command from within a program of its own may have its threads already.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(most).build_global();
}

/// Whether a command line that does not parse asks for messages as JSON.
fn wants_json(arguments: impl Iterator<Item = OsString>) -> bool {
    let arguments: Vec<OsString> = arguments.collect();
    let is_pair = |pair: &[OsString]| pair[0] == "--message-format" && pair[1] == "json";
    arguments.windows(2).any(is_pair) || arguments.iter().any(|argument| argument == "--message-format=json")
}

/// Parses the command line. Commands that go on from a checkpoint are told which arguments were given.
fn parse() -> Result<Cli, clap::Error> {
    let mut matches = Cli::command().try_get_matches()?;
    let given = matches.subcommand().map(|(_, matches)| args::Given::of(matches)).unwrap_or_default();
    let mut cli = Cli::from_arg_matches_mut(&mut matches)?;
    match &mut cli.command {
        Command::Compile(args) => args.given = given,
        Command::Opt(args) => args.given = given,
        Command::Reduce(args) => args.given = given,
        _ => {}
    }
    Ok(cli)
}

fn dispatch(command: Command, registry: &Registry, console: &Console) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(&args, console),
        Command::Compile(args) => compile::run(&args, console),
        Command::Run(args) => run::run(&args, console),
        Command::Inspect(args) => inspect::run(&args, console),
        Command::Quantise(args) => quantise::run(&args, console),
        Command::Report(args) => report::run(&args, console),
        Command::Diff(args) => diff::run(&args, console),
        Command::Compare(args) => compare::run(&args, console),
        Command::Zoo(args) => zoo::run(&args, console),
        Command::Opt(args) => opt::run(&args, registry, console),
        Command::Test(args) => test::run(&args, registry, console),
        Command::Reduce(args) => reduce::run(&args, registry, console),
        Command::Explain(args) => explain::run(&args, console),
        Command::ExplainPlan(args) => explain_plan::run(&args, console),
        Command::Export(args) => export::run(&args, console),
        Command::Disasm(args) => program::disasm(&args, console),
        Command::Verify(args) => program::verify(&args, console),
        Command::Alloc(args) => alloc::run(&args, console),
        Command::Bench(args) => bench::run(&args, console),
        Command::Completions(args) => completions::run(&args, console),
        Command::Docs(args) => docs::run(&args, console),
    }
}

/// The command line as clap has it, for completions and generated pages.
fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
