//! Reading flatbuffers whose schema is known: tables, vectors and strings, each access checked against the
//! bytes.
//!
//! There is no generated code and no separate verification pass: a reference that leaves the file, a vtable
//! that does not fit or a string that is not UTF-8 is an error where it is met, with its byte offset. Fields
//! that a table leaves out read as absent, which the format means as their default.
//!
//! Invariants: nothing is copied out of the file but scalars; no bytes make it panic. Nothing in the format
//! keeps two tables from sharing one vector, so a small file can describe much; a [`Buffer`] therefore counts
//! what is read and gives up when vectors come to more than the file's own length, or strings (which
//! serialisers may share) to [`STRINGS`] times as much.
//!
//! # Source
//! FlatBuffers' internals: <https://flatbuffers.dev/internals/>.

use std::cell::Cell;

/// Why bytes are not the flatbuffer that the schema describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// The byte at which it shows.
    pub(super) offset: usize,
    /// What is wrong.
    pub(super) what: String,
}

type Result<T> = std::result::Result<T, Malformed>;

fn malformed<T>(offset: usize, what: impl Into<String>) -> Result<T> {
    Err(Malformed { offset, what: what.into() })
}

/// Strings may be read this many times the file's length.
const STRINGS: usize = 64;

/// Counts `bytes` more as read.
fn spend(left: &Cell<usize>, bytes: usize, at: usize) -> Result<()> {
    match left.get().checked_sub(bytes) {
        Some(rest) => {
            left.set(rest);
            Ok(())
        }
        None => malformed(at, "more is read than the file is long: its parts are shared beyond reason"),
    }
}

/// The bytes of a file, and how many may still be read through vectors and strings.
#[derive(Debug)]
pub(super) struct Buffer<'a> {
    bytes: &'a [u8],
    vectors: Cell<usize>,
    strings: Cell<usize>,
}

impl<'a> Buffer<'a> {
    /// A reader of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let strings = Cell::new(bytes.len().saturating_mul(STRINGS));
        Self { bytes, vectors: Cell::new(bytes.len()), strings }
    }

    /// The root table.
    pub(super) fn root(&self) -> Result<Table<'_, 'a>> {
        self.table(0)
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let found = at.checked_add(N).and_then(|end| self.bytes.get(at..end)?.try_into().ok());
        found.map_or_else(|| malformed(at, format!("{N} bytes are read beyond the end of the file")), Ok)
    }

    fn u16(&self, at: usize) -> Result<usize> {
        Ok(u16::from_le_bytes(self.array(at)?).into())
    }

    fn u32(&self, at: usize) -> Result<usize> {
        Ok(u32::from_le_bytes(self.array(at)?) as usize)
    }

    /// Where the reference at `at` leads.
    fn follow(&self, at: usize) -> Result<usize> {
        match self.u32(at)? {
            0 => malformed(at, "a reference to itself"),
            distance => match at.checked_add(distance).filter(|&to| to < self.bytes.len()) {
                Some(to) => Ok(to),
                None => malformed(at, "a reference leads out of the file"),
            },
        }
    }

    /// The table that the reference at `at` leads to.
    fn table(&self, at: usize) -> Result<Table<'_, 'a>> {
        let start = self.follow(at)?;
        let distance = i64::from(i32::from_le_bytes(self.array(start)?));
        let Ok(vtable) = usize::try_from(start as i64 - distance) else {
            return malformed(start, "the vtable stands before the file");
        };
        let (vtable_len, table_len) = (self.u16(vtable)?, self.u16(vtable + 2)?);
        let fits = |start: usize, len: usize| start.checked_add(len).is_some_and(|e| e <= self.bytes.len());
        if vtable_len < 4 || vtable_len % 2 != 0 || !fits(vtable, vtable_len) {
            return malformed(vtable, "the vtable does not fit");
        }
        if table_len < 4 || !fits(start, table_len) {
            return malformed(start, "the table does not fit");
        }
        Ok(Table { buffer: self, start, len: table_len, vtable, n_slots: (vtable_len - 4) / 2 })
    }

    /// The start and length of the vector that the reference at `at` leads to, of elements of `size` bytes.
    fn vector(&self, at: usize, size: usize) -> Result<(usize, usize)> {
        let start = self.follow(at)?;
        let n = self.u32(start)?;
        let first = start + 4;
        let bytes =
            n.checked_mul(size).filter(|len| first.checked_add(*len).is_some_and(|e| e <= self.bytes.len()));
        let Some(bytes) = bytes else {
            return malformed(start, format!("a vector of {n} elements does not fit into the file"));
        };
        spend(&self.vectors, bytes, start)?;
        Ok((first, n))
    }

    fn string(&self, at: usize) -> Result<&'a str> {
        let start = self.follow(at)?;
        let len = self.u32(start)?;
        spend(&self.strings, len, start)?;
        let bytes = (start + 4).checked_add(len).and_then(|end| self.bytes.get(start + 4..end));
        match bytes.map(std::str::from_utf8) {
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => malformed(start, "the string is not UTF-8"),
            None => malformed(start, format!("a string of {len} bytes does not fit into the file")),
        }
    }
}

