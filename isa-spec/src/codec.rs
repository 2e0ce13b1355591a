//! The binary form of a program.
//!
//! Little-endian. A header (`STRP`, format version, number of instructions), then the instructions: opcode
//! (`u16`), payload length (`u16`), and the fields in table order. A stage's head and tails follow its
//! `stage` instruction. Decoding bounds everything by the bytes that are there, never by what a count claims.

use std::fmt;

pub use crate::field::DecodeError;
use crate::field::{Field, FieldError, Reader};
use crate::inst::{
    BeginPhase, BeginStage, Control, DeclarePartition, DeclarePrefix, DeclareSegment, DeclareStream,
    EndPhase, Halt, Head, InstInfo, LoadWeights, Tail,
};
use crate::program::{Phase, Prefix, Program, Segment, Stage, StageCode, Stream, WeightLoad};

/// The first bytes of a program.
pub const MAGIC: [u8; 4] = *b"STRP";
/// The version of the format.
pub const VERSION: u16 = 1;

/// One instruction of the flat stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inst {
    /// Structure.
    Control(Control),
    /// A stage's head.
    Head(Head),
    /// A stage's tail.
    Tail(Tail),
}

impl Inst {
    /// Every row of the instruction table, by opcode.
    pub fn table() -> Vec<&'static InstInfo> {
        let mut rows: Vec<_> = Control::TABLE.iter().chain(Head::TABLE).chain(Tail::TABLE).collect();
        rows.sort_by_key(|row| row.opcode);
        rows
    }

    /// The opcode.
    pub fn opcode(&self) -> u16 {
        match self {
            Self::Control(i) => i.opcode(),
            Self::Head(i) => i.opcode(),
            Self::Tail(i) => i.opcode(),
        }
    }

    /// The mnemonic.
    pub fn mnemonic(&self) -> &'static str {
        match self {
            Self::Control(i) => i.mnemonic(),
            Self::Head(i) => i.mnemonic(),
            Self::Tail(i) => i.mnemonic(),
        }
    }

    /// Appends the payload.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Control(i) => i.put(out),
            Self::Head(i) => i.put(out),
            Self::Tail(i) => i.put(out),
        }
    }

    /// The fields by name, as text.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Control(i) => i.fields(),
            Self::Head(i) => i.fields(),
            Self::Tail(i) => i.fields(),
        }
    }

    fn decode(opcode: u16, reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        Ok(if let Some(i) = Control::get(opcode, reader)? {
            Some(Self::Control(i))
        } else if let Some(i) = Head::get(opcode, reader)? {
            Some(Self::Head(i))
        } else {
            Tail::get(opcode, reader)?.map(Self::Tail)
        })
    }

    /// The instruction that a mnemonic and its fields spell.
    pub(crate) fn parse(
        mnemonic: &str,
        fields: &mut dyn FnMut(&'static str) -> Option<String>,
    ) -> Result<Option<Self>, FieldError> {
        Ok(if let Some(i) = Control::parse(mnemonic, fields)? {
            Some(Self::Control(i))
        } else if let Some(i) = Head::parse(mnemonic, fields)? {
            Some(Self::Head(i))
        } else {
            Tail::parse(mnemonic, fields)?.map(Self::Tail)
        })
    }
}

