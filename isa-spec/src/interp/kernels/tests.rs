use super::*;

/// Random bytes.
fn noise(seed: u64) -> impl FnMut() -> u8 {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    }
}

/// A product of random shape and data: `[pixel]` runs of `run` activations by `[channel]` weights.
struct Case {
    pixels: usize,
    channels: usize,
    runs: usize,
    run: usize,
    zero_point: i32,
}

impl Case {
    /// The sums as defined, and as the kernels of every level of this CPU give them.
    fn check(&self, activations: &[i8], weights: &[i8], bias: &[i32]) {
        let reduction = self.runs * self.run;
        let want: Vec<i32> = (0..self.pixels * self.channels)
            .map(|index| {
                let (pixel, channel) = (index / self.channels, index % self.channels);
                let products = (0..reduction).map(|k| {
                    let a = i32::from(activations[pixel * reduction + k]) - self.zero_point;
                    a * i32::from(weights[channel * reduction + k])
                });
                products.fold(bias[channel], i32::wrapping_add)
            })
            .collect();
        let bytes: Vec<u8> = activations.iter().map(|&a| a as u8).collect();
        for simd in Simd::available() {
            let layout = Layout::of(simd);
            let packed = PackedWeights::new(layout, weights, bias, self.runs, self.zero_point);
            let mut lines = Lines::new(layout, bytes.len());
            lines.put(simd, 0, &bytes, self.zero_point);
            let walk = Walk {
                pixels: (0..self.pixels).map(|p| (p * reduction) as u32).collect(),
                runs: (0..self.runs).map(|r| (r * self.run) as u32).collect(),
            };
            let mut got = vec![0; want.len()];
            multiply(simd, &packed, 0..packed.blocks(), &lines, &walk, Out::Sums(&mut got), self.channels);
            assert_eq!(got, want, "{}", simd.level());
            for block in 0..packed.blocks() {
                let channels = packed.channels_of(&(block..block + 1));
                let mut got = vec![0; self.pixels * channels.len()];
                multiply(simd, &packed, block..block + 1, &lines, &walk, Out::Sums(&mut got), channels.len());
                let part = want.chunks_exact(self.channels).flat_map(|sums| &sums[channels.clone()]);
                assert!(got.iter().eq(part), "{}, block {block}", simd.level());
            }
        }
    }
}

#[test]
fn all_levels_equal_the_definition() {
    for seed in 0..200u64 {
        let mut next = noise(seed);
        let mut draw = |most: usize| usize::from(next()) % most + 1;
        let case = Case {
            pixels: draw(20),
            channels: draw(70),
            runs: draw(4),
            run: draw(30),
            zero_point: [0, -128, 127, 3, -5][draw(5) - 1],
        };
        let reduction = case.runs * case.run;
        let weights: Vec<i8> = (0..case.channels * reduction).map(|_| next() as i8).collect();
        let bias: Vec<i32> = (0..case.channels).map(|_| i32::from(next()) * 1000 - 128_000).collect();
        let activations: Vec<i8> = (0..case.pixels * reduction).map(|_| next() as i8).collect();
        case.check(&activations, &weights, &bias);
    }
}

/// Every pair of an activation and a weight, and every zero point with the extremes of both, in all places of
/// a group: where a kernel that saturates would show it.
#[test]
fn every_product_of_bytes_is_exact() {
    let all: Vec<i8> = (i8::MIN..=i8::MAX).collect();
    for zero_point in [-128, 0, 127] {
        let case = Case { pixels: 256, channels: 256, runs: 1, run: 8, zero_point };
        let repeat = |values: &[i8]| values.iter().flat_map(|&v| [v; 8]).collect::<Vec<_>>();
        case.check(&repeat(&all), &repeat(&all), &[0; 256]);
    }
    for zero_point in -128..=127 {
        let case = Case { pixels: 3, channels: 3, runs: 1, run: 12, zero_point };
        let extremes: Vec<i8> = [-128i8, 127, zero_point as i8].iter().flat_map(|&v| [v; 12]).collect();
        case.check(&extremes, &extremes, &[i32::MAX, i32::MIN, 0]);
    }
}

/// Where a transposed convolution has no tap at all: kernels smaller than their stride.
#[test]
fn sums_of_nothing_are_the_biases() {
    let bias: Vec<i32> = (0..37).map(|channel| channel * 1000 - 7).collect();
    let walk = Walk { pixels: vec![0, 90, 4000], runs: Vec::new() };
    for simd in Simd::available() {
        let layout = Layout::of(simd);
        let packed = PackedWeights::new(layout, &[], &bias, 0, -3);
        let mut got = vec![0; 3 * bias.len()];
        multiply(
            simd,
            &packed,
            0..packed.blocks(),
            &Lines::new(layout, 0),
            &walk,
            Out::Sums(&mut got),
            bias.len(),
        );
        assert_eq!(got, bias.repeat(3), "{}", simd.level());
    }
}
