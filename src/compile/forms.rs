//! The forms of a network that planning chooses from: as it was imported, and as rewrites left it.
//!
//! Rewrites are judged by a cost of ops, which knows neither what runs together nor where tensors live: a
//! plan of what they leave may be worse than one of what was there. So each form is planned, and the plan
//! that costs least under the objective is taken.

use std::iter;
use std::sync::OnceLock;

use rayon::prelude::*;
use strata_backend::model::{Mode, Objective, Plan, StageGraph};
use strata_backend::place::Schedule;
use strata_backend::select::FormStages;
use strata_backend::select::split::SplitChannels;
use strata_ir::Module;
use strata_ir::equal::difference;
use strata_ir::pass::{Changed, Level, PassContext, PassError, Pipeline};
use strata_passes::fuse::egraph::Offer;
use strata_passes::fuse::pass::Refused;
use strata_passes::fuse::{FuseLayers, PlanOptions};
use strata_passes::rewrite::{Families, RewriteTosa, Take, Tier};

use super::{Aim, Clock, CompileError, CompileOptions, Compiler, Event, missing};
use crate::stats::ModelStats;

/// From integers to stages.
pub(crate) fn select() -> Pipeline {
    Pipeline::of(FormStages).then(SplitChannels::default())
}

/// Families that change how much lives at once: taken wherever they apply too, not only where ops cost less
/// for it.
const OF_TRAFFIC: [&str; 2] = ["upsample", "concat-sum"];

/// Families that move pixels to channels or back. A plan cannot run what they leave in column strips, so with
/// little SRAM the ops may be better off without them.
const OF_PIXELS: [&str; 2] = ["thin-input", "transposed"];

/// A network at the stages level, in as many forms as were asked for; or a module of a checkpoint at that
/// level or a later one, which has no other form.
#[derive(Clone, Debug)]
pub(super) struct Forms {
    /// Its size.
    pub model: ModelStats,
    /// As it was imported, or as the checkpoint has it.
    pub as_imported: Module,
    /// The same before its stages were formed; none of a checkpoint's.
    pub in_integers: Option<Module>,
    rewritten: OnceLock<Option<Module>>,
    in_columns: OnceLock<Option<Module>>,
    smaller: OnceLock<Option<Module>>,
}

/// A form that is not the network as it was imported; each is made when it is first asked for.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// As rewrites leave it, for any objective.
    Rewritten,
    /// As rewrites leave it that leave pixels in their columns.
    InColumns,
    /// As rewrites leave it that may pay by what they do to memory alone.
    Smaller,
}

impl Form {
    /// Those that may cost least for an aim.
    fn of(aim: Aim) -> &'static [Self] {
        match (aim.mode, aim.objective) {
            (Mode::Multi, Objective::Latency) => &[Self::Rewritten, Self::InColumns],
            (Mode::Multi, _) => &[Self::Rewritten, Self::Smaller],
            _ => &[Self::Rewritten],
        }
    }
}

/// A form that was planned, and scheduled if it is the one that is taken.
pub(super) struct Planned {
    /// The module at the last level of planning.
    pub module: Module,
    /// Its plan.
    pub plan: Plan,
    /// What judges refused of plans that were made, each a defect of the planner.
    pub refused: Vec<String>,
}

/// A part of the machine as planning left it at each level that it reached.
#[derive(Debug, Default)]
pub(super) struct Reached {
    pub stages: Option<Module>,
    pub phases: Option<Module>,
    pub sched: Option<Module>,
}

impl Forms {
    /// A module at the stages level or a later one, and its size if that is not the sum of its stages.
    pub(super) fn only(module: Module, model: Option<ModelStats>) -> Result<Self, CompileError> {
        let model = match model {
            Some(model) => model,
            None => {
                let func = module.function("main").ok_or_else(|| missing("main"))?;
                let graph = StageGraph::from_module(&module, func)
                    .map_err(|e| CompileError::of_pass("form-stages", PassError::other(e)))?;
                ModelStats::of(&graph)
            }
        };
        let [rewritten, in_columns, smaller] = [const { OnceLock::new() }; 3];
        Ok(Self { model, as_imported: module, in_integers: None, rewritten, in_columns, smaller })
    }

    /// Whether its stages were not formed in this compile, but are as a checkpoint has them.
    pub(super) fn is_given(&self) -> bool {
        self.in_integers.is_none()
    }

    /// Whether its plan is made already.
    pub(super) fn is_planned(&self) -> bool {
        Level::of(&self.as_imported) >= Level::Phases
    }
}

impl CompileOptions {
    /// What is asked of the planner.
    pub(crate) fn plan_options(&self) -> PlanOptions {
        let has = |family: &str| self.families.has(family);
        PlanOptions {
            objective: self.objective,
            mode: self.mode,
            tolerance_percent: self.tolerance_percent,
            offer: Offer {
                producer_consumer: has("group-producer-consumer"),
                sibling: has("group-sibling"),
                sequence: has("group-sequence"),
                ..PlanOptions::default().offer
            },
            ..PlanOptions::default()
        }
    }
}

