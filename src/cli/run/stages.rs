//! `--dump-stages`: what every stage made of an inference, as a folder.

use std::path::Path;

use super::Args;
use crate::cli::failure::Failure;
use crate::dump::DumpFolder;
use crate::io::Array;
use crate::session::Session;

/// Runs a bundle once and writes what its stages made; gives its outputs, or their integers if `--raw` asks
/// for them.
pub(super) fn run(
    args: &Args,
    session: &Session,
    inputs: &[(String, Array)],
    place: &Path,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<Vec<(String, Array)>, Failure> {
    let mut folder = DumpFolder::begin(place, session)?;
    let outputs =
        session.run_stages(inputs, progress, &mut |tensor| Ok::<_, Failure>(folder.add(tensor)?))?;
    folder.finish(&outputs)?;
    if args.raw { Ok(session.run_raw(inputs, &mut |_| {})?) } else { Ok(outputs) }
}
