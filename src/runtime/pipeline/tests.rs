//! What is shown of a pipeline while it starts.

use super::*;
use crate::clock::SystemClock;
use crate::metrics::TaskSnapshot;
use crate::runtime::delivery::Delivery;
use crate::runtime::engine::RunOptions;
use crate::state::rocks::Shared;

fn plan() -> crate::config::plan::Plan {
    let text = "
kafka: { brokers: [\"k:1\"] }
clickhouse: { url: \"http://c:1\" }
pipelines: [ { name: p, source: { kafka: { topic: t } }, sink: { clickhouse: { table: t } } } ]
";
    let (plan, findings) = crate::config::parse(text, &|_| None);
    plan.unwrap_or_else(|| panic!("{findings:?}"))
}

fn stats() -> Arc<PipelineStats> {
    PipelineStats::new("p", "d.t", &["t".to_owned()], &[])
}

#[test]
fn a_start_anew_knows_nothing_of_the_tasks_of_the_run_before() {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (plan, stats, clock) = (plan(), stats(), Arc::new(SystemClock));
    let process = Process {
        clock: clock.clone(),
        workers: vec![],
        delivery: Delivery::start(tokio.handle().clone(), clock),
        tokio: tokio.handle().clone(),
        rocks: Shared::new(8 << 20, 8 << 20),
        memory_limit_bytes: 1 << 30,
        pipelines: 1,
        sharing: Default::default(),
        beside_ms: Default::default(),
        options: RunOptions::default(),
        gates: Default::default(),
    };
    stats.set_state(PipelineState::Running);
    stats.set_task(3, TaskSnapshot { restoring: true, ..TaskSnapshot::default() });
    assert_eq!(stats.state(), PipelineState::Restoring);
    let pipeline = &plan.pipelines[0];
    let (desk, stop) = (Desk::new(pipeline.clone()), Arc::new(AtomicBool::new(true)));
    run_once(0, pipeline, &plan.state, &process, &stats, &desk, &stop).unwrap();
    assert!(stats.tasks().is_empty() && stats.state() == PipelineState::Running, "{:?}", stats.tasks());
}

#[test]
fn what_a_start_waits_for_is_told_until_it_is_there() {
    let (plan, stats, stop) = (plan(), stats(), Arc::new(AtomicBool::new(false)));
    let mut told = vec![];
    let reached = until_reached(&stop, &plan.pipelines[0], &stats, || {
        told.push(stats.last_error());
        if told.len() == 1 { Err(Error::retry("network", "nobody is there")) } else { Ok(5) }
    });
    assert_eq!(reached, Ok(Some(5)));
    assert_eq!((told, stats.last_error()), (vec![None, Some("nobody is there".to_owned())], None));
}
