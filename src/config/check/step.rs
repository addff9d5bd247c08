//! Steps: which options of dedup go together.

use super::join::Inputs;
use super::{Check, value_or};
use crate::config::plan::{DedupPlan, ExprText, Keep, KeyPlan, Late, MissingKey, StepPlan};
use crate::config::read::At;
use crate::config::spec::step::{DedupSpec, KeepSpec, StepSpec};
use crate::error::Place;

/// A part of a plan. Where something in it is wrong, stand-ins fill it up.
pub(super) struct Drafted<T> {
    pub value: T,
    pub is_whole: bool,
}

impl<T> Drafted<T> {
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Drafted<U> {
        Drafted { value: f(self.value), is_whole: self.is_whole }
    }
}

/// The steps of one side.
pub(super) struct DraftedSteps {
    /// Up to the first of which it is not known what names it leaves.
    pub steps: Vec<StepPlan>,
    pub are_all: bool,
    pub are_whole: bool,
}

impl DraftedSteps {
    /// Where nothing is wrong.
    pub fn whole(&self) -> Option<Vec<StepPlan>> {
        (self.are_all && self.are_whole).then(|| self.steps.clone())
    }
}

impl Check<'_> {
    /// All steps in their order; the right sides of joins are added to `inputs`.
    pub(super) fn steps_plan<'s>(&mut self, steps: &'s [StepSpec], inputs: &mut Inputs<'s>) -> DraftedSteps {
        let mut drafted = DraftedSteps { steps: vec![], are_all: true, are_whole: true };
        for step in steps {
            let step = self.step_plan(step, inputs);
            drafted.are_all &= step.is_some();
            if let Some(step) = step.filter(|_| drafted.are_all) {
                drafted.are_whole &= step.is_whole;
                drafted.steps.push(step.value);
            }
        }
        drafted
    }

    /// `None`: it is not known what names it leaves.
    fn step_plan<'s>(&mut self, step: &'s StepSpec, inputs: &mut Inputs<'s>) -> Option<Drafted<StepPlan>> {
        match step {
            StepSpec::Filter(expression) => {
                Some(Drafted { value: StepPlan::Filter(expression.clone()), is_whole: true })
            }
            StepSpec::Select(fields) => Some(select_plan(fields)),
            StepSpec::Dedup(spec) => Some(self.dedup_plan(spec).map(StepPlan::Dedup)),
            StepSpec::Join(spec) => {
                self.join_plan(spec, inputs).map(|join| join.map(|join| StepPlan::Join(Box::new(join))))
            }
            StepSpec::Wrong { keeps_names: true } => {
                Some(Drafted { value: StepPlan::Filter(stand_in("true")), is_whole: false })
            }
            StepSpec::Wrong { keeps_names: false } => None,
        }
    }

    fn dedup_plan(&mut self, spec: &DedupSpec) -> Drafted<DedupPlan> {
        let keep_words = value_or(&spec.keep, || KeepSpec::First);
        self.options_fit(spec, keep_words);
        self.unused_for_ever(spec);
        let keep = match keep_words {
            KeepSpec::First => Keep::First,
            KeepSpec::Latest => Keep::Latest,
            KeepSpec::Changes => Keep::Changes(value_or(&spec.fields, Vec::new)),
        };
        let plan = DedupPlan {
            at: spec.at.at,
            key: self.key_plan(&spec.key),
            window_ms: value_or(&spec.window_ms, || None),
            keep,
            renew: value_or(&spec.renew, || false),
            missing_key: value_or(&spec.missing_key, || MissingKey::DeadLetter),
            late: value_or(&spec.late, || Late::Pass),
        };
        Drafted { value: plan, is_whole: spec.window_ms.is_some() }
    }

    pub(super) fn key_plan(&mut self, key: &[At<KeyPlan>]) -> Vec<KeyPlan> {
        for (i, field) in key.iter().enumerate() {
            let text = &field.value.path.text;
            if key[..i].iter().any(|earlier| earlier.value.path.text == *text) {
                self.say(field.error("twice", format!("`{text}` is in the key twice")));
            }
        }
        key.iter().map(|field| field.value.clone()).collect()
    }

    fn options_fit(&mut self, spec: &DedupSpec, keep: KeepSpec) {
        let changes = keep == KeepSpec::Changes;
        match (&spec.fields, &spec.keep) {
            (Some(fields), _) if !changes => {
                let finding = fields.error("unfit_option", "`fields` needs `keep: changes`");
                self.say(finding.with_help("they are what counts as a change; without it, leave them out"));
            }
            (None, Some(at)) if changes => {
                let finding = at.error("missing_field", "`keep: changes` needs `fields`");
                self.say(finding.with_help("which fields count as a change: `fields: [status, price]`"));
            }
            _ => {}
        }
        if keep == KeepSpec::First {
            return;
        }
        if let Some(at) = spec.renew.as_ref().filter(|at| at.value) {
            let finding = at.error("unfit_option", "`renew` needs `keep: first`");
            self.say(finding.with_help("with another `keep` every row that passes begins a new window anyway"));
        }
    }

    /// Nothing of a window without an end is ever over.
    fn unused_for_ever(&mut self, spec: &DedupSpec) {
        if spec.window_ms.as_ref().is_none_or(|at| at.value.is_some()) {
            return;
        }
        if let Some(at) = spec.renew.as_ref().filter(|at| at.value) {
            let finding = at.error("unused", "`renew` does nothing here: `window: forever` cannot be extended");
            self.say(finding.as_note());
        }
        if let Some(at) = &spec.late {
            let finding = at.error("unused", "`late` does nothing here: with `window: forever` no record is too late");
            self.say(finding.as_note());
        }
    }
}

fn select_plan(fields: &[(String, Option<ExprText>)]) -> Drafted<StepPlan> {
    let is_whole = fields.iter().all(|(_, expression)| expression.is_some());
    let or_stand_in = |expression: &Option<ExprText>| expression.clone().unwrap_or_else(|| stand_in("null"));
    let fields = fields.iter().map(|(name, expression)| (name.clone(), or_stand_in(expression))).collect();
    Drafted { value: StepPlan::Select(fields), is_whole }
}

/// An expression in which nothing is wrong.
fn stand_in(text: &str) -> ExprText {
    ExprText { text: text.to_owned(), at: Place::default() }
}