/// A table: fields by slot, each absent or present.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'b, 'a> {
    buffer: &'b Buffer<'a>,
    start: usize,
    len: usize,
    vtable: usize,
    n_slots: usize,
}

impl<'b, 'a> Table<'b, 'a> {
    /// The byte at which it stands.
    pub(super) fn offset(&self) -> usize {
        self.start
    }

    /// Where a field of `size` bytes stands, if it is present.
    fn field(&self, slot: usize, size: usize) -> Result<Option<usize>> {
        if slot >= self.n_slots {
            return Ok(None);
        }
        match self.buffer.u16(self.vtable + 4 + 2 * slot)? {
            0 => Ok(None),
            at if at < 4 || at + size > self.len => {
                malformed(self.start, format!("field {slot} does not lie within its table"))
            }
            at => Ok(Some(self.start + at)),
        }
    }

    /// A byte, 0 if absent.
    pub(super) fn u8(&self, slot: usize) -> Result<u8> {
        let at = self.field(slot, 1)?;
        Ok(at.map(|at| self.buffer.array::<1>(at)).transpose()?.map_or(0, |[byte]| byte))
    }

    /// A boolean, false if absent.
    pub(super) fn bool(&self, slot: usize) -> Result<bool> {
        Ok(self.u8(slot)? != 0)
    }

    /// A 32-bit integer, or `default` if absent.
    pub(super) fn i32(&self, slot: usize, default: i32) -> Result<i32> {
        let at = self.field(slot, 4)?;
        Ok(at.map(|at| self.buffer.array(at)).transpose()?.map_or(default, i32::from_le_bytes))
    }

    /// An unsigned 32-bit integer (an enum), 0 if absent.
    pub(super) fn u32(&self, slot: usize) -> Result<u32> {
        let at = self.field(slot, 4)?;
        Ok(at.map(|at| self.buffer.array(at)).transpose()?.map_or(0, u32::from_le_bytes))
    }

    /// An unsigned 64-bit integer, 0 if absent.
    pub(super) fn u64(&self, slot: usize) -> Result<u64> {
        let at = self.field(slot, 8)?;
        Ok(at.map(|at| self.buffer.array(at)).transpose()?.map_or(0, u64::from_le_bytes))
    }

    /// A table.
    pub(super) fn table(&self, slot: usize) -> Result<Option<Table<'b, 'a>>> {
        self.field(slot, 4)?.map(|at| self.buffer.table(at)).transpose()
    }

    /// A string.
    pub(super) fn string(&self, slot: usize) -> Result<Option<&'a str>> {
        self.field(slot, 4)?.map(|at| self.buffer.string(at)).transpose()
    }

    /// A vector of bytes, empty if absent.
    pub(super) fn bytes(&self, slot: usize) -> Result<&'a [u8]> {
        let Some(at) = self.field(slot, 4)? else { return Ok(&[]) };
        let (first, n) = self.buffer.vector(at, 1)?;
        Ok(&self.buffer.bytes[first..first + n])
    }

    /// A vector of 32-bit integers, empty if absent.
    pub(super) fn i32s(&self, slot: usize) -> Result<Vec<i32>> {
        self.each(slot, |buffer, at| buffer.array(at).map(i32::from_le_bytes))
    }

    /// A vector of strings, empty if absent.
    pub(super) fn strings(&self, slot: usize) -> Result<Vec<&'a str>> {
        self.each(slot, |buffer, at| buffer.string(at))
    }

    /// A vector of tables, empty if absent.
    pub(super) fn tables(&self, slot: usize) -> Result<Vec<Table<'b, 'a>>> {
        self.each(slot, |buffer, at| buffer.table(at))
    }

    /// A vector of elements of four bytes, each read by `read`.
    fn each<T>(&self, slot: usize, read: impl Fn(&'b Buffer<'a>, usize) -> Result<T>) -> Result<Vec<T>> {
        let Some(at) = self.field(slot, 4)? else { return Ok(Vec::new()) };
        let (first, n) = self.buffer.vector(at, 4)?;
        (0..n).map(|i| read(self.buffer, first + 4 * i)).collect()
    }
}