/// The flat instruction stream of a program.
pub fn flatten(program: &Program) -> Vec<Inst> {
    let mut insts: Vec<Inst> = Vec::new();
    let control = Inst::Control;
    for (index, s) in program.segments.iter().enumerate() {
        insts.push(control(DeclareSegment { segment: index as u32, kind: s.kind, bytes: s.bytes }.into()));
    }
    for (index, s) in program.streams.iter().enumerate() {
        insts.push(control(
            DeclareStream {
                stream: index as u32,
                elem: s.elem,
                rows: s.rows,
                cols: s.cols,
                chs: s.chs,
                base: s.base,
                pitch_bytes: s.pitch_bytes,
                slots: s.slots,
            }
            .into(),
        ));
        insts.extend(s.prefix.map(|f| control(DeclarePrefix { prefix: f.stream, rows: f.rows }.into())));
    }
    for (index, phase) in program.phases.iter().enumerate() {
        insts.push(control(BeginPhase { phase: index as u32 }.into()));
        for (partition, &clusters) in phase.partitions.iter().enumerate() {
            insts.push(control(DeclarePartition { partition: partition as u32, clusters }.into()));
        }
        for load in &phase.loads {
            insts.push(control(LoadWeights { dst: load.dst, src: load.src, bytes: load.bytes }.into()));
        }
        for stage in &phase.stages {
            insts.push(control(
                BeginStage {
                    partition: stage.partition,
                    wait_loads: stage.wait_loads,
                    mapping: stage.mapping,
                    out: stage.code.out,
                    source: stage.source,
                }
                .into(),
            ));
            insts.push(Inst::Head(stage.code.head));
            insts.extend(stage.code.tail.iter().copied().map(Inst::Tail));
        }
        insts.push(control(EndPhase {}.into()));
    }
    insts.push(control(Halt {}.into()));
    insts
}

/// A program from its flat instruction stream; `at(i)` tells errors where instruction `i` stands.
///
/// # Errors
/// If instructions stand where the structure has no place for them.
pub(crate) fn assemble(insts: &[Inst], at: impl Fn(usize) -> usize) -> Result<Program, DecodeError> {
    let mut assembly = Assembly::default();
    for (index, inst) in insts.iter().enumerate() {
        assembly.push(inst).map_err(|reason| DecodeError { offset: at(index), reason })?;
    }
    if assembly.halted {
        Ok(assembly.program)
    } else {
        Err(DecodeError { offset: at(insts.len()), reason: "the program ends without `halt`".to_owned() })
    }
}

/// A program of which instructions are still to come.
#[derive(Default)]
struct Assembly {
    program: Program,
    phase: Option<Phase>,
    stage: Option<OpenStage>,
    halted: bool,
}

/// A stage of which the head or tails are still to come.
struct OpenStage {
    begin: BeginStage,
    head: Option<Head>,
    tail: Vec<Tail>,
}

impl Assembly {
    /// Adds the next instruction.
    fn push(&mut self, inst: &Inst) -> Result<(), String> {
        if self.halted {
            return Err(format!("`{}` after `halt`", inst.mnemonic()));
        }
        match (inst, &mut self.phase, &mut self.stage) {
            (Inst::Control(Control::DeclareSegment(d)), None, _) => {
                numbered("segment", d.segment, self.program.segments.len())?;
                self.program.segments.push(Segment { kind: d.kind, bytes: d.bytes });
            }
            (Inst::Control(Control::DeclareStream(d)), None, _) => self.declare_stream(d)?,
            (Inst::Control(Control::DeclarePrefix(d)), None, _) => {
                let last = self.program.streams.last_mut().filter(|last| last.prefix.is_none());
                let last = last.ok_or("`prefix` stands where no stream is to have one")?;
                last.prefix = Some(Prefix { stream: d.prefix, rows: d.rows });
            }
            (Inst::Control(Control::BeginPhase(b)), phase @ None, _) => {
                numbered("phase", b.phase, self.program.phases.len())?;
                *phase = Some(Phase::default());
            }
            (Inst::Control(Control::DeclarePartition(d)), Some(phase), None) => {
                numbered("partition", d.partition, phase.partitions.len())?;
                phase.partitions.push(d.clusters);
            }
            (Inst::Control(Control::LoadWeights(l)), Some(phase), None) => {
                phase.loads.push(WeightLoad { dst: l.dst, src: l.src, bytes: l.bytes });
            }
            (Inst::Control(Control::BeginStage(b)), Some(_), _) => {
                self.close_stage()?;
                self.stage = Some(OpenStage { begin: *b, head: None, tail: Vec::new() });
            }
            (Inst::Control(Control::EndPhase(_)), Some(_), _) => {
                self.close_stage()?;
                self.program.phases.extend(self.phase.take());
            }
            (Inst::Control(Control::Halt(_)), None, _) => self.halted = true,
            (Inst::Head(h), Some(_), Some(OpenStage { head: head @ None, .. })) => *head = Some(*h),
            (Inst::Tail(t), Some(_), Some(OpenStage { head: Some(_), tail, .. })) => tail.push(*t),
            _ => return Err(format!("`{}` has no place here", inst.mnemonic())),
        }
        Ok(())
    }

