//! Runs an ONNX file through the importer and the IR's evaluator:
//! ```text
//! run_onnx run MODEL --input NAME_OR_INDEX=FILE.npy … --output-dir DIR
//!     [--input-shape NAME=1x3x8x8] [--no-cross-check] [--reference]
//! ```
//! writes `DIR/0.npy` and so on; `--dump FILE` writes the module instead, as text.
//!
//! Exit codes: 0 done, 1 the model or the run failed, 2 wrong usage, 3 a valid model that is not supported.
//! With `--reference` tract runs the model instead.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use strata_frontend::import::{ImportError, ImportOptions, Imported, import};
use strata_frontend::reference::run_with_tract;
use strata_ir::eval::eval_function;
use strata_ir::{Tensor, TensorData, Type};

#[allow(clippy::print_stderr, reason = "a command line program")]
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("{message}");
            ExitCode::from(code)
        }
    }
}

type Failure = (u8, String);

struct Arguments {
    model: PathBuf,
    inputs: Vec<(String, PathBuf)>,
    output_dir: PathBuf,
    options: ImportOptions,
    reference: bool,
    verbose: bool,
    dump: Option<PathBuf>,
}

fn arguments() -> Result<Arguments, Failure> {
    let usage = |what: &str| (2, format!("run_onnx: {what}"));
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some("run") {
        return Err(usage("expected `run MODEL …`"));
    }
    let model = PathBuf::from(args.next().ok_or_else(|| usage("the model is missing"))?);
    let mut out = Arguments {
        model,
        inputs: Vec::new(),
        output_dir: PathBuf::from("."),
        options: ImportOptions::default(),
        reference: false,
        verbose: false,
        dump: None,
    };
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or_else(|| usage(&format!("{flag} needs a value")));
        match flag.as_str() {
            "--reference" => out.reference = true,
            "--verbose" => out.verbose = true,
            "--no-cross-check" => out.options.cross_check = false,
            "--dump" => out.dump = Some(PathBuf::from(value()?)),
            "--output-dir" => out.output_dir = PathBuf::from(value()?),
            "--input" => {
                let value = value()?;
                let (name, file) = value.rsplit_once('=').ok_or_else(|| usage("--input NAME=FILE"))?;
                out.inputs.push((name.to_owned(), PathBuf::from(file)));
            }
            "--input-shape" => {
                let value = value()?;
                let (name, shape) =
                    value.rsplit_once('=').ok_or_else(|| usage("--input-shape NAME=1x3x8x8"))?;
                let shape = shape.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>();
                out.options.input_shapes.insert(name.to_owned(), shape.map_err(|e| usage(&e.to_string()))?);
            }
            other => return Err(usage(&format!("unknown option {other}"))),
        }
    }
    Ok(out)
}

#[allow(clippy::print_stderr, reason = "a command line program")]
fn run() -> Result<(), Failure> {
    let args = arguments()?;
    let failed = |error: &dyn std::fmt::Display| (1, error.to_string());
    let bytes = std::fs::read(&args.model).map_err(|e| failed(&e))?;
    let mut given = Vec::new();
    for (_, file) in &args.inputs {
        given.push(read_npy(file)?);
    }
    let outputs = if args.reference {
        run_with_tract(&bytes, &given).map_err(|e| failed(&e))?.into_iter().map(|t| (t, "")).collect()
    } else {
        let imported = import(&bytes, &args.options).map_err(|error| {
            let code = if matches!(error, ImportError::Unsupported(_)) { 3 } else { 1 };
            (code, error.to_string().replace('\n', " "))
        })?;
        if let Some(path) = &args.dump {
            std::fs::write(path, strata_ir::text::to_string(&imported.module)).map_err(|e| failed(&e))?;
            return Ok(());
        }
        if args.verbose {
            eprintln!("{:?}", imported.cross_check);
            for op in imported.module.walk(imported.module.body()) {
                let data = imported.module.op(op);
                let ty =
                    data.results().first().map(|&v| imported.module.ty(v).to_string()).unwrap_or_default();
                if !data.op.is_constant() {
                    eprintln!("{} {ty} {}", data.op.name(), data.loc);
                }
            }
        }
        evaluate(&imported, &args.inputs, given)?
    };
    for (index, (output, dtype)) in outputs.iter().enumerate() {
        write_npy(&args.output_dir.join(format!("{index}.npy")), output, dtype)?;
    }
    Ok(())
}

