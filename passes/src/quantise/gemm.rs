//! Matrix product on slices: the one place that calls the unsafe kernels of `matrixmultiply`.
//!
//! A product of given extents always sums in the same order, whatever thread runs it.

use std::ops::{AddAssign, Mul};

/// A matrix in a slice: element `(row, column)` stands at `row * row_step + column * column_step`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    pub data: &'a [T],
    pub row_step: usize,
    pub column_step: usize,
}

impl<T> Matrix<'_, T> {
    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row_step + (columns - 1) * self.column_step < self.data.len()
    }
}

/// The numbers that products are made of: single precision for networks of reals, single or double for
/// integers that it holds exactly.
pub(super) trait Real: Copy + Default + Send + Sync + AddAssign + Mul<Output = Self> {
    /// `c += a * b` as [`accumulate`] has checked it.
    ///
    /// # Safety
    /// Every element that the extents and steps reach lies within its slice, and the rows of `c` do not
    /// overlap.
    unsafe fn gemm(
        extents: [usize; 3],
        a: Matrix<'_, Self>,
        b: Matrix<'_, Self>,
        c: &mut [Self],
        c_row_step: usize,
    );
}

macro_rules! real {
    ($ty:ty, $kernel:path) => {
        impl Real for $ty {
            unsafe fn gemm(
                [m, k, n]: [usize; 3],
                a: Matrix<'_, Self>,
                b: Matrix<'_, Self>,
                c: &mut [Self],
                c_row_step: usize,
            ) {
                // SAFETY: the caller promises what the kernel needs; `c` is borrowed mutably, so that it
                // overlaps neither operand.
                unsafe {
                    $kernel(
                        m,
                        k,
                        n,
                        1.0,
                        a.data.as_ptr(),
                        a.row_step as isize,
                        a.column_step as isize,
                        b.data.as_ptr(),
                        b.row_step as isize,
                        b.column_step as isize,
                        1.0,
                        c.as_mut_ptr(),
                        c_row_step as isize,
                        1,
                    );
                }
            }
        }
    };
}
real!(f32, matrixmultiply::sgemm);
real!(f64, matrixmultiply::dgemm);

/// `c += a * b` with `a` of `[m, k]`, `b` of `[k, n]` and `c` of `[m, n]` row-major with `c_row_step`
/// elements a row.
///
/// # Panics
/// If a slice is too short for its extents.
pub(super) fn accumulate<T: Real>(
    [m, k, n]: [usize; 3],
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    c: &mut [T],
    c_row_step: usize,
) {
    assert!(a.holds(m, k) && b.holds(k, n), "the operands hold their extents");
    assert!(m == 0 || n == 0 || (m - 1) * c_row_step + n <= c.len(), "the result holds its extents");
    assert!(n <= c_row_step || m <= 1, "the rows of the result are disjoint");
    // SAFETY: the assertions are the kernel's conditions.
    unsafe { T::gemm([m, k, n], a, b, c, c_row_step) }
}
