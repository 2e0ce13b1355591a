//! Loops over all cores.
//!
//! A parallel iterator is compiled anew for each closure that it is given, about nine functions each time.
//! Here it is given a `dyn` closure that fills a whole chunk, so it is compiled once an element type, and the
//! call through a pointer is made once a chunk.

use rayon::prelude::*;

/// Elements of a chunk where nothing else says how many belong together; results do not depend on it.
const CHUNK: usize = 1 << 14;

/// `n` elements, filled in chunks of `len`, of which the last may be shorter: `fill(index, chunk)`.
pub(super) fn filled<T: Clone + Default + Send>(
    n: usize,
    len: usize,
    fill: &(dyn Fn(usize, &mut [T]) + Sync),
) -> Vec<T> {
    let mut out = vec![T::default(); n];
    if n <= len {
        // One chunk: to have another thread fill it takes longer than many an op does.
        if n > 0 {
            fill(0, &mut out);
        }
    } else {
        out.par_chunks_mut(len).enumerate().for_each(|(index, chunk)| fill(index, chunk));
    }
    out
}

/// `n` elements, filled in chunks: `fill(first, chunk)`, `first` being the index of the chunk's first
/// element.
pub(super) fn filled_from<T: Clone + Default + Send>(
    n: usize,
    fill: &(dyn Fn(usize, &mut [T]) + Sync),
) -> Vec<T> {
    filled(n, CHUNK, &|chunk, out| fill(chunk * CHUNK, out))
}

/// `f` of each element.
pub(super) fn map<A: Copy + Sync, T: Clone + Default + Send>(
    values: &[A],
    f: impl Fn(A) -> T + Sync,
) -> Vec<T> {
    filled_from(values.len(), &|first, out| {
        for (out, &value) in out.iter_mut().zip(&values[first..]) {
            *out = f(value);
        }
    })
}

/// Images of `height` rows of `row_len` elements: `row(image, y, out)`.
pub(super) fn image_rows<T: Clone + Default + Send>(
    n_images: usize,
    height: usize,
    row_len: usize,
    row: impl Fn(usize, usize, &mut [T]) + Sync,
) -> Vec<T> {
    filled(n_images * height * row_len, row_len, &|at, out| row(at / height, at % height, out))
}
