//! Memory of the machine, which threads write side by side.

use std::cell::UnsafeCell;
use std::ops::Deref;

/// Bytes that are read together, and then written together, each by one thread.
#[derive(Debug, Default)]
pub(super) struct Memory(Box<[UnsafeCell<u8>]>);

// SAFETY: through a shared reference bytes change in `write_beside` only, whose callers see to it that nobody
// else reads or writes them.
unsafe impl Sync for Memory {}

impl Memory {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let bytes = Box::into_raw(bytes.into_boxed_slice());
        // SAFETY: an `UnsafeCell<u8>` is laid out as a `u8`, and nobody else has the bytes.
        Self(unsafe { Box::from_raw(bytes as *mut [UnsafeCell<u8>]) })
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        let bytes = Box::into_raw(self.0);
        // SAFETY: as in `new`.
        unsafe { Box::from_raw(bytes as *mut [u8]) }.into_vec()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `new`; the reference is the only one.
        unsafe { &mut *(std::ptr::from_mut(&mut *self.0) as *mut [u8]) }
    }

    /// Writes bytes from `at` on.
    ///
    /// # Safety
    /// Nobody has a slice of this memory while it is called, and nobody else writes the same bytes.
    ///
    /// # Panics
    /// If they do not fit.
    pub(super) unsafe fn write_beside(&self, at: usize, bytes: &[u8]) {
        let to = self.0[at..][..bytes.len()].as_ptr();
        // SAFETY: the bytes are there, and the caller's alone.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), UnsafeCell::raw_get(to), bytes.len()) };
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as in `new`; who writes sees to it that there is no slice.
        unsafe { &*(std::ptr::from_ref(&*self.0) as *const [u8]) }
    }
}