impl Compiler {
    /// The form of a module in integers as it was imported, from which others are made.
    pub(super) fn forms(
        &self,
        in_integers: Module,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Forms, CompileError> {
        let mut as_imported = in_integers.clone();
        self.run_passes(&select(), &mut as_imported, &mut PassContext::new(), clock, observer)?;
        Ok(Forms { in_integers: Some(in_integers), ..Forms::only(as_imported, None)? })
    }

    /// The same network's forms for this compiler's target.
    pub(super) fn formed_anew(&self, forms: &Forms, clock: &mut Clock) -> Result<Forms, CompileError> {
        let in_integers = forms.in_integers.clone().ok_or_else(|| missing("a network in integers"))?;
        self.forms(in_integers, clock, &mut |_| {})
    }

    /// A form, if rewrites make one.
    fn form<'f>(&self, forms: &'f Forms, form: Form) -> Result<Option<&'f Module>, CompileError> {
        let cell = match form {
            Form::Rewritten => &forms.rewritten,
            Form::InColumns => &forms.in_columns,
            Form::Smaller => &forms.smaller,
        };
        if cell.get().is_none() {
            let made = self.make(forms, form)?;
            // Whoever else made it meanwhile made the same.
            let _ = cell.set(made);
        }
        Ok(cell.get().and_then(Option::as_ref))
    }

    /// Makes a form.
    fn make(&self, forms: &Forms, form: Form) -> Result<Option<Module>, CompileError> {
        let on: Vec<&str> = self.options.families.of(Tier::Semantic).collect();
        let without =
            |out: &[&str]| on.iter().copied().filter(|name| !out.contains(name)).collect::<Vec<_>>();
        let Some(module) = &forms.in_integers else { return Ok(None) };
        match form {
            Form::Rewritten => self.rewritten(module, Take::Cheapest, &on),
            Form::InColumns => self.rewritten(module, Take::Cheapest, &without(&OF_PIXELS)),
            Form::Smaller => {
                let of_traffic: Vec<&str> =
                    on.iter().copied().filter(|name| OF_TRAFFIC.contains(name)).collect();
                self.rewritten(module, Take::Every, &of_traffic)
            }
        }
    }

    /// What rewrites of some families leave, if they change anything.
    fn rewritten(
        &self,
        module: &Module,
        take: Take,
        families: &[&str],
    ) -> Result<Option<Module>, CompileError> {
        if families.is_empty() {
            return Ok(None);
        }
        let mut module = module.clone();
        let rewrite = Pipeline::of(RewriteTosa { families: Families::of_names(families), take });
        let run = |pipeline: &Pipeline, module: &mut Module| {
            let (context, clock) = (&mut PassContext::new(), &mut Clock::default());
            self.run_passes(pipeline, module, context, clock, &mut |_| {})
        };
        if run(&rewrite, &mut module)? == Changed::No {
            return Ok(None);
        }
        run(&select(), &mut module)?;
        Ok(Some(module))
    }

    /// Plans and schedules a part, unless that was done already. `refine` is the option of `fuse-layers`.
    ///
    /// # Errors
    /// If no form fits the target, that of the import says why; any other failure, whichever form it is of,
    /// is a defect.
    pub(super) fn plan(
        &self,
        forms: &Forms,
        aim: Aim,
        refine: bool,
        reached: &mut Reached,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Planned, CompileError> {
        let module = &forms.as_imported;
        let mut planned = if !forms.is_planned() {
            self.plan_forms(forms, aim, refine, reached, clock, observer)?
        } else {
            let func = module.function("main").ok_or_else(|| missing("main"))?;
            let plan = Plan::from_module(module, func).map_err(|e| CompileError::of_pass("schedule", e))?;
            Planned { module: module.clone(), plan, refused: Vec::new() }
        };
        if Level::of(&planned.module) < Level::Sched {
            reached.phases = Some(planned.module.clone());
            let (schedule, context) = (Pipeline::of(Schedule), &mut PassContext::new());
            self.run_passes(&schedule, &mut planned.module, context, clock, observer)?;
        }
        reached.sched = Some(planned.module.clone());
        Ok(planned)
    }

    /// Plans each form, all at once, and takes the one that costs least, of equals the one nearest to the
    /// import.
    fn plan_forms(
        &self,
        forms: &Forms,
        aim: Aim,
        refine: bool,
        reached: &mut Reached,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Planned, CompileError> {
        // Forms are made and planned beside one another: all that is one step, by its wall time.
        clock.begin("fuse-layers", observer);
        let plan = |form| Ok((form, self.fuse(form, aim, refine)?));
        let others = || -> Result<Vec<_>, CompileError> {
            let made = Form::of(aim).iter().map(|&form| self.form(forms, form));
            let made: Vec<Option<&Module>> = made.collect::<Result<_, _>>()?;
            let mut unlike: Vec<&Module> = Vec::new();
            for form in made.into_iter().flatten() {
                if unlike.iter().all(|other| difference(form, other).is_some()) {
                    unlike.push(form);
                }
            }
            Ok(unlike.into_par_iter().map(plan).collect())
        };
        let (imported, others) = rayon::join(|| plan(&forms.as_imported), others);
        let mut planned: Vec<_> = iter::once(imported).chain(others?).collect();
        let of_all =
            planned.iter_mut().flatten().flat_map(|(_, planned)| std::mem::take(&mut planned.refused));
        let refused = of_all.collect();
        let best = cheapest(planned.into_iter(), |(_, planned)| planned.plan.certificate.cost);
        let stages = best.as_ref().map_or(&forms.as_imported, |(form, _)| form);
        reached.stages = Some(stages.clone());
        let (_, Planned { module, plan, .. }) = best?;
        Ok(Planned { module, plan, refused })
    }

    /// Plans a form.
    fn fuse(&self, form: &Module, aim: Aim, refine: bool) -> Result<Planned, CompileError> {
        let mut module = form.clone();
        let mut context = PassContext::new();
        let Aim { objective, mode } = aim;
        let asked = self.options.plan_options();
        let options = PlanOptions { objective, mode, growths: refine, first_rows: refine, ..asked };
        self.run_passes(
            &Pipeline::of(FuseLayers { options }),
            &mut module,
            &mut context,
            &mut Clock::default(),
            &mut |_| {},
        )?;
        let plan = context.take::<Plan>().ok_or_else(|| missing("a plan"))?;
        let Refused(refused) = context.take().unwrap_or_default();
        Ok(Planned { module, plan, refused })
    }
}

/// Of what came of some forms, the one that costs least; of equals, the first. A form that does not fit is
/// passed over, unless none does: then the first says why. Any other failure is not.
fn cheapest<T>(
    forms: impl Iterator<Item = Result<T, CompileError>>,
    cost: impl Fn(&T) -> f64,
) -> Result<T, CompileError> {
    let mut best: Option<Result<T, CompileError>> = None;
    for form in forms {
        best = Some(match (best, form) {
            (_, Err(error)) if !error.is_capacity_error() => return Err(error),
            (Some(Ok(best)), Ok(form)) if cost(&form) < cost(&best) => Ok(form),
            (None | Some(Err(_)), Ok(form)) => Ok(form),
            (None, form) => form,
            (Some(best), _) => best,
        });
    }
    best.unwrap_or_else(|| Err(missing("a form of the network")))
}

#[cfg(test)]
mod tests {
    use strata_backend::place::ScheduleError;
    use strata_ir::pass::PassError;
    use strata_passes::fuse::PlanError;

    use super::*;

    fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Result<u32, CompileError> {
        Err(CompileError::of_pass("fuse-layers", PassError::other(error)))
    }

    fn too_large(name: &'static str) -> Result<u32, CompileError> {
        failed(ScheduleError::DoesNotFit { memory: name, phase: 0, names: Vec::new(), missing_bytes: 1 })
    }

    fn stuck() -> Result<u32, CompileError> {
        failed(PlanError::Stuck { stages: 1, all: 2, stuck: "conv".to_owned() })
    }

    fn taken(forms: Vec<Result<u32, CompileError>>) -> Result<u32, String> {
        cheapest(forms.into_iter(), |&cost| f64::from(cost)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_cheapest_form_is_taken_and_of_equals_the_first() {
        assert_eq!(taken(vec![Ok(3), Ok(2), Ok(4)]), Ok(2));
        let numbered = [(0, 2), (1, 2)].map(Ok);
        let first = cheapest(numbered.into_iter(), |&(_, cost)| f64::from(cost));
        assert_eq!(first.ok(), Some((0, 2)));
    }

    #[test]
    fn a_form_that_does_not_fit_is_passed_over() {
        assert_eq!(taken(vec![too_large("this"), Ok(2), stuck()]), Ok(2));
        assert_eq!(taken(vec![Ok(2), failed(PlanError::StageTooLarge(Vec::new()))]), Ok(2));
        let none = taken(vec![too_large("this"), too_large("that")]).expect_err("none fits");
        assert!(none.contains("this"), "{none}");
    }

    #[test]
    fn an_internal_error_of_any_form_is_reported() {
        let unsound = || failed(ScheduleError::Unsound("overlap".to_owned()));
        let invalid = || failed(PlanError::Unsound(Vec::new()));
        for forms in [
            vec![Ok(2), unsound()],
            vec![unsound(), Ok(2)],
            vec![Ok(2), invalid()],
            vec![too_large("this"), invalid(), Ok(1)],
            vec![Ok(1), Err(missing("a plan"))],
        ] {
            let error = taken(forms).expect_err("a defect");
            assert!(
                ["not what was planned", "internal error", "needs a plan"]
                    .iter()
                    .any(|part| error.contains(part)),
                "{error}"
            );
        }
    }
}
