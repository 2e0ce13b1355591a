//! In which order ready stages step when a run is checked.

/// Pseudo-random numbers: SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not zero.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// The stages of a phase by priority. The ready stage of the highest one steps; now and then all are drawn
/// anew. So one stage often runs as far ahead of the others as it may, which no fair order shows.
#[derive(Clone, Debug)]
pub(super) struct Priorities(Vec<usize>);

/// One in so many steps draws new priorities.
const REDRAW: u64 = 8;

impl Priorities {
    pub(super) fn new(n_stages: usize, random: &mut Random) -> Self {
        let mut this = Self((0..n_stages).collect());
        this.shuffle(random);
        this
    }

    /// Fisher and Yates's shuffle.
    fn shuffle(&mut self, random: &mut Random) {
        for last in (1..self.0.len()).rev() {
            self.0.swap(last, random.below(last as u64 + 1) as usize);
        }
    }

    /// The stages, highest priority first, as they are for the next step.
    pub(super) fn draw(&mut self, random: &mut Random) -> &[usize] {
        if random.below(REDRAW) == 0 {
            self.shuffle(random);
        }
        &self.0
    }
}
