//! Joins of a plan: the right side compiled with a scope of its own, and what the step needs.
//!
//! Promises: what is wrong on the right side is said with its place; the object is a name behind the join even then, so
//! that one mistake is said once.

use super::{Blueprint, Compiler, Course};
use crate::codec::decode::{Decoder, DeletionKey, TimeSpec};
use crate::codec::key::KeyHasher;
use crate::codec::rows::Slot;
use crate::codec::scope::JoinLayout;
use crate::config::plan::{JoinLate, JoinPlan, KeyPlan, Matching, StepPlan};
use crate::runtime::chain::Step;
use crate::step::join::{Assembly, Kind, Late, Rules};
use crate::types::TaskNo;

/// A join, without the state of its rows.
pub struct JoinPart {
    /// How many of the steps lie before it.
    pub steps_before: usize,
    /// Its place in the written list.
    pub place: u16,
    /// Of the right side: per input, whose number each decoder knows.
    pub decoders: Vec<Decoder>,
    pub steps: Vec<Step>,
    /// What the right steps leave as one object, where it is asked for.
    pub object: Option<(Slot, Vec<(String, Slot)>)>,
    pub rules: Rules,
    pub left_key: KeyHasher,
    pub right_key: KeyHasher,
    /// As it is written for the left side.
    pub key_text: String,
    pub assembly: Assembly,
    /// The fields of a row behind it, by name.
    pub names: Vec<(String, Slot)>,
    /// What the fields mean that it keeps of its rows.
    pub kept: String,
    /// Fields per row, of all sides.
    pub width: usize,
}

/// A join before the slots of its right side are all known.
pub(super) struct CompiledJoin {
    steps_before: usize,
    place: usize,
    time: TimeSpec,
    steps: Vec<Step>,
    left_key: KeyHasher,
    right_key: KeyHasher,
    /// For a table: its key, as record keys name it.
    deletion_key: DeletionKey,
}

impl Blueprint {
    pub(super) fn join_part(&self, join: CompiledJoin, layout: JoinLayout, partition: i32) -> JoinPart {
        let StepPlan::Join(plan) = &self.plan.steps[join.place] else { unreachable!("a compiled join is of a join") };
        let is_table = matches!(plan.matching, Matching::Table { .. });
        let deleting = |decoder: Decoder| match is_table {
            true => decoder.deleting(join.deletion_key.clone()),
            false => decoder,
        };
        JoinPart {
            steps_before: join.steps_before,
            place: join.place as u16,
            decoders: self
                .decoders(&plan.with, &layout.right, &join.time, partition)
                .into_iter()
                .map(deleting)
                .collect(),
            steps: join.steps,
            object: layout.object,
            rules: rules(plan),
            left_key: join.left_key,
            right_key: join.right_key,
            key_text: plan.left_key.iter().map(|part| part.path.text.as_str()).collect::<Vec<_>>().join(", "),
            assembly: layout.fields,
            names: layout.names,
            kept: layout.kept,
            width: layout.right.width,
        }
    }
}

impl Course<'_> {
    /// Compiles a join and its right side, and lets the scope pass it. What is wrong is in the compiler's findings; the
    /// object is a name behind it all the same.
    pub(super) fn join(
        &self,
        compiler: &mut Compiler,
        path: &str,
        place: usize,
        steps_before: usize,
        plan: &JoinPlan,
        task: TaskNo,
    ) {
        let with = format!("{path}.join.with");
        let mut right = Compiler::new();
        let time = right.time(&format!("{with}.time"), &plan.with);
        let numbers = right_step_numbers(self.steps, place);
        let mut steps = Vec::new();
        for (inner, (step, number)) in plan.steps.iter().zip(numbers).enumerate() {
            steps.extend(self.step(&mut right, &format!("{with}.steps[{inner}]"), number, step, task));
        }
        let key = format!("{path}.join.key");
        let left_key = compiler.key(&key, &plan.left_key, self.seed);
        let right_key = right.key(&key, &plan.right_key, self.seed);
        compiler.findings.append(&mut right.findings);
        let slots = |compiler: &mut Compiler, parts: &[KeyPlan]| -> Vec<Slot> {
            parts.iter().filter_map(|part| compiler.scope.resolve(&part.path.text).ok()).collect()
        };
        let (of_left, of_right) = (slots(compiler, &plan.left_key), slots(&mut right, &plan.right_key));
        let names = plan.right_key.iter().map(|part| part.path.text.clone());
        let deletion_key = DeletionKey::new(names.zip(of_right.iter().copied()));
        let is_cast = plan.right_key.iter().any(|part| part.cast.is_some());
        let deletion_key = if is_cast { deletion_key.cast() } else { deletion_key };
        compiler.scope.join(&plan.name, right.scope, of_left.into_iter().zip(of_right).collect());
        if let (Some(time), Some(left_key), Some(right_key)) = (time, left_key, right_key) {
            compiler.joins.push(CompiledJoin { steps_before, place, time, steps, left_key, right_key, deletion_key });
        }
    }
}

/// The numbers under which the right steps of the join at `place` keep their state: behind those of all written steps.
pub(super) fn right_step_numbers(steps: &[StepPlan], place: usize) -> std::ops::RangeFrom<u16> {
    let of_right = |step: &StepPlan| if let StepPlan::Join(join) = step { join.steps.len() } else { 0 };
    let before: usize = steps[..place].iter().map(of_right).sum();
    (steps.len() + before) as u16..
}

/// What a join means, as its step needs it.
pub(super) fn rules(plan: &JoinPlan) -> Rules {
    Rules {
        kind: match plan.matching {
            Matching::Interval { before_ms, after_ms } => Kind::Interval { before_ms, after_ms },
            Matching::Temporal { within_ms, exact } => Kind::Temporal { within_ms, exact },
            Matching::Table { within_ms, exact, .. } => Kind::Table { within_ms, exact },
        },
        keeps_left: plan.keeps_left,
        keeps_right: plan.keeps_right,
        late: match plan.late {
            JoinLate::Join => Late::Join,
            JoinLate::Drop => Late::Drop,
            JoinLate::DeadLetter => Late::DeadLetter,
        },
        rows_per_key_max: plan.rows_per_key_max,
    }
}
