//! `docs/generated/ops.md` is what the op tables say. `BLESS=1 cargo test -p strata-ir --test generated`
//! rewrites it.

use std::path::Path;

#[test]
fn the_op_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/generated/ops.md");
    let want = strata_ir::dialect::doc::markdown();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &want).expect("the reference can be written");
    }
    let found = std::fs::read_to_string(&path).expect("the reference stands in the repository");
    assert!(found == want, "docs/generated/ops.md is stale: run this test with BLESS=1");
}
