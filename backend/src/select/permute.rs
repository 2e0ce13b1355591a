//! Chains of reshapes and transposes as one permutation.
//!
//! A chain is kept as the source's extents, split into factors, and the order in which the factors stand in
//! the result. A reshape changes neither; a transpose splits factors where its axes begin and end, and
//! reorders them.

use strata_isa_spec::View;
use strata_isa_spec::inst::Permute;

/// Axes that the machine's `permute` takes.
const N_AXES: usize = 6;

/// A chain of reshapes and transposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// Factors of the extents, in the order of the result; each with its place in the source.
    factors: Vec<Factor>,
}

/// A part of a source axis. Places are compared only: splitting gives fractions of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Factor {
    extent: usize,
    place: Vec<usize>,
}

impl Chain {
    /// The chain that changes nothing.
    pub(super) fn identity(n_elements: usize) -> Self {
        Self { factors: vec![Factor { extent: n_elements, place: vec![0] }] }
    }

    /// The chain followed by a transpose of its result, seen as `shape`; `None` if an axis begins within a
    /// factor that it does not divide.
    pub(super) fn transpose(&self, shape: &[usize], perms: &[usize]) -> Option<Self> {
        let mut rest: Vec<Factor> = self.factors.iter().rev().cloned().collect();
        let mut axes: Vec<Vec<Factor>> = Vec::new();
        for &extent in shape {
            let mut axis = Vec::new();
            let mut missing = extent;
            while missing > 1 {
                let mut factor = rest.pop()?;
                if factor.extent > missing {
                    if factor.extent % missing != 0 {
                        return None;
                    }
                    let child = |n: usize| factor.place.iter().copied().chain([n]).collect();
                    rest.push(Factor { extent: factor.extent / missing, place: child(1) });
                    factor = Factor { extent: missing, place: child(0) };
                } else if missing % factor.extent != 0 {
                    return None;
                }
                missing /= factor.extent;
                if factor.extent > 1 {
                    axis.push(factor);
                }
            }
            axes.push(axis);
        }
        Some(Self { factors: perms.iter().flat_map(|&axis| axes[axis].iter().cloned()).collect() })
    }

    /// Extents of the source and the permutation of them, neighbours that stay together merged.
    fn merged(&self) -> (Vec<usize>, Vec<usize>) {
        let mut source: Vec<&Factor> = self.factors.iter().collect();
        source.sort_by(|a, b| a.place.cmp(&b.place));
        let rank = |factor: &Factor| source.partition_point(|other| other.place < factor.place);
        // Runs of factors that follow each other in the source as in the result.
        let mut runs: Vec<(usize, usize, usize)> = Vec::new();
        for factor in &self.factors {
            let at = rank(factor);
            match runs.last_mut() {
                Some((_, end, extent)) if *end == at => {
                    *end += 1;
                    *extent *= factor.extent;
                }
                _ => runs.push((at, at + 1, factor.extent)),
            }
        }
        let mut in_source = runs.clone();
        in_source.sort_unstable();
        let perm = runs.iter().map(|run| in_source.partition_point(|other| other.0 < run.0)).collect();
        (in_source.iter().map(|run| run.2).collect(), perm)
    }

    /// Whether the result is the source, row-major.
    pub(super) fn is_identity(&self) -> bool {
        self.merged().1.len() <= 1
    }

    /// The machine's head; `None` if it has not enough axes.
    pub(super) fn head(&self) -> Option<Permute<()>> {
        let (extents, order) = self.merged();
        let lead = N_AXES.checked_sub(extents.len())?;
        let mut dims = [1u32; N_AXES];
        let mut perm: [u8; N_AXES] = std::array::from_fn(|axis| axis as u8);
        for (axis, (&extent, &from)) in extents.iter().zip(&order).enumerate() {
            dims[lead + axis] = u32::try_from(extent).ok()?;
            perm[lead + axis] = u8::try_from(lead + from).ok()?;
        }
        Some(Permute { src: View::default(), dims, perm })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_to_depth_is_one_permutation() {
        // [1, 4, 6, 8] -> [1, 2, 2, 3, 2, 8] -> axes (0, 1, 3, 2, 4, 5) -> [1, 2, 3, 32].
        let chain = Chain::identity(192).transpose(&[1, 2, 2, 3, 2, 8], &[0, 1, 3, 2, 4, 5]);
        let head = chain.and_then(|chain| chain.head());
        let head = head.expect("four factors are enough");
        assert_eq!(head.dims, [1, 1, 2, 2, 3, 16]);
        assert_eq!(head.perm, [0, 1, 2, 4, 3, 5]);
    }

    #[test]
    fn a_transpose_and_its_inverse_are_nothing() {
        let there = Chain::identity(60).transpose(&[3, 4, 5], &[2, 0, 1]).expect("splits");
        assert!(!there.is_identity());
        let back = there.transpose(&[5, 3, 4], &[1, 2, 0]).expect("splits");
        assert!(back.is_identity());
    }

    #[test]
    fn an_axis_across_factors_does_not_fold() {
        let chain = Chain::identity(36).transpose(&[6, 6], &[1, 0]).expect("splits");
        assert_eq!(chain.transpose(&[4, 9], &[1, 0]), None);
    }
}
