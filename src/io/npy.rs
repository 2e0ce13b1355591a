//! NumPy's `.npy` and `.npz`, read and written.
//!
//! Read: plain arrays of the types of [`DType`], of either byte order, in C or Fortran order. Not read:
//! complex numbers, strings, records and pickled objects. Written: C order, little-endian.

use std::io::{Cursor, Read, Write as _};

use npyz::half::f16;
use npyz::{DType as FileType, NpyFile, NpyHeader, Order, TypeChar, WriterBuilder as _};

use super::array::{Array, ArrayError, DType, n_elements};

/// Why bytes are no array.
#[derive(Debug, thiserror::Error)]
pub enum NpyError {
    /// Not the format, or cut short.
    #[error("not a .npy file: {0}")]
    Malformed(String),
    /// Elements that Strata has no type for.
    #[error(
        "elements of type {found} are not supported; those of {} are",
        DType::ALL.map(DType::name).join(", ")
    )]
    Type {
        /// The type in NumPy's notation.
        found: String,
    },
    /// Fewer or more bytes than the header promises.
    #[error("the header promises {expected} bytes of data, found {found}")]
    Length {
        /// Bytes of the shape's elements, saturated.
        expected: usize,
        /// Bytes after the header.
        found: usize,
    },
    /// A value that an [`Array`] cannot hold.
    #[error(transparent)]
    Array(#[from] ArrayError),
    /// Not a ZIP archive, or a damaged one.
    #[error("not a .npz file: {0}")]
    Archive(String),
    /// An entry of an archive.
    #[error("entry `{name}`: {source}")]
    Entry {
        /// The array's name.
        name: String,
        /// What is wrong with it.
        source: Box<NpyError>,
    },
}

/// Bytes of a header at most; those of plain arrays take about 120.
const MAX_HEADER_BYTES: usize = 1024;
/// Bytes of an archive's entry at most.
const MAX_ENTRY_BYTES: u64 = 1 << 34;

/// Refuses headers that the parser would answer with a panic or not at all: overlong or deeply nested ones,
/// and extents whose product overflows. With 19 digits in all, no product of numbers exceeds 64 bits.
fn check_header(bytes: &[u8]) -> Result<(), NpyError> {
    let malformed = |reason: &str| NpyError::Malformed(reason.to_owned());
    let (prefix, rest) = bytes.split_at_checked(8).ok_or_else(|| malformed("cut short in its header"))?;
    if !prefix.starts_with(b"\x93NUMPY") {
        return Err(malformed("it does not begin as one"));
    }
    let (length, text) = match (prefix[6], rest) {
        (1, [a, b, text @ ..]) => (usize::from(u16::from_le_bytes([*a, *b])), text),
        (2 | 3, [a, b, c, d, text @ ..]) => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, text),
        (1..=3, _) => return Err(malformed("cut short in its header")),
        (version, _) => return Err(malformed(&format!("version {version} of the format"))),
    };
    if length > MAX_HEADER_BYTES {
        return Err(malformed(&format!("a header of {length} bytes, at most {MAX_HEADER_BYTES} are read")));
    }
    let text = text.get(..length).ok_or_else(|| malformed("cut short in its header"))?;
    let count = |what: fn(&u8) -> bool| text.iter().filter(|byte| what(byte)).count();
    if count(u8::is_ascii_digit) > 19 || count(|byte| b"([{".contains(byte)) > 8 {
        return Err(malformed("its header is not that of a plain array"));
    }
    Ok(())
}

