//! The interchange format of allocation problems and plans: comma-separated rows.
//!
//! A problem has the columns `id,lower,upper,size`, and may have `alignment` and `fixed`; a plan has the
//! problem's columns and `offset`. Columns come in any order, others are ignored, and ids are any text.
//! Fields are not quoted.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use thiserror::Error;

use crate::allocate::Buffer;

/// The buffers of a file with the names that the file gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// The `id` column, row by row.
    pub names: Vec<String>,
    /// The buffers; the id of each is the number of its row, from zero.
    pub buffers: Vec<Buffer>,
}

/// A fault of one line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {fault}")]
pub struct CsvError {
    /// The number of the line, from one.
    pub line: usize,
    /// What is wrong with it.
    pub fault: CsvFault,
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CsvFault {
    /// The header lacks a column.
    #[error("the header has no column `{0}`")]
    MissingColumn(&'static str),
    /// The header has a column twice.
    #[error("the header has the column `{0}` twice")]
    RepeatedColumn(&'static str),
    /// The row has too few or too many fields.
    #[error("{found} fields where the header has {expected}")]
    FieldCount {
        /// Fields in the row.
        found: usize,
        /// Fields in the header.
        expected: usize,
    },
    /// A field is not a number of the right kind.
    #[error("`{text}` is no value for `{column}`")]
    NotANumber {
        /// The column.
        column: &'static str,
        /// What is written there.
        text: String,
    },
    /// A row has the id of an earlier one.
    #[error("the id `{0}` was used before")]
    RepeatedId(String),
}

/// The columns we know, by their place in the header.
struct Columns {
    id: usize,
    lower: usize,
    upper: usize,
    size: usize,
    alignment: Option<usize>,
    fixed: Option<usize>,
    count: usize,
}

/// Reads the buffers of a problem.
///
/// # Errors
///
/// All faults of the text, line by line; faults of the buffers themselves are for
/// [`AllocationProblem::validate`] to find.
///
/// [`AllocationProblem::validate`]: crate::allocate::AllocationProblem::validate
pub fn parse_csv(text: &str) -> Result<Sheet, Vec<CsvError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let (line, header) = lines.next().unwrap_or((1, ""));
    let columns = columns(header)
        .map_err(|faults| faults.into_iter().map(|fault| CsvError { line, fault }).collect::<Vec<_>>())?;
    let mut errors = Vec::new();
    let mut sheet = Sheet { names: Vec::new(), buffers: Vec::new() };
    let mut seen = BTreeSet::new();
    for (line, row) in lines {
        let fields: Vec<&str> = row.split(',').map(str::trim).collect();
        let mut faults = Vec::new();
        if fields.len() == columns.count {
            let id = u32::try_from(sheet.buffers.len()).unwrap_or(u32::MAX);
            let buffer = buffer(&columns, &fields, id, &mut faults);
            if !seen.insert(fields[columns.id].to_owned()) {
                faults.push(CsvFault::RepeatedId(fields[columns.id].to_owned()));
            }
            sheet.names.push(fields[columns.id].to_owned());
            sheet.buffers.push(buffer);
        } else {
            faults.push(CsvFault::FieldCount { found: fields.len(), expected: columns.count });
        }
        errors.extend(faults.into_iter().map(|fault| CsvError { line, fault }));
    }
    if errors.is_empty() { Ok(sheet) } else { Err(errors) }
}

fn columns(header: &str) -> Result<Columns, Vec<CsvFault>> {
    let names: Vec<&str> = header.split(',').map(str::trim).collect();
    let mut faults = Vec::new();
    let mut find = |name: &'static str, required: bool| {
        let mut places =
            names.iter().enumerate().filter(|(_, found)| **found == name).map(|(place, _)| place);
        let place = places.next();
        if place.is_none() && required {
            faults.push(CsvFault::MissingColumn(name));
        }
        if places.next().is_some() {
            faults.push(CsvFault::RepeatedColumn(name));
        }
        place
    };
    let columns = Columns {
        id: find("id", true).unwrap_or(0),
        lower: find("lower", true).unwrap_or(0),
        upper: find("upper", true).unwrap_or(0),
        size: find("size", true).unwrap_or(0),
        alignment: find("alignment", false),
        fixed: find("fixed", false),
        count: names.len(),
    };
    if faults.is_empty() { Ok(columns) } else { Err(faults) }
}

fn buffer(columns: &Columns, fields: &[&str], id: u32, faults: &mut Vec<CsvFault>) -> Buffer {
    fn number<T: std::str::FromStr>(
        field: &str,
        column: &'static str,
        default: T,
        faults: &mut Vec<CsvFault>,
    ) -> T {
        field.parse().unwrap_or_else(|_| {
            faults.push(CsvFault::NotANumber { column, text: field.to_owned() });
            default
        })
    }
    let given = |column: Option<usize>| column.map(|place| fields[place]).filter(|field| !field.is_empty());
    Buffer {
        id,
        lower: number(fields[columns.lower], "lower", 0, faults),
        upper: number(fields[columns.upper], "upper", 1, faults),
        size: number(fields[columns.size], "size", 0, faults),
        alignment: given(columns.alignment).map_or(1, |field| number(field, "alignment", 1, faults)),
        fixed: given(columns.fixed).map(|field| number(field, "fixed", 0, faults)),
    }
}

/// Writes a plan: the buffers in their order, with the offset of each.
///
/// The columns `alignment` and `fixed` are written if any buffer makes use of them.
#[must_use]
pub fn to_csv(sheet: &Sheet, offsets: &[u64]) -> String {
    let aligned = sheet.buffers.iter().any(|buffer| buffer.alignment != 1);
    let pinned = sheet.buffers.iter().any(|buffer| buffer.fixed.is_some());
    let mut text = String::from("id,lower,upper,size");
    text.push_str(if aligned { ",alignment" } else { "" });
    text.push_str(if pinned { ",fixed" } else { "" });
    text.push_str(",offset\n");
    for ((name, buffer), offset) in sheet.names.iter().zip(&sheet.buffers).zip(offsets) {
        let Buffer { lower, upper, size, alignment, fixed, .. } = buffer;
        // Writing to a string cannot fail.
        let _ = write!(text, "{name},{lower},{upper},{size}");
        if aligned {
            let _ = write!(text, ",{alignment}");
        }
        if pinned {
            let _ = write!(text, ",{}", fixed.map(|offset| offset.to_string()).unwrap_or_default());
        }
        let _ = writeln!(text, ",{offset}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_columns_in_any_order_and_writes_the_offset_last() {
        let sheet = parse_csv("size,id,upper,lower,fixed,note\r\n4,b1,3,0,,x\r\n\r\n8,b2,9,-3,16,y\r\n")
            .expect("the text is well formed");
        assert_eq!(sheet.names, ["b1", "b2"]);
        let second = Buffer { id: 1, lower: -3, upper: 9, size: 8, alignment: 1, fixed: Some(16) };
        assert_eq!(sheet.buffers[1], second);
        let written = to_csv(&sheet, &[0, 16]);
        assert_eq!(written, "id,lower,upper,size,fixed,offset\nb1,0,3,4,,0\nb2,-3,9,8,16,16\n");
        assert_eq!(parse_csv(&written), Ok(sheet));
    }

    #[test]
    fn all_faults_are_reported_with_their_lines() {
        let errors =
            parse_csv("id,lower,upper,size\na,0,1,-4\na,0,1,4\nb,0,1\nc,x,1,\n").expect_err("faulty");
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "line 2: `-4` is no value for `size`",
                "line 3: the id `a` was used before",
                "line 4: 3 fields where the header has 4",
                "line 5: `x` is no value for `lower`",
                "line 5: `` is no value for `size`",
            ]
        );
    }

    #[test]
    fn a_bad_header_is_one_fault_a_column() {
        let errors = parse_csv("id,id,lower").expect_err("faulty");
        let faults: Vec<CsvFault> = errors.into_iter().map(|error| error.fault).collect();
        assert_eq!(
            faults,
            [
                CsvFault::RepeatedColumn("id"),
                CsvFault::MissingColumn("upper"),
                CsvFault::MissingColumn("size")
            ]
        );
        assert!(parse_csv("").is_err());
    }
}
