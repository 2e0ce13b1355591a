//! The range whose 8-bit distribution tells most of the real one: least relative entropy.
//!
//! Candidates cut the histogram; what is cut is counted into the end bins, as saturation will, and the
//! reference distribution is compared with what 256 levels leave of it: counts of a level spread evenly over
//! the bins that are not empty.
//!
//! # Source
//! S. Migacz: 8-bit Inference with TensorRT, GTC 2017, which onnxruntime's calibrator follows too. Both
//! search magnitudes from 128 levels up, symmetric about 0; here the levels are those of the asymmetric
//! range, and where values lie on one side of 0 only that end is cut.

/// Candidates a histogram.
const CANDIDATES: usize = 64;
/// Levels of an 8-bit integer.
const LEVELS: usize = 256;

/// The bins `first..last` to keep of a histogram in which the bin `zero` holds the real 0.
pub(super) fn least_divergence(counts: &[u64], zero: usize) -> (usize, usize) {
    let n = counts.len();
    let reach = zero.max(n.saturating_sub(zero)).max(1);
    let mut best = (f64::INFINITY, (0, n));
    for candidate in (1..=CANDIDATES).rev() {
        let half = (reach * candidate).div_ceil(CANDIDATES);
        let (first, last) = (zero.saturating_sub(half), (zero + half).min(n));
        if last - first < LEVELS {
            break;
        }
        let divergence = divergence(counts, first, last);
        if divergence < best.0 {
            best = (divergence, (first, last));
        }
    }
    best.1
}

/// The Kullback-Leibler divergence of the quantised distribution of `first..last` from the real one.
fn divergence(counts: &[u64], first: usize, last: usize) -> f64 {
    let kept = &counts[first..last];
    let mut reference: Vec<f64> = kept.iter().map(|&count| count as f64).collect();
    let outside = |part: &[u64]| part.iter().sum::<u64>() as f64;
    let n = reference.len();
    reference[0] += outside(&counts[..first]);
    reference[n - 1] += outside(&counts[last..]);
    let total: f64 = reference.iter().sum();
    // What is cut is part of the reference, but not of what the levels can represent.
    let represented = outside(kept);
    if total == 0.0 || represented == 0.0 {
        return f64::INFINITY;
    }
    let mut divergence = 0.0;
    for level in 0..LEVELS {
        let bins = level * n / LEVELS..(level + 1) * n / LEVELS;
        let sum: f64 = kept[bins.clone()].iter().map(|&count| count as f64).sum();
        let filled = reference[bins.clone()].iter().filter(|&&p| p > 0.0).count();
        for &p in &reference[bins] {
            if p > 0.0 {
                // A bin that only saturation fills has no mass in the other distribution; a small one stands
                // for it.
                let q = (sum / filled as f64 / represented).max(1e-12);
                divergence += p / total * (p / total / q).ln();
            }
        }
    }
    divergence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_uniform_distribution_and_cuts_a_lone_outlier() {
        assert_eq!(least_divergence(&[10; 2048], 0), (0, 2048));
        let mut counts = vec![0_u64; 2048];
        // A bell about the middle that ends at a quarter of the range, and one value far out.
        for (bin, count) in counts.iter_mut().enumerate() {
            let z = (bin as f64 - 1024.0) / 80.0;
            *count = (1e6 * (-z * z / 2.0).exp()) as u64;
        }
        counts[2047] = 1;
        let (first, last) = least_divergence(&counts, 1024);
        assert!(first > 500 && last < 1550, "{first}..{last}");
    }

    #[test]
    fn one_sided_values_keep_their_zero() {
        let mut counts = vec![0_u64; 2048];
        for (bin, count) in counts.iter_mut().enumerate() {
            *count = (1e6 * (-(bin as f64) / 60.0).exp()) as u64;
        }
        let (first, last) = least_divergence(&counts, 0);
        assert!(first == 0 && last < 2048, "{first}..{last}");
    }
}
