//! The forms of a network that planning chooses from: as it was imported, and as rewrites left it.
//!
//! Rewrites are judged by a cost of ops, which knows neither what runs together nor where tensors live: a plan of what they
//! leave may be worse than one of what was there. So each form is planned, and the plan that costs least under the objective
//! is taken.

use strata_ir::Module;
use strata_passes::manager::{Changed, PassContext, Phase};
use strata_passes::plan::{Mode, Objective, Plan};
use strata_passes::rewrite::Tier;

use super::{Clock, CompileError, Compiler, Event, missing, word};

/// From integers to stages.
pub(crate) const SELECT: &str = "form-stages,split-channels";

/// Families that change how much lives at once: taken wherever they apply too, not only where ops cost less for it.
const OF_TRAFFIC: [&str; 2] = ["upsample", "concat-sum"];

/// A network at the stages phase.
#[derive(Clone, Debug)]
pub(super) struct Forms {
    /// As it was imported.
    pub as_imported: Module,
    /// As rewrites left it, for any objective.
    rewritten: Option<Module>,
    /// As rewrites left it that may pay by what they do to memory alone.
    smaller: Option<Module>,
}

/// A form with its plan.
pub(super) struct Planned {
    /// The module at the last phase of planning.
    pub module: Module,
    /// Its plan.
    pub plan: Plan,
    /// The module at each phase that was reached.
    reached: Vec<(Phase, Module)>,
}

impl Compiler {
    /// The forms of a module in integers.
    pub(super) fn forms(
        &self,
        mut module: Module,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Forms, CompileError> {
        let on: Vec<&str> = self.options.families.of(Tier::Semantic).collect();
        let of_traffic: Vec<&str> = on.iter().copied().filter(|name| OF_TRAFFIC.contains(name)).collect();
        let rewritten = self.rewritten(&module, "cheapest", &on, clock, observer)?;
        let smaller = self.rewritten(&module, "every", &of_traffic, clock, observer)?;
        self.run_silently(SELECT, &mut module, clock, observer)?;
        Ok(Forms { as_imported: module, rewritten, smaller })
    }

    /// What rewrites of some families leave, if they change anything.
    fn rewritten(
        &self,
        module: &Module,
        take: &str,
        families: &[&str],
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<Module>, CompileError> {
        if families.is_empty() {
            return Ok(None);
        }
        let mut module = module.clone();
        let rewrite = format!("rewrite-tosa{{families={},take={take}}}", families.join("+"));
        if self.run_silently(&rewrite, &mut module, clock, observer)? == Changed::No {
            return Ok(None);
        }
        self.run_silently(SELECT, &mut module, clock, observer)?;
        Ok(Some(module))
    }

    /// Runs passes of which the observer is told the names, not what they leave.
    fn run_silently(
        &self,
        pipeline: &str,
        module: &mut Module,
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Changed, CompileError> {
        let mut context = PassContext::new();
        context.insert(self.options.target.clone());
        self.run_passes(pipeline, module, &mut context, clock, &mut |event| {
            if !matches!(event, Event::Reached(..)) {
                observer(event);
            }
        })
    }

    /// Plans and schedules each form, and takes the one that costs least; of equals, the one nearest to the import.
    pub(super) fn plan_forms(
        &self,
        forms: &Forms,
        (mode, objective): (Mode, Objective),
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Planned, CompileError> {
        let of_memory = objective != Objective::Latency && mode == Mode::Multi;
        let others = forms.rewritten.iter().chain(forms.smaller.iter().filter(|_| of_memory));
        let mut best = self.plan_form(&forms.as_imported, (mode, objective), clock, observer);
        for form in others {
            let other = self.plan_form(form, (mode, objective), clock, observer);
            let cost = |planned: &Planned| planned.plan.certificate.cost;
            best = match (best, other) {
                (Ok(best), Ok(other)) if cost(&other) < cost(&best) => Ok(other),
                (Err(_), Ok(other)) => Ok(other),
                (best, _) => best,
            };
        }
        match &best {
            Ok(planned) => {
                for (phase, module) in &planned.reached {
                    observer(Event::Reached(*phase, module));
                }
            }
            Err(_) => observer(Event::Reached(Phase::Stages, &forms.as_imported)),
        }
        best
    }

    fn plan_form(
        &self,
        form: &Module,
        (mode, objective): (Mode, Objective),
        clock: &mut Clock,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<Planned, CompileError> {
        let mut module = form.clone();
        let mut reached = vec![(Phase::Stages, form.clone())];
        let mut context = PassContext::new();
        context.insert(self.options.target.clone());
        let has = |family: &str| self.options.families.has(family);
        let pipeline = format!(
            "fuse-layers{{objective={},tolerance-percent={},mode={},merge={},diamond={},sibling={}}},schedule",
            word(&objective),
            self.options.tolerance_percent,
            word(&mode),
            has("group-merge"),
            has("group-diamond"),
            has("group-sibling")
        );
        self.run_passes(&pipeline, &mut module, &mut context, clock, &mut |event| match event {
            Event::Reached(phase, module) => reached.push((phase, module.clone())),
            event => observer(event),
        })?;
        let plan = context.take::<Plan>().ok_or_else(|| missing("a plan"))?;
        Ok(Planned { module, plan, reached })
    }
}
