//! A pipeline: its name, its inputs, its times.

use super::join::Inputs;
use super::{Check, defaults, value_or};
use crate::config::plan::{
    DeliveryGuarantee, Draft, FollowOr, HaltOr, KafkaPlan, PipelinePlan, SidePlan, StartAt, TimePlan, TimeUnit,
    Tombstones, TopicPlan, UnclearChoice,
};
use crate::config::read::At;
use crate::config::spec::connection::KafkaSpec;
use crate::config::spec::pipeline::{PipelineSpec, SourceSpec, TimeSpec};
use crate::config::spec::sink::SinkSpec;
use crate::config::spec::step::StepSpec;

/// As long as a folder name, a group and a label may sensibly be.
const NAME_CHARS_MAX: usize = 100;
/// A task notes in one number which of its inputs are idle.
const TOPICS_MAX: usize = 64;
/// Kafka's own bound.
const TOPIC_CHARS_MAX: usize = 249;

impl Check<'_> {
    /// The plan, where all of it is there, and what is left of it where not.
    pub(super) fn pipeline_plan(&mut self, spec: &PipelineSpec) -> (Option<PipelinePlan>, Draft) {
        let name = spec.name.as_ref().filter(|name| self.name_fits(name));
        let pipeline = name.map_or("pipeline", |name| &name.value);
        let source = spec.source.as_ref();
        let topics = source.and_then(|source| self.source_topics_plan(source));
        let kafka = source.and_then(|source| self.source_kafka_plan(source, pipeline));
        let interval = spec.sink.as_ref().and_then(|SinkSpec::ClickHouse(sink)| sink.batch.interval_ms.as_ref());
        let of_source = topics.as_ref().map_or(0, Vec::len);
        let side = source.map(|source| self.side_plan(source, (0..of_source).collect(), interval));
        let mut inputs = Inputs::new(pipeline, source, kafka.as_ref(), topics.unwrap_or_default(), side.as_ref());
        inputs.interval = interval;
        let steps = self.steps_plan(&spec.steps, &mut inputs);
        let topics = (of_source > 0).then_some(inputs.topics);
        let columns = spec.sink.as_ref().filter(|_| steps.are_all).map(|SinkSpec::ClickHouse(sink)| &sink.columns);
        let draft = Draft {
            path: spec.path.clone(),
            source: side.clone().unwrap_or_else(|| self.no_side()),
            steps: steps.steps.clone(),
            columns: columns.cloned().unwrap_or_default(),
        };
        let sink = spec.sink.as_ref().and_then(|sink| self.sink_plan(sink));
        let dead_letters = self.dead_letters_plan(spec, topics.as_deref().unwrap_or_default(), sink.as_ref());
        self.race_between_topics(spec);
        if let (Some(name), Some(topics)) = (name, topics.as_ref().filter(|topics| topics.len() > TOPICS_MAX)) {
            let message = format!("a pipeline reads at most {TOPICS_MAX} topics, and these are {}", topics.len());
            self.say(name.error("too_many", message));
            return (None, draft);
        }
        let plan = || {
            Some(PipelinePlan {
                name: name?.value.clone(),
                at: name?.at,
                kafka: kafka?,
                topics: topics?,
                source: side?,
                steps: steps.whole()?,
                sink: sink?,
                dead_letters: dead_letters?,
                delivery: value_or(&spec.delivery, || DeliveryGuarantee::ExactlyOnce),
                on_gap: value_or(&spec.on_gap, || HaltOr::Halt),
                on_offset_reset: value_or(&spec.on_offset_reset, || FollowOr::Follow),
                on_partition_growth: value_or(&spec.on_partition_growth, || HaltOr::Halt),
                on_unclear: value_or(&spec.on_unclear, || UnclearChoice::Halt),
                strict: value_or(&spec.strict, || false),
            })
        };
        (plan(), draft)
    }

    /// Stands for a side that is not written.
    pub(super) fn no_side(&mut self) -> SidePlan {
        SidePlan {
            inputs: vec![],
            time: self.time_plan(None, None),
            tombstones: Tombstones::Skip,
            max_payload_bytes: defaults::MAX_PAYLOAD_BYTES as usize,
        }
    }

    /// The name is a folder, a part of the group and of every token.
    fn name_fits(&mut self, name: &At<String>) -> bool {
        let text = &name.value;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let fits = text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(allowed)
            && text.len() <= NAME_CHARS_MAX
            && !text.ends_with('.');
        if !fits {
            let help = format!(
                "a name has letters a to z, digits, `-`, `_` and `.`, begins with a letter or digit, does not end \
                 with `.`, and has at most {NAME_CHARS_MAX} characters: it names a folder"
            );
            self.say(name.error("bad_name", "a pipeline cannot have this name").with_help(help));
        }
        fits
    }

    fn source_kafka_plan(&mut self, source: &SourceSpec, pipeline: &str) -> Option<KafkaPlan> {
        self.kafka_plan(source.kafka.as_ref()?, pipeline, &source.at)
    }

    fn source_topics_plan(&mut self, source: &SourceSpec) -> Option<Vec<TopicPlan>> {
        let own: &KafkaSpec = source.kafka.as_ref()?;
        let topics = if own.topics.is_empty() { &self.kafka.topics.clone() } else { &own.topics };
        self.topics_plan(source, topics, "source")
    }

    /// The topics that one side names.
    pub(super) fn topics_plan(
        &mut self,
        source: &SourceSpec,
        topics: &[At<String>],
        side: &str,
    ) -> Option<Vec<TopicPlan>> {
        if topics.is_empty() {
            let finding = source.at.error("missing_field", format!("`{side}.kafka` needs `topic`"));
            self.say(finding.with_help("`kafka: { topic: name }`, or `topics: [a, b]`"));
            return None;
        }
        let start = value_or(&source.start, || StartAt::Earliest);
        let mut plan: Vec<TopicPlan> = Vec::new();
        for topic in topics {
            self.topic_fits(topic);
            if plan.iter().any(|earlier| earlier.name == topic.value) {
                self.say(topic.error("twice", format!("the topic `{}` is listed twice", topic.value)));
                continue;
            }
            plan.push(TopicPlan { name: topic.value.clone(), at: topic.at, start });
        }
        Some(plan)
    }

    pub(super) fn topic_fits(&mut self, topic: &At<String>) {
        let text = &topic.value;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.len() > TOPIC_CHARS_MAX || text == "." || text == ".." || !text.chars().all(allowed) {
            let help =
                format!("Kafka's topics have letters, digits, `.`, `_` and `-`, at most {TOPIC_CHARS_MAX} of them");
            self.say(topic.error("bad_topic", "no topic can have this name").with_help(help));
        }
    }

    pub(super) fn side_plan(&mut self, spec: &SourceSpec, inputs: Vec<usize>, interval: Option<&At<i64>>) -> SidePlan {
        SidePlan {
            inputs,
            time: self.time_plan(spec.time.as_ref(), interval),
            tombstones: value_or(&spec.tombstones, || Tombstones::Skip),
            max_payload_bytes: value_or(&spec.max_payload_bytes, || defaults::MAX_PAYLOAD_BYTES) as usize,
        }
    }

    fn time_plan(&mut self, spec: Option<&TimeSpec>, interval: Option<&At<i64>>) -> TimePlan {
        let get = |pick: fn(&TimeSpec) -> &Option<At<i64>>| spec.and_then(|spec| pick(spec).as_ref());
        let unit = spec.and_then(|spec| spec.unit.as_ref());
        let zone = spec.and_then(|spec| spec.zone.as_ref());
        let max_future = get(|spec| &spec.max_future_ms);
        let plan = TimePlan {
            field: spec.and_then(|spec| spec.field.clone()),
            unit: unit.map_or(TimeUnit::Iso, |at| at.value),
            zone: zone.map_or(defaults::ZONE.to_string(), |at| at.value.clone()),
            lateness_ms: get(|spec| &spec.lateness_ms).map_or(defaults::LATENESS_MS, |at| at.value),
            idle_ms: get(|spec| &spec.idle_ms).map_or(defaults::IDLE_MS, |at| at.value),
            max_future_ms: max_future.map_or(defaults::MAX_FUTURE_MS, |at| at.value),
        };
        if plan.field.is_none() {
            let unused = unit.map(|at| at.clone().map(|_| "unit")).or(zone.map(|at| at.clone().map(|_| "zone")));
            if let Some(at) = unused {
                let finding = at.error("missing_field", format!("`{}` needs `field` beside it", at.value));
                self.say(finding.with_help("the Kafka record timestamp has a unit of its own"));
            }
        } else if let Some(at) = zone.filter(|_| plan.unit != TimeUnit::Iso) {
            self.say(at.error("unused", "`zone` does nothing for numbers: they count from 1970 in UTC").as_warning());
        }
        self.future_is_far_enough(plan.max_future_ms, max_future, interval);
        plan
    }

    /// A record may wait one interval before its epoch's clock is noted again (`semantics.md`, Time).
    fn future_is_far_enough(&mut self, max_future_ms: i64, written: Option<&At<i64>>, interval: Option<&At<i64>>) {
        let interval_ms = interval.map_or(defaults::BATCH_INTERVAL_MS, |at| at.value);
        // One of them is written: the defaults fit each other.
        let Some(at) = written.or(interval).filter(|_| max_future_ms < interval_ms.saturating_mul(2)) else { return };
        let (future, twice) = (max_future_ms as f64 / 1000.0, interval_ms as f64 / 500.0);
        let message = format!("`max_future` is {future}s; it has to be twice the batch interval, {twice}s, or more");
        let help = "a record that comes while a batch is open would count as one of the future";
        self.say(at.error("max_future", message).with_help(help));
    }

    /// Says what a restore cannot promise (`exactly-once.md`, What is not promised).
    fn race_between_topics(&mut self, spec: &PipelineSpec) {
        let topics = spec.source.as_ref().and_then(|source| source.kafka.as_ref()).map(|kafka| &kafka.topics);
        let Some([_, second, ..]) = topics.map(Vec::as_slice) else { return };
        let dedups = spec.steps.iter().any(|step| matches!(step, StepSpec::Dedup(_)));
        if dedups {
            let message = "which of two topics' records comes first is a race, and dedup looks at it";
            let help = "exact on its own disk; after a lost disk a row that was decided the other way can be missing \
                        or come twice";
            self.say(second.error("race_between_topics", message).as_note().with_help(help));
        }
    }
}
