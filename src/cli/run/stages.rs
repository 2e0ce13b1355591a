//! `--dump-stages`: what every stage made of an inference, as a folder.

use std::path::Path;

use super::{Args, RunResult};
use crate::cli::failure::Failure;
use crate::dump::DumpFolder;
use crate::io::Array;
use crate::session::Session;

/// Runs a bundle once and writes what its stages made beside its place; gives that and its outputs, or their
/// integers if `--raw` asks for them.
pub(super) fn run(
    args: &Args,
    session: &Session,
    inputs: &[(String, Array)],
    place: &Path,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<RunResult, Failure> {
    let mut folder = DumpFolder::begin(place, session)?;
    let outputs =
        session.run_stages(inputs, progress, &mut |tensor| Ok::<_, Failure>(folder.add(tensor)?))?;
    let stages = Some(folder.seal(&outputs)?);
    let outputs = if args.raw { session.run_raw(inputs, &mut |_| {})? } else { outputs };
    Ok(RunResult { outputs, stages })
}