/// Runs `main` on inputs in ONNX's layout and types, and gives outputs in ONNX's layout and types.
fn evaluate(
    imported: &Imported,
    named: &[(String, PathBuf)],
    given: Vec<Tensor>,
) -> Result<Vec<(Tensor, &'static str)>, Failure> {
    let module = &imported.module;
    let func = module.function("main").ok_or((1, "no main".to_owned()))?;
    let args = module.args(module.entry_block(func)).to_vec();
    let mut inputs = Vec::new();
    for (index, port) in imported.inputs.iter().enumerate() {
        let by_name = |(name, _): &(String, PathBuf)| *name == port.name || *name == index.to_string();
        let at = named.iter().position(by_name).ok_or((2, format!("input `{}` is missing", port.name)))?;
        let internal = permuted(&given[at], &port.perm);
        let Type::Tensor(ty) = module.ty(args[index]) else { return Err((1, "argument".to_owned())) };
        let data = match internal.data().to_ints() {
            Some(ints) if ty.elem == strata_ir::ElemType::I32 => {
                let narrow = ints.iter().map(|&v| i32::try_from(v)).collect::<Result<Vec<_>, _>>();
                TensorData::I32(narrow.map_err(|_| (3, "an input beyond 32 bits".to_owned()))?)
            }
            _ => internal.data().clone(),
        };
        inputs.push(Tensor::new(internal.shape().to_vec(), data));
    }
    let results = eval_function(module, func, inputs).map_err(|e| (1, e.to_string()))?;
    let external = |(tensor, port): (Tensor, &strata_frontend::import::Port)| {
        let tensor = permuted(&tensor, &port.perm);
        let ints = tensor.data().to_ints();
        let data = match (port.dtype, ints) {
            ("i64", Some(ints)) => TensorData::I64(ints),
            ("i8" | "u8", Some(ints)) => TensorData::I8(ints.iter().map(|&v| v as i8).collect()),
            _ => tensor.data().clone(),
        };
        (Tensor::new(tensor.shape().to_vec(), data), port.dtype)
    };
    let outputs = results.into_iter().zip(&imported.outputs).map(external).collect::<Vec<_>>();
    Ok(outputs)
}

fn permuted(tensor: &Tensor, perm: &[usize]) -> Tensor {
    let shape: Vec<_> = perm.iter().map(|&axis| tensor.shape()[axis]).collect();
    let mut strides = vec![1; perm.len()];
    for axis in (1..perm.len()).rev() {
        strides[axis - 1] = strides[axis] * tensor.shape()[axis];
    }
    let mut places = vec![0usize];
    for (&axis, &extent) in perm.iter().zip(&shape) {
        places = places
            .iter()
            .flat_map(|&base| (0..extent).map(move |i| (base, i)))
            .map(|(base, i)| base + i * strides[axis])
            .collect();
    }
    let data = match tensor.data() {
        TensorData::F32(v) => TensorData::F32(places.iter().map(|&p| v[p]).collect()),
        other => {
            let ints = other.to_ints().unwrap_or_default();
            let data = TensorData::from_ints(other.elem(), places.iter().map(|&p| ints[p]));
            data.unwrap_or_else(|| other.clone())
        }
    };
    Tensor::new(shape, data)
}

fn read_npy(path: &Path) -> Result<Tensor, Failure> {
    let bad = |what: &str| (1, format!("{}: {what}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| bad(&e.to_string()))?;
    let header_len = match bytes.get(..10) {
        Some([0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, low, high]) => {
            usize::from(u16::from_le_bytes([*low, *high]))
        }
        _ => return Err(bad("not a version 1 .npy file")),
    };
    let header =
        bytes.get(10..10 + header_len).map(String::from_utf8_lossy).ok_or_else(|| bad("truncated"))?;
    let body = &bytes[10 + header_len..];
    let after = |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ', '\'']));
    let shape = after("'shape'")
        .and_then(|s| s.trim_start_matches('(').split_once(')'))
        .ok_or_else(|| bad("shape"))?
        .0;
    let shape: Vec<usize> = shape.split(',').filter_map(|e| e.trim().parse().ok()).collect();
    if header.contains("'fortran_order': True") {
        return Err((3, "fortran order".to_owned()));
    }
    let kind = after("'descr'").and_then(|d| d.split('\'').next()).unwrap_or_default().to_owned();
    let elem = match kind.as_str() {
        "<f4" => strata_ir::ElemType::F32,
        "<i4" => strata_ir::ElemType::I32,
        "<i8" => strata_ir::ElemType::I64,
        "|b1" => strata_ir::ElemType::I1,
        "|i1" => strata_ir::ElemType::I8,
        "|u1" => {
            let data = TensorData::I32(body.iter().map(|&b| i32::from(b)).collect());
            return Ok(Tensor::new(shape, data));
        }
        other => return Err((3, format!("inputs of type {other}"))),
    };
    let data = TensorData::from_bytes(elem, body).ok_or_else(|| bad("truncated"))?;
    Ok(Tensor::new(shape, data))
}

fn write_npy(path: &Path, tensor: &Tensor, dtype: &str) -> Result<(), Failure> {
    let kind = match tensor.data() {
        TensorData::F32(_) => "<f4",
        TensorData::I1(_) => "|b1",
        TensorData::I8(_) if dtype == "u8" => "|u1",
        TensorData::I8(_) => "|i1",
        TensorData::I32(_) => "<i4",
        _ => "<i8",
    };
    let shape: String = tensor.shape().iter().map(|e| format!("{e}, ")).collect();
    let mut header =
        format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({}), }}", shape.trim_end());
    while !(header.len() + 11).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(tensor.data().to_bytes());
    std::fs::write(path, bytes).map_err(|e| (1, e.to_string()))
}
