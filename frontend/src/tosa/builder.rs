//! Writing flatbuffers whose schema is known, as a tree of values.
//!
//! A table stands before what it refers to, as the format's references lead forwards only, and its vtable
//! before it. Nothing is shared.
//!
//! # Source
//! FlatBuffers' internals: <https://flatbuffers.dev/internals/>.

use std::collections::BTreeMap;

/// A table: its fields by slot.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields(BTreeMap<usize, Value>);

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    U8(u8),
    I32(i32),
    U32(u32),
    Text(String),
    Texts(Vec<String>),
    /// Bytes at a multiple of eight.
    Bytes(Vec<u8>),
    I32s(Vec<i32>),
    Table(Fields),
    Tables(Vec<Fields>),
}

impl Fields {
    /// The same with one field more.
    pub(super) fn with(mut self, slot: usize, value: Value) -> Self {
        self.0.insert(slot, value);
        self
    }
}

impl Value {
    /// Bytes in the table itself.
    fn size(&self) -> usize {
        if matches!(self, Self::U8(_)) { 1 } else { 4 }
    }
}

/// A file that is being written.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

/// The bytes of a file with a root table and an identifier; `None` if it is beyond the 2 GiB that the format
/// can address.
pub(super) fn file(root: &Fields, identifier: &[u8; 4]) -> Option<Vec<u8>> {
    let mut writer = Writer::default();
    writer.bytes.extend([0; 4]);
    writer.bytes.extend(identifier);
    let at = writer.table(root);
    writer.refer(0, at);
    i32::try_from(writer.bytes.len()).ok()?;
    Some(writer.bytes)
}

impl Writer {
    /// Pads so that what stands `ahead` bytes further begins at a multiple of `to`.
    fn align(&mut self, to: usize, ahead: usize) {
        while !(self.bytes.len() + ahead).is_multiple_of(to) {
            self.bytes.push(0);
        }
    }

    /// Makes the reference at `from` lead to `to`. Distances beyond what it can hold are cut off: such a file
    /// is given up in the end.
    fn refer(&mut self, from: usize, to: usize) {
        self.set(from, ((to - from) as u32).to_le_bytes());
    }

    fn set<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&bytes);
    }

    fn push_len(&mut self, len: usize) {
        self.bytes.extend((len as u32).to_le_bytes());
    }

    /// Writes a table and all below it; gives where it stands.
    fn table(&mut self, Fields(fields): &Fields) -> usize {
        let n_slots = fields.last_key_value().map_or(0, |(slot, _)| slot + 1);
        let vtable_len = 4 + 2 * n_slots;
        self.align(4, vtable_len);
        let vtable = self.bytes.len();
        let table = vtable + vtable_len;
        // Fields of four bytes first, so that all stand at multiples of their size.
        let mut order: Vec<(usize, &Value)> = fields.iter().map(|(&slot, value)| (slot, value)).collect();
        order.sort_by_key(|(_, value)| std::cmp::Reverse(value.size()));
        let table_len = 4 + order.iter().map(|(_, value)| value.size()).sum::<usize>();
        self.bytes.resize(table + table_len, 0);
        self.set(vtable, (vtable_len as u16).to_le_bytes());
        self.set(vtable + 2, (table_len as u16).to_le_bytes());
        self.set(table, (vtable_len as i32).to_le_bytes());
        let mut at = table + 4;
        for (slot, value) in order {
            self.set(vtable + 4 + 2 * slot, ((at - table) as u16).to_le_bytes());
            match value {
                Value::U8(byte) => self.set(at, [*byte]),
                Value::I32(number) => self.set(at, number.to_le_bytes()),
                Value::U32(number) => self.set(at, number.to_le_bytes()),
                referred => {
                    let to = self.referred(referred);
                    self.refer(at, to);
                }
            }
            at += value.size();
        }
        table
    }

    /// Writes what a field refers to; gives where it stands.
    fn referred(&mut self, value: &Value) -> usize {
        match value {
            Value::Table(fields) => self.table(fields),
            Value::Text(text) => self.text(text),
            Value::Bytes(bytes) => {
                self.align(8, 4);
                let at = self.bytes.len();
                self.push_len(bytes.len());
                self.bytes.extend(bytes);
                at
            }
            Value::I32s(numbers) => {
                self.align(4, 0);
                let at = self.bytes.len();
                self.push_len(numbers.len());
                self.bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
                at
            }
            Value::Texts(texts) => self.references(texts, |writer, text| writer.text(text)),
            Value::Tables(tables) => self.references(tables, Self::table),
            // Scalars stand in the table.
            Value::U8(_) | Value::I32(_) | Value::U32(_) => self.bytes.len(),
        }
    }

    fn references<T>(&mut self, all: &[T], write: impl Fn(&mut Self, &T) -> usize) -> usize {
        self.align(4, 0);
        let at = self.bytes.len();
        self.push_len(all.len());
        self.bytes.resize(at + 4 + 4 * all.len(), 0);
        for (index, one) in all.iter().enumerate() {
            let to = write(self, one);
            self.refer(at + 4 + 4 * index, to);
        }
        at
    }

    fn text(&mut self, text: &str) -> usize {
        self.align(4, 0);
        let at = self.bytes.len();
        self.push_len(text.len());
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::super::flatbuffer::Buffer;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Fields::default().with(1, Value::U8(7)).with(0, Value::I32(-5));
        let root = Fields::default()
            .with(0, Value::Text("a name".to_owned()))
            .with(2, Value::Bytes(vec![1, 2, 3]))
            .with(3, Value::I32s(vec![-1, 2]))
            .with(5, Value::Tables(vec![inner.clone(), inner.clone()]))
            .with(6, Value::Texts(vec!["x".to_owned(), String::new()]))
            .with(7, Value::Table(inner))
            .with(8, Value::U32(9));
        let bytes = file(&root, b"TEST").expect("small");
        assert_eq!(&bytes[4..8], b"TEST");
        let buffer = Buffer::new(&bytes);
        let root = buffer.root().expect("a table");
        assert_eq!(root.string(0), Ok(Some("a name")));
        assert_eq!(root.string(1), Ok(None));
        assert_eq!(root.bytes(2), Ok(&[1, 2, 3][..]));
        assert_eq!(root.i32s(3), Ok(vec![-1, 2]));
        assert_eq!(root.strings(6), Ok(vec!["x", ""]));
        assert_eq!(root.u32(8), Ok(9));
        let inner = root.table(7).expect("whole").expect("present");
        assert_eq!((inner.i32(0, 0), inner.u8(1)), (Ok(-5), Ok(7)));
        let tables = root.tables(5).expect("whole");
        assert_eq!(tables.iter().map(|table| table.i32(0, 0)).collect::<Vec<_>>(), [Ok(-5), Ok(-5)]);
        let data = bytes.windows(3).position(|window| window == [1, 2, 3]).expect("there");
        assert_eq!(data % 8, 0, "other readers take bytes where they stand");
    }
}