    /// Adds a stream that has no prefix yet.
    fn declare_stream(&mut self, d: &DeclareStream) -> Result<(), String> {
        numbered("stream", d.stream, self.program.streams.len())?;
        self.program.streams.push(Stream {
            elem: d.elem,
            rows: d.rows,
            cols: d.cols,
            chs: d.chs,
            base: d.base,
            pitch_bytes: d.pitch_bytes,
            slots: d.slots,
            prefix: None,
        });
        Ok(())
    }

    /// Adds the stage that is open, if any, to the phase.
    fn close_stage(&mut self) -> Result<(), &'static str> {
        let Some(OpenStage { begin, head, tail }) = self.stage.take() else { return Ok(()) };
        let head = head.ok_or("a stage has no head")?;
        let BeginStage { partition, wait_loads, mapping, out, source } = begin;
        let code = StageCode { head, tail, out };
        if let Some(phase) = &mut self.phase {
            phase.stages.push(Stage { partition, wait_loads, mapping, code, source });
        }
        Ok(())
    }
}

/// Checks that a declaration bears the number that is next.
fn numbered(what: &str, found: u32, expected: usize) -> Result<(), String> {
    if found as usize == expected {
        Ok(())
    } else {
        Err(format!("{what} {found} stands where {what} {expected} is expected"))
    }
}

/// The binary form of a program.
pub fn encode(program: &Program) -> Vec<u8> {
    let insts = flatten(program);
    let mut out = Vec::with_capacity(insts.len() * 48);
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(0u16.to_le_bytes());
    out.extend((insts.len() as u32).to_le_bytes());
    for inst in &insts {
        out.extend(inst.opcode().to_le_bytes());
        let at = out.len();
        out.extend([0, 0]);
        inst.put(&mut out);
        let len = (out.len() - at - 2) as u16;
        out[at..at + 2].copy_from_slice(&len.to_le_bytes());
    }
    out
}

/// The program that bytes encode.
///
/// # Errors
/// If they are not exactly one program of this version; the error names the offset.
pub fn decode(bytes: &[u8]) -> Result<Program, DecodeError> {
    let mut reader = Reader { bytes, at: 0, end: bytes.len() };
    let magic = reader.take::<4>()?;
    if magic != MAGIC {
        return Err(reader.error(4, format!("expected the magic bytes {MAGIC:?}, found {magic:?}")));
    }
    let version = u16::from_le_bytes(reader.take()?);
    if version != VERSION {
        return Err(reader.error(2, format!("format version {version}, this machine runs version {VERSION}")));
    }
    let flags = u16::from_le_bytes(reader.take()?);
    if flags != 0 {
        return Err(reader.error(2, format!("reserved bits are {flags:#x}, expected 0")));
    }
    let count = u32::get(&mut reader)?;
    let (mut insts, mut offsets) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let start = reader.at;
        reader.end = bytes.len();
        let opcode = u16::from_le_bytes(reader.take()?);
        let len = usize::from(u16::from_le_bytes(reader.take()?));
        reader.end = reader.at.saturating_add(len);
        if reader.end > bytes.len() {
            let have = bytes.len() - reader.at;
            return Err(reader.error(2, format!("an instruction of {len} bytes, of which {have} are there")));
        }
        let inst = Inst::decode(opcode, &mut reader)?
            .ok_or_else(|| DecodeError { offset: start, reason: format!("unknown opcode {opcode:#06x}") })?;
        if reader.at != reader.end {
            let extra = reader.end - reader.at;
            return Err(reader.error(0, format!("{extra} bytes too many for `{}`", inst.mnemonic())));
        }
        offsets.push(start);
        insts.push(inst);
    }
    if reader.at != bytes.len() {
        return Err(reader.error(0, format!("{} bytes after the last instruction", bytes.len() - reader.at)));
    }
    assemble(&insts, |index| offsets.get(index).copied().unwrap_or(bytes.len()))
}

impl fmt::Display for Inst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mnemonic())?;
        for (name, value) in self.fields() {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}
