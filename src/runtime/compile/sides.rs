//! Which sides of a pipeline each of its topics feeds, and what that means for how it is read.

use super::{Parts, joins_of};
use crate::config::plan::{Matching, PipelinePlan, SidePlan};
use crate::runtime::inputs::{Feeds, InputSide};

/// What a start has to know of a pipeline's topics, by their place among them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InputRoles {
    /// Passes of its tasks are merged, and their cuts written down.
    pub is_merged: bool,
    /// Topics of the source.
    pub left: Vec<usize>,
    /// Topics that feed tables and nothing else.
    pub tables: Vec<usize>,
    /// Those of them that are read first while their state is new.
    pub bootstrapped: Vec<usize>,
    /// How long at its log end until each is set aside.
    pub idle_after_ms: Vec<u64>,
    /// The largest of any side.
    pub max_future_ms: i64,
}

/// The roles of a pipeline's topics.
pub fn roles(plan: &PipelinePlan) -> InputRoles {
    let of_joins = || joins_of(plan).map(|join| (&join.with, Some(join.matching)));
    let sides = || std::iter::once((&plan.source, None)).chain(of_joins());
    let is_bootstrapped =
        |matching: Option<Matching>| matches!(matching, Some(Matching::Table { bootstrap: true, .. }));
    let inputs_of = |picks: &dyn Fn(Option<Matching>) -> bool| -> Vec<usize> {
        let picked = sides().filter(|(_, matching)| picks(*matching)).flat_map(|(side, _)| side.inputs.clone());
        let mut inputs: Vec<usize> = picked.collect();
        inputs.sort_unstable();
        inputs.dedup();
        inputs
    };
    let others = inputs_of(&|matching| !is_table(matching));
    let only = |inputs: Vec<usize>| -> Vec<usize> { inputs.into_iter().filter(|at| !others.contains(at)).collect() };
    let idle_ms = |input: usize| {
        let side: Option<&SidePlan> = sides().map(|(side, _)| side).find(|side| side.inputs.contains(&input));
        side.expect("every topic is read by a side").time.idle_ms as u64
    };
    InputRoles {
        is_merged: plan.topics.len() > 1 || joins_of(plan).next().is_some(),
        left: plan.source.inputs.clone(),
        tables: only(inputs_of(&is_table)),
        bootstrapped: only(inputs_of(&is_bootstrapped)),
        idle_after_ms: (0..plan.topics.len()).map(idle_ms).collect(),
        max_future_ms: sides().map(|(side, _)| side.time.max_future_ms).max().expect("there is a source"),
    }
}

fn is_table(matching: Option<Matching>) -> bool {
    matches!(matching, Some(Matching::Table { .. }))
}

impl Parts {
    /// Takes the decoders out, topic by topic, each with the side that it decodes for.
    pub fn take_sides(&mut self, plan: &PipelinePlan) -> Vec<Vec<InputSide>> {
        let mut topics: Vec<Vec<InputSide>> = plan.topics.iter().map(|_| vec![]).collect();
        // A table neither holds nor is held.
        let of_streams = joins_of(plan).filter(|join| !is_table(Some(join.matching)));
        let left_skew_ms = of_streams.map(|join| join.max_skew_ms).min();
        for (input, decoder) in plan.source.inputs.iter().zip(std::mem::take(&mut self.decoders)) {
            let lateness_ms = plan.source.time.lateness_ms;
            topics[*input].push(InputSide { decoder, feeds: Feeds::Left, lateness_ms, max_skew_ms: left_skew_ms });
        }
        for (number, (join, part)) in joins_of(plan).zip(&mut self.joins).enumerate() {
            let number = number as u16;
            let (feeds, max_skew_ms) = match join.matching {
                Matching::Table { exact, .. } => (Feeds::Table { join: number, exact }, None),
                _ => (Feeds::Right { join: number }, Some(join.max_skew_ms)),
            };
            for (input, decoder) in join.with.inputs.iter().zip(std::mem::take(&mut part.decoders)) {
                let lateness_ms = join.with.time.lateness_ms;
                topics[*input].push(InputSide { decoder, feeds, lateness_ms, max_skew_ms });
            }
        }
        topics
    }
}
