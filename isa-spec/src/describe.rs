//! The instruction set as JSON, for programs that are not written in Rust: what a decoder, an encoder or a
//! disassembler of another language needs, from the same table as ours.
//!
//! It does not say what instructions compute: that is prose, in the manual and in `doc`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::codec::{MAGIC, VERSION};
use crate::field::Field;
use crate::form::Form;
use crate::inst::{
    Access, Axis, BinaryKind, Control, Elem, Head, InstInfo, Mapping, OperandRescale, ReduceKind, ResizeMode,
    SegmentKind, Tail, View, WeightAddr, Window,
};

#[derive(Serialize)]
struct InstructionSet {
    program: &'static str,
    magic: &'static str,
    version: u16,
    types: BTreeMap<&'static str, Form>,
    instructions: Vec<Instruction>,
}

#[derive(Serialize)]
struct Instruction {
    opcode: u16,
    mnemonic: &'static str,
    group: &'static str,
    doc: String,
    fields: Vec<InstructionField>,
}

#[derive(Serialize)]
struct InstructionField {
    name: &'static str,
    #[serde(rename = "type")]
    ty: &'static str,
    access: &'static str,
    doc: String,
}

const PROGRAM: &str = "little-endian; magic (4 bytes), version (u16), 0 (u16), number of instructions \
                       (u32), and the instructions: opcode (u16), bytes of the fields (u16), the fields in \
                       order";

/// The instruction set as JSON.
pub fn json() -> String {
    let groups = [("control", Control::TABLE), ("head", Head::TABLE), ("tail", Tail::TABLE)];
    let rows =
        groups.into_iter().flat_map(|(group, rows)| rows.iter().map(move |row| instruction(group, row)));
    let set = InstructionSet {
        program: PROGRAM,
        magic: std::str::from_utf8(&MAGIC).expect("the magic bytes are ASCII"),
        version: VERSION,
        types: types(),
        instructions: rows.collect(),
    };
    serde_json::to_string_pretty(&set).expect("names and numbers are JSON") + "\n"
}

fn instruction(group: &'static str, row: &InstInfo) -> Instruction {
    let words = |doc: &str| doc.split_whitespace().collect::<Vec<_>>().join(" ");
    let fields = row.fields.iter().map(|field| InstructionField {
        name: field.name,
        ty: field.ty,
        access: match field.access {
            Access::Read => "read",
            Access::Write => "write",
            Access::Immediate => "immediate",
        },
        doc: words(field.doc),
    });
    Instruction {
        opcode: row.opcode,
        mnemonic: row.mnemonic,
        group,
        doc: words(row.doc),
        fields: fields.collect(),
    }
}

/// The forms of types, by the names that the table has for them.
macro_rules! forms {
    ($($ty:ty),+ $(,)?) => {
        BTreeMap::from([$((stringify!($ty), <$ty as Field>::form())),+])
    };
}

/// The types of the table's fields.
fn types() -> BTreeMap<&'static str, Form> {
    forms![
        u8,
        u32,
        u64,
        i32,
        bool,
        [u32; 6],
        [u8; 6],
        Option<OperandRescale>,
        Axis,
        BinaryKind,
        Elem,
        Mapping,
        ReduceKind,
        ResizeMode,
        SegmentKind,
        View,
        WeightAddr,
        Window,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Inst;

    #[test]
    fn every_field_has_a_type_and_every_type_a_field() {
        let types = types();
        let used: Vec<&str> = Inst::table().iter().flat_map(|row| row.fields).map(|field| field.ty).collect();
        assert!(used.iter().all(|ty| types.contains_key(ty)), "{used:?}");
        assert!(types.keys().all(|ty| used.contains(ty)), "{types:?}");
    }
}
