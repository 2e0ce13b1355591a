//! Transfers whose bytes are not what they look like at first: the verifier counts what they really touch.

use strata_isa_spec::verify::{Rule, verify};
use strata_isa_spec::{Target, asm};

const STAGE: &str = "stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 \
    clusters_channels:1 \
                     clusters_pixels:1) source=0";

/// The rules that a program of one phase breaks. Each stage is its output view and its head.
fn broken(declarations: &[&str], stages: &[(&str, &str)]) -> Vec<Rule> {
    let mut text = declarations.join("\n");
    text.push_str("\nphase phase=0\npartition partition=0 clusters=1\n");
    for (out, head) in stages {
        text.push_str(&format!("{STAGE} out={out}\n{head}\n"));
    }
    text.push_str("end_phase\nhalt\n");
    let program = asm::parse(&text).expect("the program assembles");
    let target = Target::preset("micro", &[]).expect("a preset");
    verify(&program, &target).into_iter().map(|error| error.rule).collect()
}

const LOAD: (&str, &str) =
    ("s0[0+4,0+4,0+4]", "dma_in segment=0 offset=0 row_pitch_bytes=16 pixel_pitch_bytes=4");
const INPUT: &str = "segment segment=0 kind=input bytes=64";
const LOADED: &str = "stream stream=0 elem=i8 rows=4 cols=4 chs=4 base=0 pitch_bytes=64 slots=4";

#[test]
fn a_dma_out_has_no_output_that_counts_as_written() {
    let declarations = [
        INPUT,
        "segment segment=1 kind=output bytes=64",
        "segment segment=2 kind=scratch bytes=64",
        LOADED,
        "stream stream=1 elem=i8 rows=4 cols=4 chs=4 base=1024 pitch_bytes=64 slots=4",
    ];
    let store = "dma_out src=s0[0+4,0+4,0+4] segment=2 offset=0 row_pitch_bytes=16 pixel_pitch_bytes=4";
    let give = "dma_out src=s1[0+4,0+4,0+4] segment=1 offset=0 row_pitch_bytes=16 pixel_pitch_bytes=4";
    let declares = [LOAD, ("s1[0+4,0+4,0+4]", store), ("s0[0+0,0+0,0+0]", give)];
    assert_eq!(broken(&declarations, &declares), [Rule::Shape]);
    // One that names a stream which is not declared is refused too, not looked up.
    let elsewhere = [LOAD, ("s9[0+1,0+1,0+1]", store)];
    assert!(broken(&declarations, &elsewhere).contains(&Rule::Shape));
    // Without it, what nobody wrote is seen.
    let plain = [LOAD, ("s0[0+0,0+0,0+0]", store), ("s0[0+0,0+0,0+0]", give)];
    assert_eq!(broken(&declarations, &plain), [Rule::Unwritten]);
}

/// Two rows of 128 bytes that overlap by half. Their pitch is 0, which says nothing of a single row.
#[test]
fn rows_of_pitch_zero_overlap_like_others() {
    let declarations = [
        INPUT,
        "segment segment=1 kind=output bytes=256",
        LOADED,
        "stream stream=1 elem=i8 rows=1 cols=1 chs=128 base=1024 pitch_bytes=128 slots=1",
    ];
    let made = ("s1[0+1,0+1,0+128]", "pad src=s0[0+1,0+1,0+4] top=0 left=0 front=0 value=5");
    let stored = |offset: u32| {
        format!(
            "dma_out src=s1[0+1,0+1,0+128] segment=1 offset={offset} row_pitch_bytes=0 pixel_pitch_bytes=128"
        )
    };
    let rules = |second: u32| {
        let (one, other) = (stored(0), stored(second));
        broken(&declarations, &[LOAD, made, ("s0[0+0,0+0,0+0]", &one), ("s0[0+0,0+0,0+0]", &other)])
    };
    assert_eq!(rules(128), []);
    assert_eq!(rules(64), [Rule::Rewrite]);
}

/// A box that begins in one row of a grid and ends in the next shares bytes with a box at the start of that
/// row.
#[test]
fn boxes_that_wrap_round_a_row_overlap() {
    let declarations = [INPUT, "segment segment=1 kind=scratch bytes=64", LOADED];
    let rules = |col: u32| {
        let one = format!(
            "dma_out src=s0[0+2,0+2,0+4] segment=1 offset={} row_pitch_bytes=16 pixel_pitch_bytes=4",
            4 * col
        );
        let other = "dma_out src=s0[0+1,0+1,0+4] segment=1 offset=16 row_pitch_bytes=16 pixel_pitch_bytes=4";
        broken(&declarations, &[LOAD, ("s0[0+0,0+0,0+0]", &one), ("s0[0+0,0+0,0+0]", other)])
    };
    // From the last column of row 0 on, two pixels reach byte 20; from the column before, they end at 16.
    assert_eq!(rules(3), [Rule::Rewrite]);
    assert_eq!(rules(2), []);
}
