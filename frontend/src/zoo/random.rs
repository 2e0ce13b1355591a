//! The zoo's random numbers: counter based, so that every value is a pure function of (seed, tensor, index).
//!
//! Nothing here holds state between values, which is what lets tensors be filled on any number of threads and
//! still come out with the same bytes on every machine. Only integer arithmetic and single correctly rounded
//! float operations are used; no library function whose last bit may differ between platforms.

use rayon::prelude::*;

/// How many values one parallel task fills; it does not influence the values.
const VALUES_PER_TASK: usize = 1 << 16;

/// The increment of SplitMix64, 2^64 divided by the golden ratio.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// One stream of random numbers, addressed by index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    key: u64,
}

impl Stream {
    /// The stream of the tensor numbered `tensor` under `seed`.
    pub(super) fn new(seed: u64, tensor: u64) -> Self {
        Self { key: mix(mix(seed.wrapping_add(GOLDEN_GAMMA)) ^ tensor.wrapping_mul(GOLDEN_GAMMA)) }
    }

    /// The 64 random bits at `index`.
    fn bits(self, index: u64) -> u64 {
        mix(self.key.wrapping_add(index.wrapping_mul(GOLDEN_GAMMA)))
    }

    /// The value at `index` of an approximately normal distribution of mean 0 and standard deviation 1.
    ///
    /// The sum of four uniform 16-bit numbers (Irwin-Hall of order 4), which is exact in an `f32`, scaled by
    /// `sqrt(3) / 2^16`: within 3.5 standard deviations, and several times cheaper than an exact normal.
    pub(super) fn normal(self, index: u64) -> f32 {
        const SCALE: f32 = 1.732_050_8 / 65536.0;
        let bits = self.bits(index);
        let lane = |k: u32| i32::from((bits >> (16 * k)) as u16);
        let sum = lane(0) + lane(1) + lane(2) + lane(3) - 2 * 65535;
        sum as f32 * SCALE
    }

    /// The value at `index` of the uniform distribution over `[0, 1)`.
    pub(super) fn unit(self, index: u64) -> f32 {
        (self.bits(index) >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Little-endian `f32` bytes of `value(0) .. value(len)`.
    pub(super) fn fill(self, len: usize, value: impl Fn(Self, u64) -> f32 + Sync) -> Vec<u8> {
        let mut bytes = vec![0; len * size_of::<f32>()];
        bytes.par_chunks_mut(VALUES_PER_TASK * size_of::<f32>()).enumerate().for_each(|(task, chunk)| {
            let first = task * VALUES_PER_TASK;
            for (k, slot) in chunk.chunks_exact_mut(size_of::<f32>()).enumerate() {
                slot.copy_from_slice(&value(self, (first + k) as u64).to_le_bytes());
            }
        });
        bytes
    }
}

/// The output function of SplitMix64, a bijection of 64 bits.
///
/// # Source
/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014 (Stafford's variant 13).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_its_published_sequence() {
        // The first outputs of SplitMix64 seeded with 0: mix of the successive multiples of the golden gamma.
        let outputs: Vec<u64> = (1..=3).map(|k: u64| mix(k.wrapping_mul(GOLDEN_GAMMA))).collect();
        assert_eq!(outputs, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
    }

    #[test]
    fn normals_have_mean_zero_and_variance_one() {
        let stream = Stream::new(7, 3);
        let n = 200_000;
        let values: Vec<f64> = (0..n).map(|k| f64::from(stream.normal(k))).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / n as f64 - mean * mean;
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.02, "variance {variance}");
        assert!(values.iter().all(|v| v.abs() < 3.5));
    }

    #[test]
    fn units_cover_the_interval() {
        let stream = Stream::new(1, 0);
        let values: Vec<f32> = (0..10_000).map(|k| stream.unit(k)).collect();
        assert!(values.iter().all(|v| (0.0..1.0).contains(v)));
        assert!(values.iter().any(|&v| v < 0.001) && values.iter().any(|&v| v > 0.999));
    }

    #[test]
    fn a_fill_longer_than_a_task_is_the_same_as_value_by_value() {
        let stream = Stream::new(5, 9);
        let len = VALUES_PER_TASK + 17;
        let bytes = stream.fill(len, Stream::normal);
        for index in [0, 1, VALUES_PER_TASK - 1, VALUES_PER_TASK, len - 1] {
            let got: [u8; 4] = bytes[4 * index..4 * index + 4].try_into().expect("four bytes");
            assert_eq!(f32::from_le_bytes(got), stream.normal(index as u64), "at {index}");
        }
    }

    #[test]
    fn streams_of_different_seeds_and_tensors_differ() {
        let firsts = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(seed, tensor)| Stream::new(seed, tensor).bits(0));
        for (k, first) in firsts.iter().enumerate() {
            assert!(!firsts[..k].contains(first), "stream {k} repeats an earlier one");
        }
    }
}
