//! `GET …/ledger`: where every record of each partition went, and whether the sums agree.

use super::guard::MayLook;
use super::problem::Problem;
use super::{Watched, at_rest, desk, json_response, on_disk};
use crate::metrics::StepKind;
use crate::runtime::balance::{self, Balance, StepBalance};
use crate::runtime::{compile, pipeline};
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};

pub fn routes() -> Router<Watched> {
    Router::new().route("/api/v1/pipelines/{name}/ledger", get(ledger))
}

async fn ledger(MayLook(watched): MayLook, Path(name): Path<String>) -> Result<Response, Problem> {
    let desk = desk(&watched, &name)?;
    let tasks = watched.pipelines.iter().find(|stats| stats.pipeline == name).map(|stats| stats.tasks());
    on_disk(move || {
        let store = desk.store().ok_or_else(|| at_rest(&desk))?;
        let steps = compile::step_names(&desk.plan);
        let target = format!("/{}", pipeline::rows_target(&desk.plan));
        let mut partitions = Vec::new();
        for (partition, task) in tasks.unwrap_or_default() {
            let is_row = |token: &str| token.ends_with(&target);
            let balance = balance::of_partition(&*store, partition, &steps, task.acknowledged, is_row);
            partitions.extend(balance.map_err(|error| Problem::of(&error))?);
        }
        Ok(json_response(&ledger_json(&partitions)))
    })
    .await
}

fn ledger_json(partitions: &[Balance]) -> Value {
    let objects: Vec<Value> = partitions.iter().map(partition_json).collect();
    json!({ "partitions": objects, "balanced": partitions.iter().all(|partition| partition.differs.is_empty()) })
}

fn partition_json(balance: &Balance) -> Value {
    let steps: Vec<Value> = balance.steps.iter().map(step_json).collect();
    let mut object = json!({
        "partition": balance.partition,
        "records": balance.records,
        "tombstones": balance.tombstones,
        "broken": balance.broken,
        "steps": steps,
        "written": balance.written,
        "outbox": balance.outbox,
        "balanced": balance.differs.is_empty(),
    });
    if balance.aside != 0 {
        object["right_rows"] = json!(balance.aside);
    }
    if balance.discarded > 0 {
        object["discarded"] = json!(balance.discarded);
    }
    if !balance.differs.is_empty() {
        object["differs"] = json!(balance.differs);
    }
    object
}

fn step_json(step: &StepBalance) -> Value {
    let mut object = json!({
        "step": step.step.name,
        "in": step.rows_in,
        "out": step.rows_out,
        "dead_letters": step.dead_letters,
        "waiting": step.waiting,
    });
    if step.step.kind == StepKind::Join {
        object["matched"] = step.matched.into();
    }
    let dropped = match step.step.kind {
        StepKind::Filter => "filtered",
        StepKind::Dedup => "duplicates",
        StepKind::Select | StepKind::Join => "dropped",
    };
    object[dropped] = step.dropped.into();
    if step.step.kind == StepKind::Dedup {
        object["dropped"] = step.unjudged.into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::StepName;

    fn step_of(kind: StepKind) -> StepBalance {
        let step = StepName { name: "1".to_owned(), kind };
        let (rows_in, rows_out, dropped, unjudged, dead_letters, accounted) = (11, 5, 3, 2, 1, 11);
        StepBalance { step, rows_in, rows_out, dropped, unjudged, dead_letters, accounted, matched: 4, waiting: 0 }
    }

    /// Stable from the first release.
    #[test]
    fn the_ledger_has_these_fields() {
        let steps = [StepKind::Filter, StepKind::Select, StepKind::Dedup, StepKind::Join].map(step_of).into();
        let good = Balance {
            partition: 3,
            records: 12,
            tombstones: 1,
            broken: 2,
            aside: 0,
            steps,
            written: 4,
            outbox: 1,
            discarded: 0,
            differs: vec![],
        };
        let differs = vec!["step 1: in 9, accounted for 8".to_owned()];
        let bad = Balance { discarded: 5, differs: differs.clone(), steps: vec![], ..good.clone() };
        let expected = json!({
            "partitions": [
                {
                    "partition": 3, "records": 12, "tombstones": 1, "broken": 2,
                    "steps": [
                        { "step": "1", "in": 11, "out": 5, "filtered": 3, "dead_letters": 1, "waiting": 0 },
                        { "step": "1", "in": 11, "out": 5, "dropped": 3, "dead_letters": 1, "waiting": 0 },
                        { "step": "1", "in": 11, "out": 5, "duplicates": 3, "dropped": 2, "dead_letters": 1, "waiting": 0 },
                        { "step": "1", "in": 11, "out": 5, "dropped": 3, "matched": 4, "dead_letters": 1, "waiting": 0 }
                    ],
                    "written": 4, "outbox": 1, "balanced": true
                },
                {
                    "partition": 3, "records": 12, "tombstones": 1, "broken": 2, "steps": [],
                    "written": 4, "outbox": 1, "discarded": 5, "balanced": false, "differs": differs
                }
            ],
            "balanced": false
        });
        assert_eq!(ledger_json(&[good.clone(), bad]), expected);
        assert_eq!(ledger_json(&[good])["balanced"], true);
        assert_eq!(ledger_json(&[]), json!({ "partitions": [], "balanced": true }));
    }

    #[test]
    fn a_step_names_what_it_drops_by_its_kind() {
        let step = |kind| step_json(&step_of(kind));
        let dedup =
            json!({ "step": "1", "in": 11, "out": 5, "duplicates": 3, "dropped": 2, "dead_letters": 1, "waiting": 0 });
        assert_eq!(step(StepKind::Dedup), dedup);
        assert_eq!(step(StepKind::Filter)["filtered"], 3);
        assert_eq!((&step(StepKind::Join)["dropped"], &step(StepKind::Join)["matched"]), (&json!(3), &json!(4)));
    }
}
