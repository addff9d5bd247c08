//! Joins: which options go together, and what the inputs of one pipeline have to share.

use super::step::{Drafted, DraftedSteps};
use super::{Check, defaults, value_or};
use crate::config::plan::{JoinLate, JoinPlan, KafkaPlan, Matching, SidePlan, TimePlan, TopicPlan};
use crate::config::read::At;
use crate::config::spec::connection::KafkaSpec;
use crate::config::spec::join::{JoinKind, JoinSpec, JoinType, WithSpec};
use crate::config::spec::pipeline::SourceSpec;

/// What the sides of a pipeline read, each topic once: the source first, then the joins in their order.
pub(super) struct Inputs<'s> {
    pub topics: Vec<TopicPlan>,
    pub interval: Option<&'s At<i64>>,
    /// Per topic, who reads it first.
    readers: Vec<Reader>,
    pipeline: String,
    source: Option<&'s SourceSpec>,
    kafka: Option<KafkaPlan>,
    /// The `as` of the joins so far.
    names: Vec<String>,
    /// Inside of a right side there are no further joins.
    is_right_side: bool,
}

struct Reader {
    side: Option<SidePlan>,
    is_table: bool,
}

impl<'s> Inputs<'s> {
    pub fn new(
        pipeline: &str,
        source: Option<&'s SourceSpec>,
        kafka: Option<&KafkaPlan>,
        topics: Vec<TopicPlan>,
        side: Option<&SidePlan>,
    ) -> Inputs<'s> {
        let readers = topics.iter().map(|_| Reader { side: side.cloned(), is_table: false }).collect();
        Inputs {
            topics,
            interval: None,
            readers,
            pipeline: pipeline.to_owned(),
            source,
            kafka: kafka.cloned(),
            names: vec![],
            is_right_side: false,
        }
    }
}

