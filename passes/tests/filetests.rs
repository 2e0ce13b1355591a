//! The file tests of `tests/filetests/`, run as `strata test` runs them; [`strata_passes::testing`] has their
//! format. `BLESS=1` accepts what they give, to be read before it is committed.

use std::path::Path;

use libtest_mimic::{Arguments, Failed, Trial};
use strata_passes::testing::{FileTests, Tests};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/filetests");
    let Tests { files, others, stale } = Tests::find(&root).expect("the folder is readable");
    assert!(!files.is_empty(), "there are no file tests in {}", root.display());
    let accept = std::env::var_os("BLESS").is_some();
    let trials = files.into_iter().map(|path| {
        let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        let tests = FileTests::new(strata_passes::registry()).accepting(accept);
        Trial::test(name, move || tests.run(&path).map(drop).map_err(Failed::from))
    });
    let mut trials: Vec<Trial> = trials.collect();
    trials.push(Trial::test("all-files-are-tests", move || match (others.is_empty(), stale.is_empty()) {
        (true, true) => Ok(()),
        _ => Err(format!("files without a RUN: {others:?}; outputs without a test: {stale:?}").into()),
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
