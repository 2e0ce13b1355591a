//! Evaluates a module's `@main` for an outside judge: `evaluate MODULE.mlir DIR` reads `DIR/in<i>.npy`,
//! writes the evaluator's `DIR/out<i>.npy`, and the function alone as `DIR/case.mlir`.
//!
//! The module's constants stand in its text or in `constants.resources` beside it, as `--dump-levels` writes
//! them. What is left out of `case.mlir` are other functions, such as the
//! part of a network that stays on the host. `tests/judges/tosa.py DIR` runs the same case through the TOSA
//! reference model.

#[path = "support/npy.rs"]
mod npy;

use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use npyz::{Deserialize, NpyFile};
use strata_ir::dialect::Op;
use strata_ir::eval::eval_function;
use strata_ir::text::Resources;
use strata_ir::{ElemType, Tensor, TensorData, TensorType, text};

/// A tensor from a NumPy file, which must have the given shape and element type.
fn read(path: &Path, ty: &TensorType) -> Result<Tensor, Box<dyn Error>> {
    fn values<T: Deserialize>(file: NpyFile<BufReader<File>>) -> Result<Vec<T>, Box<dyn Error>> {
        Ok(file.into_vec()?)
    }
    let file = NpyFile::new(BufReader::new(File::open(path)?))?;
    let shape: Vec<usize> = file.shape().iter().map(|&extent| extent as usize).collect();
    if shape != ty.shape {
        return Err(format!("{}: shape {shape:?}, the argument has {:?}", path.display(), ty.shape).into());
    }
    let data = match ty.elem {
        ElemType::I1 => TensorData::I1(values(file)?),
        ElemType::I8 => TensorData::I8(values(file)?),
        ElemType::I16 => TensorData::I16(values(file)?),
        ElemType::I32 => TensorData::I32(values(file)?),
        ElemType::F32 => TensorData::F32(values(file)?),
        elem => return Err(format!("{}: arguments of {elem} are not read", path.display()).into()),
    };
    Ok(Tensor::new(shape, data))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [path, dir] = &args[..] else {
        return Err("usage: evaluate MODULE.mlir DIR".into());
    };
    let side = path.with_file_name("constants.resources");
    let resources =
        if side.is_file() { Resources::from_bytes(std::fs::read(side)?)? } else { Resources::new() };
    let mut module = text::parse(&std::fs::read_to_string(path)?, Some(&resources))?;
    let main = module.function("main").ok_or("there is no function @main")?;
    let body = module.body();
    module.erase_where(body, |op| op != main);
    let Op::Func(function) = &module.op(main).op else {
        return Err("@main is no function".into());
    };
    let inputs: Vec<Tensor> = function
        .function_type
        .inputs
        .iter()
        .enumerate()
        .map(|(i, ty)| {
            let ty = ty.as_tensor().ok_or("an argument is no tensor")?;
            read(&dir.join(format!("in{i}.npy")), ty)
        })
        .collect::<Result<_, _>>()?;
    std::fs::write(dir.join("case.mlir"), text::to_string(&module))?;
    for (i, output) in eval_function(&module, main, inputs)?.iter().enumerate() {
        npy::write(&dir.join(format!("out{i}.npy")), output)?;
    }
    Ok(())
}
