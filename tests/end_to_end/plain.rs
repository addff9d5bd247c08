//! Nothing goes wrong: to the end and out.

use crate::flow::Events;
use crate::oracle::{assert_same, deduplicated, stored};
use crate::stage::Stage;
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::Kafka;

#[test]
fn until_end_writes_each_row_once_and_sums_up() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("until_end", kafka, clickhouse, 3);
    let mut events = Events::new(1);
    for round in 0..3 {
        kafka.produce(&stage.name, &events.take(1000));
        let mut weir = stage.weir_with("a", &["--until-end", "--format", "json"]);
        let status = weir.wait(PATIENCE);
        assert!(status.success(), "weir ended with {status}:\n{}", weir.log());
        let expected = deduplicated(&kafka.read_all(&stage.name), None);
        assert_same(&stage.name, &stored(clickhouse, &stage.table()), &expected);
        let summary: serde_json::Value = serde_json::from_str(&weir.output()).expect("one JSON object on stdout");
        let pipeline = &summary["pipelines"][0];
        assert_eq!(pipeline["pipeline"], "until_end");
        assert_eq!(pipeline["records"]["read"], 1000, "round {round}: {pipeline}");
        assert_eq!(pipeline["lag"]["records"], 0, "round {round}: {pipeline}");
        let committed: i64 = kafka.committed(&stage.group(), &stage.name).iter().map(|(offset, _)| offset).sum();
        assert_eq!(committed, 1000 * (round + 1), "all is committed");
    }
}
