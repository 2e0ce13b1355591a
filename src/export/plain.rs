//! The module of a source as plain TOSA: without stages and phases, and without what only Strata reads of it.

use strata_backend::select::erase::EraseWrappers;
use strata_ir::Module;
use strata_ir::pass::{self, DriverOptions, Level, PassContext, Pipeline};

use super::{Content, ExportError, Source};

/// The only module of a source as plain TOSA. The attributes of the functions' arguments and results stay:
/// what ports are called and what their integers stand for.
///
/// # Errors
/// If the source is several modules, or not valid.
pub(super) fn module(source: &Source) -> Result<Module, ExportError> {
    let Content::Modules(modules) = &source.content else {
        return Err(ExportError::Content("no module of the IR".to_owned()));
    };
    let [module] = &modules[..] else {
        let what = format!("{} modules, one for each part of a model; expected one", modules.len());
        return Err(ExportError::Content(what));
    };
    let mut module = module.clone();
    if Level::of(&module) > Level::Quant {
        let pipeline = Pipeline::of(EraseWrappers);
        pass::run(&mut module, &pipeline, &mut PassContext::new(), &DriverOptions::default(), &mut |_| {})
            .map_err(|failure| ExportError::Content(failure.to_string()))?;
    }
    let top = module.top();
    module.op_mut(top).extra.retain(|name, _| !name.starts_with("strata."));
    Ok(module)
}
