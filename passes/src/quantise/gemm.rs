//! Single-precision matrix product on slices: the one place that calls the unsafe kernel of `matrixmultiply`.
//!
//! A product of given extents always sums in the same order, whatever thread runs it.

/// A matrix in a slice: element `(row, column)` stands at `row * row_step + column * column_step`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub data: &'a [f32],
    pub row_step: usize,
    pub column_step: usize,
}

impl Matrix<'_> {
    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row_step + (columns - 1) * self.column_step < self.data.len()
    }
}

/// `c += a * b` with `a` of `[m, k]`, `b` of `[k, n]` and `c` of `[m, n]` row-major with `c_row_step` elements a row.
///
/// # Panics
/// If a slice is too short for its extents.
pub(super) fn accumulate(
    [m, k, n]: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: &mut [f32],
    c_row_step: usize,
) {
    assert!(a.holds(m, k) && b.holds(k, n), "the operands hold their extents");
    assert!(m == 0 || n == 0 || (m - 1) * c_row_step + n <= c.len(), "the result holds its extents");
    assert!(n <= c_row_step || m <= 1, "the rows of the result are disjoint");
    // SAFETY: the assertions show that every element that the kernel touches lies within its slice; `c` is
    // borrowed mutably, so that it overlaps neither operand, and its rows do not overlap each other.
    unsafe {
        matrixmultiply::sgemm(
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
