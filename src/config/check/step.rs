//! Steps: which options of dedup go together.

use super::join::Inputs;
use super::{Check, value_or};
use crate::config::plan::{DedupPlan, Keep, KeyPlan, Late, MissingKey, StepPlan};
use crate::config::read::At;
use crate::config::spec::step::{DedupSpec, KeepSpec, StepSpec};

impl Check<'_> {
    /// All steps in their order; the right sides of joins are added to `inputs`.
    pub(super) fn steps_plan<'s>(&mut self, steps: &'s [StepSpec], inputs: &mut Inputs<'s>) -> Option<Vec<StepPlan>> {
        let plans: Vec<Option<StepPlan>> = steps.iter().map(|step| self.step_plan(step, inputs)).collect();
        plans.into_iter().collect()
    }

    fn step_plan<'s>(&mut self, step: &'s StepSpec, inputs: &mut Inputs<'s>) -> Option<StepPlan> {
        match step {
            StepSpec::Filter(expression) => Some(StepPlan::Filter(expression.clone())),
            StepSpec::Select(fields) => Some(StepPlan::Select(fields.clone())),
            StepSpec::Dedup(spec) => self.dedup_plan(spec).map(StepPlan::Dedup),
            StepSpec::Join(spec) => self.join_plan(spec, inputs).map(|join| StepPlan::Join(Box::new(join))),
        }
    }

    fn dedup_plan(&mut self, spec: &DedupSpec) -> Option<DedupPlan> {
        let keep_words = value_or(&spec.keep, || KeepSpec::First);
        self.options_fit(spec, keep_words);
        let keep = match keep_words {
            KeepSpec::First => Keep::First,
            KeepSpec::Latest => Keep::Latest,
            KeepSpec::Changes => Keep::Changes(value_or(&spec.fields, Vec::new)),
        };
        Some(DedupPlan {
            at: spec.at.at,
            key: self.key_plan(&spec.key),
            window_ms: spec.window_ms.as_ref()?.value,
            keep,
            renew: value_or(&spec.renew, || false),
            missing_key: value_or(&spec.missing_key, || MissingKey::DeadLetter),
            late: value_or(&spec.late, || Late::Pass),
        })
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
        if let Some(at) = spec.late.as_ref() {
            let message = "`late` does nothing here: with this `keep` a late record is judged like any other";
            self.say(at.error("unused", message).as_warning());
        }
    }
}
