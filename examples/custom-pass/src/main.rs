//! The `strata` command with one more pass: `custom-strata opt --passes merge-clamps,canonicalise FILE`.

use std::process::ExitCode;

fn main() -> ExitCode {
    strata::cli::main_with(&strata::registry().with([&custom_pass::MERGE_CLAMPS]))
}