/// The element type of a header.
fn element_type(header: &NpyHeader) -> Result<DType, NpyError> {
    let FileType::Plain(found) = header.dtype() else {
        return Err(NpyError::Type { found: "record".to_owned() });
    };
    Ok(match (found.type_char(), found.size_field()) {
        (TypeChar::Bool, 1) => DType::Bool,
        (TypeChar::Uint, 1) => DType::U8,
        (TypeChar::Uint, 2) => DType::U16,
        (TypeChar::Uint, 4) => DType::U32,
        (TypeChar::Uint, 8) => DType::U64,
        (TypeChar::Int, 1) => DType::I8,
        (TypeChar::Int, 2) => DType::I16,
        (TypeChar::Int, 4) => DType::I32,
        (TypeChar::Int, 8) => DType::I64,
        (TypeChar::Float, 2) => DType::F16,
        (TypeChar::Float, 4) => DType::F32,
        (TypeChar::Float, 8) => DType::F64,
        _ => return Err(NpyError::Type { found: found.to_string() }),
    })
}

/// The header of a `.npy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The shape.
    pub shape: Vec<usize>,
    /// The element type.
    pub dtype: DType,
    /// Whether the first axis is the innermost.
    pub is_fortran: bool,
    /// Bytes of the header; elements follow.
    pub length: usize,
    /// The element type in NumPy's notation, with the order of bytes.
    descr: String,
}

impl Header {
    /// That of an array of a type as Strata writes it: C order, little-endian.
    pub(super) fn of(dtype: DType, shape: &[usize]) -> Self {
        let order = if dtype.size_bytes() == 1 { '|' } else { '<' };
        let kind = match dtype {
            DType::Bool => 'b',
            DType::U8 | DType::U16 | DType::U32 | DType::U64 => 'u',
            DType::I8 | DType::I16 | DType::I32 | DType::I64 => 'i',
            DType::F16 | DType::F32 | DType::F64 => 'f',
        };
        let descr = format!("{order}{kind}{}", dtype.size_bytes());
        let mut header = Self { shape: shape.to_vec(), dtype, is_fortran: false, length: 0, descr };
        header.length = header.with_shape(shape).len();
        header
    }

    /// The bytes of a header of such elements in this order, of another shape.
    pub(super) fn with_shape(&self, shape: &[usize]) -> Vec<u8> {
        let extents: String = shape.iter().map(|extent| format!("{extent},")).collect();
        let descr = &self.descr;
        let order = if self.is_fortran { "True" } else { "False" };
        let mut text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({extents}), }}");
        // Elements begin at a multiple of 64 bytes.
        let end = (10 + text.len() + 1).next_multiple_of(64) - 11;
        text.extend(std::iter::repeat_n(' ', end - text.len()));
        text.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.into_bytes());
        bytes
    }
}

/// Reads the header of a `.npy`; what is read next are its elements.
///
/// # Errors
/// If it is none, or of elements that Strata has no type for.
pub(super) fn read_header(reader: &mut dyn Read) -> Result<Header, NpyError> {
    let malformed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => NpyError::Malformed("cut short in its header".to_owned()),
        _ => NpyError::Malformed(e.to_string()),
    };
    let mut bytes = vec![0; 10];
    reader.read_exact(&mut bytes).map_err(malformed)?;
    let mut length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    if matches!(bytes[6], 2 | 3) {
        bytes.resize(12, 0);
        reader.read_exact(&mut bytes[10..]).map_err(malformed)?;
        length = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
    }
    let prefix = bytes.len();
    bytes.resize(prefix + length.min(MAX_HEADER_BYTES + 1), 0);
    if bytes.starts_with(b"\x93NUMPY") {
        reader.read_exact(&mut bytes[prefix..]).map_err(malformed)?;
    }
    check_header(&bytes)?;
    let header = NpyHeader::from_reader(&mut &bytes[..]).map_err(malformed)?;
    let dtype = element_type(&header)?;
    let descr = match header.dtype() {
        FileType::Plain(found) => found.to_string(),
        _ => String::new(),
    };
    let extent = |&extent: &u64| usize::try_from(extent).unwrap_or(usize::MAX);
    let shape = header.shape().iter().map(extent).collect();
    let (is_fortran, length) = (header.order() == Order::Fortran, bytes.len());
    Ok(Header { shape, dtype, is_fortran, length, descr })
}