impl Check<'_> {
    /// `None`: it is not known what names it adds.
    pub(super) fn join_plan<'s>(&mut self, spec: &'s JoinSpec, inputs: &mut Inputs<'s>) -> Option<Drafted<JoinPlan>> {
        if inputs.is_right_side {
            let finding = spec.at.error("nested_join", "the right side of a join cannot have joins of its own");
            self.say(finding.with_help("join the topics one after the other, in the steps of the pipeline"));
            return None;
        }
        let with = spec.with.as_ref();
        let is_table = with.is_some_and(|with| with.retain_ms.as_ref().is_some_and(|at| at.value.is_none()));
        let matching = self.matching(spec, is_table);
        let (keeps_left, keeps_right) = self.kept_sides(spec);
        let name = self.object_name(spec, inputs);
        let key = spec.key.as_ref();
        let left_key = key.map(|key| self.key_plan(&key.left));
        let right_key = key.map(|key| self.key_plan(&key.right));
        if let (Some(left), Some(right)) = (&left_key, &right_key)
            && left.len() != right.len()
            && !left.is_empty()
            && !right.is_empty()
        {
            let message = format!("the key has {} fields on the left and {} on the right", left.len(), right.len());
            self.say(spec.at.error("key_sizes", message).with_help("they are compared pair by pair: name as many"));
        }
        let right = with.map(|with| self.right_side(with, is_table, inputs));
        let right_steps = right.as_ref().and_then(|(_, steps)| steps.whole());
        let is_whole = matching.is_some()
            && key.is_some()
            && right_steps.is_some()
            && right.as_ref().is_some_and(|(side, _)| !side.inputs.is_empty());
        let with = right.as_ref().map_or_else(|| self.no_side(), |(side, _)| side.clone());
        // Of steps that end nowhere it is not known what names they leave: then all are.
        let steps = right.filter(|(_, steps)| steps.are_all).map(|(_, steps)| steps.steps).unwrap_or_default();
        let matching = matching.unwrap_or(Matching::Temporal { within_ms: 0, exact: false });
        let plan = JoinPlan {
            at: spec.at.at,
            name: name?,
            with,
            steps,
            left_key: left_key.unwrap_or_default(),
            right_key: right_key.unwrap_or_default(),
            matching,
            keeps_left,
            keeps_right,
            late: value_or(&spec.late, || JoinLate::Join),
            max_skew_ms: value_or(&spec.max_skew_ms, || defaults::max_skew_ms(matching.reach_ms())),
            rows_per_key_max: value_or(&spec.max_rows_per_key, || defaults::ROWS_PER_KEY),
        };
        Some(Drafted { value: plan, is_whole })
    }

    fn matching(&mut self, spec: &JoinSpec, is_table: bool) -> Option<Matching> {
        let kind = spec.kind.as_ref()?;
        let within_ms = spec.within_ms.as_ref().map(|at| at.value);
        let bounds = [&spec.before_ms, &spec.after_ms];
        let exact = value_or(&spec.exact, || false);
        match kind.value {
            JoinKind::Interval => {
                if let Some(at) = spec.exact.as_ref().filter(|at| at.value) {
                    let finding = at.error("unfit_option", "`exact` needs `kind: temporal`");
                    self.say(finding.with_help("an interval join gives every pair, whatever the arrival order"));
                }
                if is_table {
                    let finding = kind.error("unfit_option", "a table (`retain: forever`) needs `kind: temporal`");
                    self.say(finding.with_help("its versions have a time from which they hold, and no window"));
                }
                self.interval(spec, within_ms)
            }
            JoinKind::Temporal => {
                for at in bounds.into_iter().flatten() {
                    let finding = at.error("unfit_option", "`before` and `after` need `kind: interval`");
                    self.say(finding.with_help("`within` says how far apart in time the two rows may be"));
                }
                let Some(within_ms) = within_ms else {
                    if bounds.iter().all(|at| at.is_none()) {
                        let finding = spec.at.error("missing_field", "`kind: temporal` needs `within`");
                        self.say(finding.with_help("how far apart in time the two rows may be: `within: 5m`"));
                    }
                    return None;
                };
                let with = spec.with.as_ref();
                let bootstrap = with.is_none_or(|with| value_or(&with.bootstrap, || true));
                Some(match is_table {
                    true => Matching::Table { within_ms, exact, bootstrap },
                    false => Matching::Temporal { within_ms, exact },
                })
            }
        }
    }

    fn interval(&mut self, spec: &JoinSpec, within_ms: Option<i64>) -> Option<Matching> {
        if let Some(within_ms) = within_ms {
            return Some(Matching::Interval { before_ms: within_ms, after_ms: within_ms });
        }
        let Some(at) = spec.before_ms.as_ref().or(spec.after_ms.as_ref()) else {
            let finding = spec.at.error("missing_field", "`kind: interval` needs `within`, or `before` and `after`");
            self.say(finding.with_help("how far apart in time the two rows may be: `within: 10m`"));
            return None;
        };
        let (before_ms, after_ms) = (value_or(&spec.before_ms, || 0), value_or(&spec.after_ms, || 0));
        if before_ms.saturating_add(after_ms) < 0 {
            let finding = at.error("empty_interval", "`before` and `after` leave no time between them");
            self.say(finding.with_help("one of them may be negative, their sum may not"));
        }
        Some(Matching::Interval { before_ms, after_ms })
    }

    fn kept_sides(&mut self, spec: &JoinSpec) -> (bool, bool) {
        let join_type = value_or(&spec.join_type, || JoinType::Inner);
        let keeps_right = matches!(join_type, JoinType::Right | JoinType::Full);
        let is_temporal = spec.kind.as_ref().is_some_and(|kind| kind.value == JoinKind::Temporal);
        if let Some(at) = spec.join_type.as_ref().filter(|_| keeps_right && is_temporal) {
            let finding = at.error("unfit_option", "a temporal join is `inner` or `left`");
            self.say(finding.with_help("it sends each left row once; `kind: interval` sends right rows, too"));
        }
        (matches!(join_type, JoinType::Left | JoinType::Full), keeps_right)
    }

    /// The object's name is the head of paths.
    fn object_name(&mut self, spec: &JoinSpec, inputs: &mut Inputs<'_>) -> Option<String> {
        let at = spec.name.as_ref()?;
        let name = &at.value;
        if name.is_empty() || name.starts_with('_') || name.contains(|c: char| c == '.' || c.is_whitespace()) {
            let help = "a name such as `user`: its fields are then `user.name`, without dots, spaces and `_` in front";
            self.say(at.error("bad_name", "the joined object cannot have this name").with_help(help));
            return None;
        }
        if inputs.names.contains(name) {
            let finding = at.error("twice", format!("two joins call their object `{name}`"));
            self.say(finding.with_help("each join has an `as` of its own"));
        }
        inputs.names.push(name.clone());
        Some(name.clone())
    }

    /// What the right side reads (no input, where it is not known which), and its steps.
    fn right_side<'s>(
        &mut self,
        with: &'s WithSpec,
        is_table: bool,
        inputs: &mut Inputs<'s>,
    ) -> (SidePlan, DraftedSteps) {
        self.retained(with, is_table);
        let side = self.side_plan(&with.source, vec![], inputs.interval);
        let own = with.source.kafka.as_ref();
        own.into_iter().for_each(|own| self.one_connection(own, &with.source.at, inputs));
        let topics = own.and_then(|own| self.topics_plan(&with.source, &own.topics, "with")).unwrap_or_default();
        let places = topics.into_iter().map(|topic| self.input_of(topic, &side, is_table, with, inputs)).collect();
        let side = SidePlan { inputs: places, ..side };
        inputs.is_right_side = true;
        let steps = self.steps_plan(&with.steps, inputs);
        inputs.is_right_side = false;
        (side, steps)
    }

    /// `retain`, `bootstrap`, and what a table does not have.
    fn retained(&mut self, with: &WithSpec, is_table: bool) {
        if let Some(at) = with.retain_ms.as_ref().filter(|at| at.value.is_some()) {
            let message = "`retain` is `forever`, which makes the right side a table, or left out";
            let help = "a right row that is not of a table is kept as long as the join's window can need it";
            self.say(at.error("unfit_option", message).with_help(help));
        }
        if let Some(at) = with.bootstrap.as_ref().filter(|_| !is_table && with.retain_ms.is_none()) {
            let finding = at.error("unfit_option", "`bootstrap` needs `retain: forever`");
            self.say(finding.with_help("only a table is read whole before the first left row"));
        }
        if !is_table {
            return;
        }
        if let Some(at) = &with.source.start {
            let finding = at.error("unfit_option", "a table has no `start`: it is read from the beginning");
            self.say(finding.with_help("leave `start` out"));
        }
        if let Some(at) = &with.source.tombstones {
            let message = "`tombstones` does nothing here: in a table they delete";
            self.say(at.error("unused", message).as_warning());
        }
    }

    /// One consumer reads all topics of a pipeline, so that a task has the same partition of each.
    fn one_connection(&mut self, own: &KafkaSpec, at: &At<()>, inputs: &Inputs<'_>) {
        let (Some(source), Some(plan)) = (inputs.source.and_then(|source| source.kafka.as_ref()), &inputs.kafka) else {
            return;
        };
        let laid_over = KafkaSpec {
            brokers: own.brokers.clone().or(source.brokers.clone()),
            topics: vec![],
            group: own.group.clone().or(source.group.clone()),
            instance_id: own.instance_id.clone().or(source.instance_id.clone()),
            security: own.security.clone().or(source.security.clone()),
            librdkafka: source.librdkafka.clone().into_iter().chain(own.librdkafka.clone()).collect(),
        };
        if self.kafka_plan(&laid_over, &inputs.pipeline, at).is_some_and(|with| with != *plan) {
            let message = "the right side reads from Kafka in another way than the source";
            let help = "all inputs of a pipeline share brokers, security and group: leave them out here";
            self.say(at.error("other_connection", message).with_help(help));
        }
    }

    /// The input of a right side's topic; a topic that another side reads is the same input.
    fn input_of(
        &mut self,
        topic: TopicPlan,
        side: &SidePlan,
        is_table: bool,
        with: &WithSpec,
        inputs: &mut Inputs<'_>,
    ) -> usize {
        let Some(known) = inputs.topics.iter().position(|earlier| earlier.name == topic.name) else {
            inputs.topics.push(topic);
            inputs.readers.push(Reader { side: Some(side.clone()), is_table });
            return inputs.topics.len() - 1;
        };
        let at = At { value: (), at: topic.at, path: with.source.at.path.clone() };
        let reader = &inputs.readers[known];
        if is_table || reader.is_table {
            let message = format!("`{}` is a table here and read by another side, too", topic.name);
            self.say(at.error("table_and_stream", message).with_help("a table needs a topic of its own"));
        } else if reader.side.as_ref().is_some_and(|other| !are_read_alike(other, side)) {
            let message = format!("`{}` is read by two sides in two ways", topic.name);
            let help = "both sides of a self join have the same `time`, `tombstones` and `max_payload`";
            self.say(at.error("read_twice", message).with_help(help));
        } else if let Some(start) = with.source.start.as_ref().filter(|_| inputs.topics[known].start != topic.start) {
            let message = format!("`{}` begins elsewhere for another side", topic.name);
            self.say(start.error("read_twice", message).with_help("a topic is read once: write `start` at one side"));
        }
        known
    }
}

/// Whether a record is the same row, or none, for both.
fn are_read_alike(one: &SidePlan, other: &SidePlan) -> bool {
    // Not where it stands in the file.
    fn of(time: &TimePlan) -> impl PartialEq + use<'_> {
        let field = time.field.as_ref().map(|field| field.text.as_str());
        (field, time.unit, time.zone.as_str(), time.lateness_ms, time.idle_ms, time.max_future_ms)
    }
    of(&one.time) == of(&other.time)
        && one.tombstones == other.tombstones
        && one.max_payload_bytes == other.max_payload_bytes
}
