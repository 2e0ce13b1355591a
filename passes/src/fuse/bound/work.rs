//! The least time that the array works on a stage, whatever its clusters and its mapping.

use strata_backend::cost::{may_winograd, with_winograd};
use strata_backend::model::StageTemplate;
use strata_isa_spec::Target;
use strata_isa_spec::timing::Work;

/// The least that clusters work on a stage together, as so many lanes over so many cycles, in strips or not.
pub(super) fn least_work(code: &StageTemplate, target: &Target) -> u64 {
    let lanes = u64::from(target.array.lanes);
    let n_rows = u64::from(code.n_rows());
    match code.work() {
        Work::Dma { .. } => 0,
        Work::Vector { elements } => elements * n_rows,
        Work::Mac { pixels, .. } => {
            let direct = pixel_cycles(&code.work(), lanes);
            if !may_winograd(code, target) {
                return lanes * pixels * direct * n_rows;
            }
            // A tile is two pixels in each of two rows; a strip may end in half a tile. Two rows, or the last
            // alone, run by the faster method.
            let tile = pixel_cycles(&with_winograd(code, true).work(), lanes);
            let halves = n_rows / 2 * tile.min(4 * direct) + n_rows % 2 * tile.min(2 * direct);
            (lanes * pixels * halves).div_ceil(2)
        }
    }
}

/// The least cycles of one cluster for a pixel, or a tile of Winograd: those of the best split of its lanes.
/// More clusters over the channels or the reduction take at least as many together, and clusters over pixels
/// one each at best.
fn pixel_cycles(work: &Work, lanes: u64) -> u64 {
    let Work::Mac { channels, reduction, groups, .. } = *work else { return 0 };
    let splits = (0..=lanes.max(1).ilog2()).map(|log| 1 << log);
    let cycles = splits.map(|over_reduction: u64| {
        channels.div_ceil((lanes / over_reduction).max(1)) * reduction.div_ceil(over_reduction)
    });
    groups * cycles.min().unwrap_or(0)
}