fn read_values(file: NpyFile<&[u8]>, dtype: DType) -> std::io::Result<Vec<f64>> {
    fn all<T: npyz::Deserialize>(file: NpyFile<&[u8]>, to: impl Fn(T) -> f64) -> std::io::Result<Vec<f64>> {
        file.data::<T>().map_err(std::io::Error::other)?.map(|value| value.map(&to)).collect()
    }
    match dtype {
        DType::Bool => all(file, |value: bool| f64::from(u8::from(value))),
        DType::U8 => all(file, |value: u8| f64::from(value)),
        DType::U16 => all(file, |value: u16| f64::from(value)),
        DType::U32 => all(file, |value: u32| f64::from(value)),
        DType::U64 => all(file, |value: u64| value as f64),
        DType::I8 => all(file, |value: i8| f64::from(value)),
        DType::I16 => all(file, |value: i16| f64::from(value)),
        DType::I32 => all(file, |value: i32| f64::from(value)),
        DType::I64 => all(file, |value: i64| value as f64),
        DType::F16 => all(file, f16::to_f64),
        DType::F32 => all(file, |value: f32| f64::from(value)),
        DType::F64 => all(file, |value: f64| value),
    }
}

/// The elements of an array of 64-bit integers, exactly.
fn read_integers(file: NpyFile<&[u8]>, dtype: DType) -> std::io::Result<Vec<i128>> {
    match dtype {
        DType::U64 => file.data::<u64>().map_err(std::io::Error::other)?.map(|v| v.map(i128::from)).collect(),
        _ => file.data::<i64>().map_err(std::io::Error::other)?.map(|v| v.map(i128::from)).collect(),
    }
}

/// Values in C order, of values in Fortran order.
fn from_fortran<T: Copy>(shape: &[usize], values: &[T]) -> Vec<T> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = 1;
    for &extent in shape {
        strides.push(stride);
        stride *= extent;
    }
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    let mut ordered = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        ordered.push(values[at]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    ordered
}

impl Array {
    /// Reads a `.npy` file.
    ///
    /// # Errors
    /// If the bytes are not one, its elements have another type, or one is an integer beyond 2^53.
    pub fn from_npy(bytes: &[u8]) -> Result<Self, NpyError> {
        check_header(bytes)?;
        let malformed = |e: std::io::Error| NpyError::Malformed(e.to_string());
        let mut data = bytes;
        let header = NpyHeader::from_reader(&mut data).map_err(malformed)?;
        let dtype = element_type(&header)?;
        let extent = |&extent: &u64| usize::try_from(extent).unwrap_or(usize::MAX);
        let shape: Vec<usize> = header.shape().iter().map(extent).collect();
        let expected = n_elements(&shape).unwrap_or(usize::MAX).saturating_mul(dtype.size_bytes());
        if expected != data.len() {
            return Err(NpyError::Length { expected, found: data.len() });
        }
        let order = header.order();
        let mut values = read_values(NpyFile::with_header(header, data), dtype).map_err(malformed)?;
        if order == Order::Fortran {
            values = from_fortran(&shape, &values);
        }
        // 2^53 + 1 becomes 2^53 as it is read: the limit itself must be refused too.
        if matches!(dtype, DType::I64 | DType::U64) {
            let limit = 2f64.powi(53);
            if let Some(index) = values.iter().position(|value| value.abs() >= limit) {
                let header = NpyHeader::from_reader(&mut &bytes[..]).map_err(malformed)?;
                let integers = read_integers(NpyFile::with_header(header, data), dtype).map_err(malformed)?;
                let integers =
                    if order == Order::Fortran { from_fortran(&shape, &integers) } else { integers };
                return Err(ArrayError::Inexact { index, value: integers[index], dtype }.into());
            }
        }
        Ok(Self::new(shape, dtype, values)?)
    }

