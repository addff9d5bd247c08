//! A pipeline's numbers as one JSON object (`interface.md`): what the summary of a run and the API show.

use crate::metrics::{PipelineStats, StepKind, StepStats};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;

/// The object of one pipeline. `seconds` is how long it ran, for the rates.
pub fn pipeline_object(stats: &PipelineStats, seconds: f64) -> Value {
    let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let read = stats.records_read();
    let written = stats.rows_written.load(Relaxed);
    let step_sum = |kind: Option<StepKind>, number: fn(&StepStats) -> u64| -> u64 {
        stats.steps.iter().filter(|step| kind.is_none_or(|kind| step.kind == kind)).map(number).sum()
    };
    let dead_letters = stats.dead_letters();
    let mut by_reason = serde_json::Map::new();
    for ((_, reason), count) in &dead_letters {
        let before = by_reason.get(*reason).and_then(Value::as_u64).unwrap_or(0);
        by_reason.insert((*reason).to_owned(), json!(before + count));
    }
    let (blocks, rows) = (stats.blocks_sealed.load(Relaxed), stats.rows_sealed.load(Relaxed));
    let joins: Vec<Value> =
        stats.steps.iter().enumerate().filter_map(|(place, step)| join_object(stats, place, step)).collect();
    let dedups = stats.steps.iter().enumerate().filter(|(_, step)| step.kind == StepKind::Dedup);
    let dedups: Vec<Value> = dedups.map(|(place, step)| dedup_object(stats, place, step)).collect();
    let watermark = stats.tasks().values().map(|task| task.watermark_ms).filter(|ms| *ms != i64::MIN).min();
    json!({
        "pipeline": stats.pipeline,
        "state": stats.state().name(),
        "records": {
            "read": read,
            "bytes": stats.topics.iter().map(|topic| topic.bytes.load(Relaxed)).sum::<u64>(),
            "per_second": per_second(read),
            "tombstones": stats.tombstones.load(Relaxed),
        },
        "rows": {
            "written": written,
            "per_second": per_second(written),
            "filtered": step_sum(Some(StepKind::Filter), |step| step.dropped.load(Relaxed)),
            "late": step_sum(None, |step| step.late.load(Relaxed)),
        },
        "dedup": dedups,
        "joins": joins,
        "dead_letters": { "total": dead_letters.values().sum::<u64>(), "by_reason": by_reason },
        "batches": {
            "sealed": blocks,
            "acknowledged": stats.blocks_acknowledged.load(Relaxed),
            "rows_mean": if blocks > 0 { rows as f64 / blocks as f64 } else { 0.0 },
            "retries": stats.insert_retries(),
            "insert_seconds": quantiles(&stats.inserts),
        },
        "lag": { "records": stats.lag_records(), "partitions": lags(stats) },
        "watermark": watermark.map(|ms| crate::codec::time::Moment::from_ms(ms).to_rfc3339_ms()),
        "latency_seconds": quantiles(&stats.latency),
        "processing_seconds": quantiles(&stats.processing),
        "state_bytes": stats.state_bytes(),
        "last_error": stats.last_error(),
    })
}

fn dedup_object(stats: &PipelineStats, place: usize, step: &StepStats) -> Value {
    let (passed, duplicates) = (step.rows_out.load(Relaxed), step.dropped.load(Relaxed));
    let all = passed + duplicates;
    let share = if all > 0 { duplicates as f64 / all as f64 } else { 0.0 };
    json!({
        "step": step.name,
        "passed": passed,
        "duplicates": duplicates,
        "duplicate_share": share,
        "doubts": stats.dedup_doubts(place),
    })
}

/// `None` for a step that is no join.
fn join_object(stats: &PipelineStats, place: usize, step: &StepStats) -> Option<Value> {
    if step.kind != StepKind::Join {
        return None;
    }
    let tasks = stats.tasks();
    let here = tasks.values().flat_map(|task| &task.joins).filter(|join| join.step == place);
    let (waiting, oldest_ms) =
        (here.clone().map(|join| join.rows).sum::<u64>(), here.filter_map(|join| join.oldest_ms).min());
    let (matched, decided) = (step.left_matched.load(Relaxed), step.left_decided.load(Relaxed));
    Some(json!({
        "step": step.name,
        "matched": step.matched.load(Relaxed),
        "unmatched": step.unmatched.load(Relaxed),
        "dropped": step.dropped.load(Relaxed),
        "waiting": waiting,
        "oldest_waiting": oldest_ms.map(|ms| crate::codec::time::Moment::from_ms(ms).to_rfc3339_ms()),
        "doubts": stats.join_doubts(place),
        "join_rate": if decided > 0 { matched as f64 / decided as f64 } else { 0.0 },
    }))
}

fn quantiles(of: &crate::metrics::Quantiles) -> Value {
    json!({ "p50": of.quantile(0.5), "p99": of.quantile(0.99) })
}

fn lags(stats: &PipelineStats) -> Vec<Value> {
    let tasks = stats.tasks();
    let mut all = Vec::new();
    for (partition, task) in &tasks {
        for (topic, lag) in stats.topics.iter().zip(&task.lags) {
            all.push(json!({
                "topic": topic.topic, "partition": partition, "offset": lag.offset, "end": lag.end,
                "lag": (lag.end - lag.offset).max(0),
            }));
        }
    }
    all
}
