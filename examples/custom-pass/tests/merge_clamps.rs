//! Tests of `merge-clamps`, which need no importer: `cargo test -p custom-pass --no-default-features`.

use std::path::Path;

use custom_pass::{MERGE_CLAMPS, MergeClamps};
use strata_ir::pass::{Pipeline, Registry};
use strata_passes::canonicalise::Canonicalise;
use strata_passes::testing::{self, Failures, FileTests, Tests};

/// The passes of Strata, and the own one.
fn registry() -> Registry {
    strata_passes::registry().with([&MERGE_CLAMPS])
}

#[test]
fn what_it_declares_is_sound() {
    assert_eq!(registry().faults(), [] as [String; 0]);
}

#[test]
fn merges_three_clamps() -> Result<(), Failures> {
    let text = include_str!("three_clamps.mlir");
    insta::assert_snapshot!(testing::opt(&registry(), "merge-clamps,canonicalise", text)?);
    Ok(())
}

/// Typed passes and passes by name make one pipeline.
#[test]
fn stands_in_a_pipeline() {
    let named = registry().parse("merge-clamps{most=1},quantise{range=min-max}").expect("both are known");
    let pipeline = Pipeline::of(MergeClamps { most: 2 }).then(Canonicalise).and_then(named);
    let text = "merge-clamps{most=2},canonicalise,merge-clamps{most=1},quantise{range=min-max}";
    assert_eq!(pipeline.to_string(), text);
}

/// As `custom-strata test tests/filetests` does.
#[test]
fn file_tests() {
    let tests = Tests::find(Path::new("tests/filetests")).expect("the folder is readable");
    assert!(!tests.files.is_empty() && tests.stale.is_empty());
    for path in &tests.files {
        let ran = FileTests::new(registry()).run(path);
        assert!(ran.is_ok(), "{}: {ran:?}", path.display());
    }
}