    /// The bytes of a `.npy` file. Values that are not of the array's type are brought to the nearest that
    /// is, NaN in an integer array to zero.
    pub fn to_npy(&self) -> Vec<u8> {
        match self.dtype {
            DType::Bool => self.write(|value| value != 0.0),
            DType::U8 => self.write(|value| value as u8),
            DType::U16 => self.write(|value| value as u16),
            DType::U32 => self.write(|value| value as u32),
            DType::U64 => self.write(|value| value as u64),
            DType::I8 => self.write(|value| value as i8),
            DType::I16 => self.write(|value| value as i16),
            DType::I32 => self.write(|value| value as i32),
            DType::I64 => self.write(|value| value as i64),
            DType::F16 => self.write(f16::from_f64),
            DType::F32 => self.write(|value| value as f32),
            DType::F64 => self.write(|value| value),
        }
    }

    /// The elements as [`to_npy`](Self::to_npy) writes them, without the header.
    pub(super) fn to_le_bytes(&self) -> Vec<u8> {
        let mut bytes = self.to_npy();
        let length = self.values.len() * self.dtype.size_bytes();
        bytes.drain(..bytes.len() - length);
        bytes
    }

    fn write<T: npyz::AutoSerialize>(&self, to: impl Fn(f64) -> T) -> Vec<u8> {
        let shape: Vec<u64> = self.shape.iter().map(|&extent| extent as u64).collect();
        let mut bytes = Vec::with_capacity(128 + self.values.len() * self.dtype.size_bytes());
        let written =
            npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes).begin_nd().and_then(
                |mut writer| {
                    writer.extend(self.values.iter().map(|&value| to(value)))?;
                    writer.finish()
                },
            );
        written.expect("memory takes all that is written, and an array's values fill its shape");
        bytes
    }
}

/// The arrays of a `.npz` archive with their names, in its order.
///
/// # Errors
/// If the bytes are not an archive, or an entry of it is not an array.
pub fn from_npz(bytes: &[u8]) -> Result<Vec<(String, Array)>, NpyError> {
    let archive = |e: &dyn std::fmt::Display| NpyError::Archive(e.to_string());
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| archive(&e))?;
    let mut arrays = Vec::with_capacity(zip.len());
    for index in 0..zip.len() {
        let file = zip.by_index(index).map_err(|e| archive(&e))?;
        let path = file.name().map_err(|e| archive(&e))?.into_owned();
        let name = npyz::npz::array_name_from_file_name(&path).unwrap_or(&path).to_owned();
        let mut content = Vec::new();
        file.take(MAX_ENTRY_BYTES)
            .read_to_end(&mut content)
            .map_err(|e| archive(&format!("`{name}`: {e}")))?;
        let array = Array::from_npy(&content);
        let array =
            array.map_err(|source| NpyError::Entry { name: name.clone(), source: Box::new(source) })?;
        arrays.push((name, array));
    }
    Ok(arrays)
}

