//! How elementwise operands stretch over a common shape: an extent of 1 repeats.

use super::{Args, EvalError, parallel};

/// The common shape of all operands of an elementwise op and each operand's step along each axis (0 where it
/// repeats), with adjacent axes merged where all operands allow.
pub(super) struct Broadcast<const N: usize> {
    /// Extents of the result.
    pub shape: Vec<usize>,
    axes: Vec<Axis<N>>,
}

#[derive(Clone, Copy)]
struct Axis<const N: usize> {
    extent: usize,
    steps: [usize; N],
}

impl<const N: usize> Broadcast<N> {
    /// The broadcast of operands `first..first + N`; their ranks are equal.
    pub(super) fn of(args: &Args<'_>, first: usize) -> Result<Self, EvalError> {
        let shapes: [&[usize]; N] = std::array::from_fn(|i| args.operand(first + i).shape());
        let rank = shapes[0].len();
        let mismatch = || args.shape_error(format!("the operand shapes {shapes:?} do not broadcast"));
        if shapes.iter().any(|s| s.len() != rank) {
            return Err(mismatch());
        }
        let mut shape = vec![1; rank];
        for axis in 0..rank {
            for operand in shapes {
                match (shape[axis], operand[axis]) {
                    (common, extent) if common == extent => {}
                    (1, extent) => shape[axis] = extent,
                    (_, 1) => {}
                    _ => return Err(mismatch()),
                }
            }
        }
        let mut axes: Vec<Axis<N>> = Vec::new();
        let mut inner = [1; N];
        for axis in (0..rank).rev() {
            let steps = std::array::from_fn(|i| if shapes[i][axis] == 1 { 0 } else { inner[i] });
            for (i, inner) in inner.iter_mut().enumerate() {
                *inner *= shapes[i][axis];
            }
            let extent = shape[axis];
            match axes.last_mut() {
                _ if extent == 1 => {}
                Some(last) if (0..N).all(|i| steps[i] == last.steps[i] * last.extent) => {
                    last.extent *= extent
                }
                _ => axes.push(Axis { extent, steps }),
            }
        }
        axes.reverse();
        Ok(Self { shape, axes })
    }

    /// The result's elements: `f` of each operand's element index, in row-major order.
    pub(super) fn map<T: Send + Default + Clone>(&self, f: impl Fn([usize; N]) -> T + Sync) -> Vec<T> {
        let n_elements: usize = self.shape.iter().product();
        parallel::filled_from(n_elements, &|first, out| {
            let mut done = 0;
            while done < out.len() {
                let (at, run, steps) = self.run_at(first + done);
                let run = run.min(out.len() - done);
                for (k, out) in out[done..done + run].iter_mut().enumerate() {
                    *out = f(std::array::from_fn(|i| at[i] + k * steps[i]));
                }
                done += run;
            }
        })
    }

    /// Where the operands stand at a flat index of the result, how far the innermost axis goes on from there,
    /// and its steps.
    fn run_at(&self, flat: usize) -> ([usize; N], usize, [usize; N]) {
        let mut rest = flat;
        let mut at = [0; N];
        for axis in self.axes.iter().rev() {
            let index = rest % axis.extent;
            rest /= axis.extent;
            for (at, step) in at.iter_mut().zip(axis.steps) {
                *at += index * step;
            }
        }
        match self.axes.last() {
            Some(last) => (at, last.extent - flat % last.extent, last.steps),
            None => (at, 1, [0; N]),
        }
    }
}

impl Broadcast<2> {
    /// As [`map`](Self::map), `f` being given the elements of both operands.
    pub(super) fn zip<A: Copy + Sync, T: Send + Default + Clone>(
        &self,
        a: &[A],
        b: &[A],
        f: impl Fn(A, A) -> T + Sync,
    ) -> Vec<T> {
        let n_elements: usize = self.shape.iter().product();
        parallel::filled_from(n_elements, &|first, out| {
            let mut done = 0;
            while done < out.len() {
                let (place, run, steps) = self.run_at(first + done);
                let run = run.min(out.len() - done);
                let out = &mut out[done..done + run];
                // Slices of one length have no bounds to check: these loops become vector instructions.
                match steps {
                    [1, 1] => {
                        let (a, b) = (&a[place[0]..][..run], &b[place[1]..][..run]);
                        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                            *out = f(a, b);
                        }
                    }
                    [1, 0] => {
                        let b = b[place[1]];
                        for (out, &a) in out.iter_mut().zip(&a[place[0]..][..run]) {
                            *out = f(a, b);
                        }
                    }
                    [0, 1] => {
                        let a = a[place[0]];
                        for (out, &b) in out.iter_mut().zip(&b[place[1]..][..run]) {
                            *out = f(a, b);
                        }
                    }
                    _ => {
                        for (k, out) in out.iter_mut().enumerate() {
                            *out = f(a[place[0] + k * steps[0]], b[place[1] + k * steps[1]]);
                        }
                    }
                }
                done += run;
            }
        })
    }
}
