//! The text form of a program: one instruction a line, `mnemonic field=value …`, `;` begins a comment.
//!
//! [`disassemble`] and [`parse`] are exact inverses but for comments and white space.

use crate::codec::{Inst, assemble, flatten};
use crate::field::FieldError;
use crate::inst::{Control, Head};
use crate::program::Program;

/// Why text is not a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct AsmError {
    /// The line, counted from 1.
    pub line: usize,
    /// What was found and what was expected.
    pub reason: String,
}

/// The text of a program. `names` are the debug names that `source` fields index; they stand in comments.
pub fn disassemble(program: &Program, names: &[String]) -> String {
    let mut text = String::new();
    let mut inside = false;
    for inst in flatten(program) {
        match &inst {
            Inst::Control(Control::BeginPhase(_)) => inside = true,
            Inst::Control(Control::EndPhase(_)) => inside = false,
            _ => {}
        }
        let begins = matches!(inst, Inst::Control(Control::BeginPhase(_)));
        let depth = match &inst {
            Inst::Head(_) | Inst::Tail(_) => 2,
            _ if inside && !begins => 1,
            _ => 0,
        };
        if begins {
            text.push('\n');
        }
        text.push_str(&"  ".repeat(depth));
        text.push_str(&inst.to_string());
        if let Inst::Control(Control::BeginStage(stage)) = &inst
            && let Some(name) = names.get(stage.source as usize)
        {
            text.push_str("  ; ");
            text.push_str(&name.replace(['\n', '\r'], " "));
        }
        text.push('\n');
    }
    text
}

/// Splits `field=value` words; values in parentheses may hold spaces.
fn words(line: &str) -> Vec<&str> {
    let (mut all, mut depth, mut start) = (Vec::new(), 0usize, None);
    for (at, c) in line.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c.is_whitespace() && depth == 0 {
            if let Some(from) = start.take() {
                all.push(&line[from..at]);
            }
        } else if start.is_none() {
            start = Some(at);
        }
    }
    all.extend(start.map(|from| &line[from..]));
    all
}

/// The program that text spells.
///
/// # Errors
/// If a line is not an instruction, or the instructions do not make a program; the error names the line.
pub fn parse(text: &str) -> Result<Program, AsmError> {
    let (mut insts, mut lines) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let fail = |reason: String| AsmError { line: number + 1, reason };
        let code = line.split(';').next().unwrap_or_default();
        let mut parts = words(code).into_iter();
        let Some(mnemonic) = parts.next() else { continue };
        let mut fields = Vec::new();
        for part in parts {
            let (name, value) =
                part.split_once('=').ok_or_else(|| fail(format!("expected field=value, found `{part}`")))?;
            fields.push((name, Some(value.to_owned())));
        }
        let mut take = |wanted: &'static str| {
            fields.iter_mut().find(|(name, value)| *name == wanted && value.is_some())?.1.take()
        };
        let inst = Inst::parse(mnemonic, &mut take)
            .map_err(|FieldError { field, reason }| fail(format!("`{mnemonic}`: field `{field}`: {reason}")))?
            .ok_or_else(|| fail(format!("unknown instruction `{mnemonic}`")))?;
        if let Some((name, _)) = fields.iter().find(|(_, value)| value.is_some()) {
            return Err(fail(format!("`{mnemonic}` has no field `{name}`, or it stands twice")));
        }
        insts.push(inst);
        lines.push(number + 1);
    }
    let end = text.lines().count() + 1;
    assemble(&insts, |index| lines.get(index).copied().unwrap_or(end))
        .map_err(|e| AsmError { line: e.offset, reason: e.reason })
}

/// The instruction manual, in Markdown, from the table.
pub fn manual() -> String {
    let mut text = String::from(
        "# The instruction set\n\nGenerated from the instruction table; do not edit.\n\n\
         All numbers are little-endian. An instruction is its opcode (`u16`), the length of its fields in \
         bytes (`u16`), and the fields in the order given. A `View` is \
         `s<stream>[row0+rows,col0+cols,ch0+chs]`.\n",
    );
    let groups = [
        ("Structure and weight loads", Control::TABLE),
        ("Stage heads", Head::TABLE),
        ("Stage tails", crate::inst::Tail::TABLE),
    ];
    for (title, rows) in groups {
        text.push_str(&format!("\n## {title}\n"));
        for row in rows {
            text.push_str(&format!("\n### `{}` ({:#06x})\n\n", row.mnemonic, row.opcode));
            text.push_str(&row.doc.lines().map(str::trim).collect::<Vec<_>>().join("\n"));
            text.push('\n');
            if !row.fields.is_empty() {
                text.push_str("\n| field | type | access | meaning |\n|---|---|---|---|\n");
            }
            for field in row.fields {
                let doc = field.doc.split_whitespace().collect::<Vec<_>>().join(" ");
                let access = match field.access {
                    crate::inst::Access::Read => "read",
                    crate::inst::Access::Write => "write",
                    crate::inst::Access::Immediate => "immediate",
                };
                text.push_str(&format!("| `{}` | `{}` | {access} | {doc} |\n", field.name, field.ty));
            }
        }
    }
    text.push_str(include_str!("memory_rules.md"));
    text
}