/// The bytes of a `.npz` archive, uncompressed.
///
/// # Errors
/// If two arrays have one name, or the archive grows beyond the format's limits.
pub fn to_npz(arrays: &[(String, Array)]) -> Result<Vec<u8>, NpyError> {
    let archive = |e: zip::result::ZipError| NpyError::Archive(e.to_string());
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, array) in arrays {
        let content = array.to_npy();
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .large_file(content.len() as u64 >= u64::from(u32::MAX));
        zip.start_file(npyz::npz::file_name_from_array_name(name), options).map_err(archive)?;
        zip.write_all(&content).map_err(|e| NpyError::Archive(e.to_string()))?;
    }
    Ok(zip.finish().map_err(archive)?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn every_type_reads_back() {
        for dtype in DType::ALL {
            let (least, greatest) = dtype.int_range().unwrap_or((-1.5, 64.0));
            let edge = if matches!(dtype, DType::I64 | DType::U64) { greatest - 1.0 } else { greatest };
            let least = if dtype == DType::I64 { least + 1.0 } else { least };
            let array = Array::new(vec![1, 3], dtype, vec![least, edge, 1.0]).expect("an array");
            assert_eq!(Array::from_npy(&array.to_npy()).expect("reads back"), array);
        }
        let scalar = Array::f32(vec![], vec![f32::NEG_INFINITY]);
        assert_eq!(Array::from_npy(&scalar.to_npy()).expect("reads back"), scalar);
        let empty = Array::f32(vec![0, 7], vec![]);
        assert_eq!(Array::from_npy(&empty.to_npy()).expect("reads back"), empty);
    }

    #[test]
    fn headers_read_back() {
        for (dtype, shape) in
            DType::ALL.into_iter().zip([vec![], vec![7], vec![2, 3], vec![0, 4]].iter().cycle())
        {
            let header = Header::of(dtype, shape);
            let mut bytes = header.with_shape(shape);
            assert_eq!(read_header(&mut &bytes[..]).expect("a header"), header);
            let array =
                Array::new(shape.clone(), dtype, vec![1.0; shape.iter().product()]).expect("an array");
            bytes.extend(array.to_le_bytes());
            assert_eq!(Array::from_npy(&bytes).expect("an array"), array);
        }
    }

    #[test]
    fn fortran_order_and_big_endian_are_understood() {
        let header = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }";
        let data: Vec<u8> = [1i16, 4, 2, 5, 3, 6].iter().flat_map(|v| v.to_be_bytes()).collect();
        let array = Array::from_npy(&file(header, &data)).expect("an array");
        assert_eq!((array.shape, array.dtype), (vec![2, 3], DType::I16));
        assert_eq!(array.values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn large_integers_are_refused() {
        let header = "{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }";
        let refused = Array::from_npy(&file(header, &((1i64 << 53) + 1).to_le_bytes()));
        let told = refused.expect_err("refused").to_string();
        assert!(told.starts_with("element 0 is 9007199254740993: of i64 only integers of less"), "{told}");
        let header_of_two = "{'descr': '<u8', 'fortran_order': True, 'shape': (2, 2), }";
        let data: Vec<u8> = [1, 2, 3 << 60, 4u64].iter().flat_map(|v| v.to_le_bytes()).collect();
        let told = Array::from_npy(&file(header_of_two, &data)).expect_err("refused").to_string();
        assert!(told.starts_with(&format!("element 1 is {}: of u64", 3u64 << 60)), "{told}");
        let taken = Array::from_npy(&file(header, &((1i64 << 53) - 1).to_le_bytes()));
        assert_eq!(taken.expect("exact").values, [9_007_199_254_740_991.0]);
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        let bytes = Array::f32(vec![2, 2], vec![1.0; 4]).to_npy();
        for length in 0..bytes.len() {
            assert!(Array::from_npy(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn hostile_headers_are_errors() {
        let shapes =
            ["(4294967296, 4294967296)", "(9999999999999999999, 2)", "(-1,)", "((((((((((((1", "{", "(1.5,)"];
        for shape in shapes {
            let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
            assert!(Array::from_npy(&file(&header, &[0; 4])).is_err(), "{shape}");
        }
        for descr in ["'<c8'", "'|O'", "'<U4'", "[('a', '<f4')]"] {
            let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}");
            assert!(
                matches!(Array::from_npy(&file(&header, &[0; 4])), Err(NpyError::Type { .. })),
                "{descr}"
            );
        }
        assert!(Array::from_npy(&file(&"(".repeat(900), &[])).is_err());
    }

    #[test]
    fn archives_read_back() {
        let arrays = vec![
            ("left".to_owned(), Array::f32(vec![2], vec![1.0, 2.0])),
            ("right".to_owned(), Array::new(vec![1], DType::U8, vec![7.0]).expect("an array")),
        ];
        let bytes = to_npz(&arrays).expect("written");
        assert_eq!(from_npz(&bytes).expect("read"), arrays);
        assert!(matches!(from_npz(&bytes[..40]), Err(NpyError::Archive(_))));
        assert!(matches!(from_npz(b"no archive"), Err(NpyError::Archive(_))));
    }
}
