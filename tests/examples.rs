//! Every example configuration is good, and does what its comments say: it runs against an in-process Kafka and the
//! embedded ClickHouse, into the table that `config/clickhouse/` makes for it.

#[path = "examples/run.rs"]
mod run;
#[path = "support/mod.rs"]
mod support;

use run::{Example, Record, configs, tables};
use weir::config;
use weir::error::Severity;

/// What the machine's own environment may hold has no say here.
fn no_variables(_: &str) -> Option<String> {
    None
}

#[test]
fn every_example_is_good_without_any_variable() {
    for (path, text) in configs() {
        let (plan, findings) = config::parse(&text, &no_variables);
        let loud: Vec<_> = findings.iter().filter(|finding| finding.severity != Severity::Note).collect();
        assert!(plan.is_some() && loud.is_empty(), "{path}: {loud:#?}");
    }
}

#[test]
fn the_configurations_in_the_readme_are_good() {
    let readme = include_str!("../README.md");
    let blocks: Vec<&str> = readme.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        let (plan, findings) = config::parse(block, &no_variables);
        let loud: Vec<_> = findings.iter().filter(|finding| finding.severity != Severity::Note).collect();
        assert!(plan.is_some() && loud.is_empty(), "{block}\n{loud:#?}");
    }
}

#[test]
fn every_example_takes_its_connections_from_the_same_variables() {
    let variables = [
        "KAFKA_BROKERS",
        "CLICKHOUSE_URL",
        "CLICKHOUSE_USER",
        "CLICKHOUSE_PASSWORD",
        "WEIR_STATE_PATH",
        "WEIR_HTTP_LISTEN",
    ];
    for (path, text) in configs() {
        let missing: Vec<_> = variables.iter().filter(|name| !text.contains(&format!("${{{name}:-"))).collect();
        assert!(missing.is_empty(), "{path} does not read {missing:?}");
    }
}

#[test]
fn every_example_is_run_by_a_test_below_and_has_its_table() {
    let here = include_str!("examples.rs");
    for (path, _) in configs() {
        assert!(here.contains(&format!("config: \"{path}\"")), "no test runs {path}");
    }
    let made = tables();
    for (path, text) in configs() {
        let (plan, _) = config::parse(&text, &no_variables);
        for pipeline in plan.unwrap().pipelines {
            let weir::config::plan::SinkPlan::ClickHouse(sink) = pipeline.sink;
            assert!(made.contains_key(&sink.table), "{path} writes {}, which no SQL file makes", sink.table);
        }
    }
}

#[test]
fn the_first_record_of_a_session_stays() {
    let session = |id: &str, user: u32| {
        format!(
            r#"{{"session_id":"{id}","user_id":{user},"event":"checkout","page":"/shop","product":null,"price":19.90,"currency":"EUR","country":"DE","device":"mobile","referrer":"search","ts":"2026-03-01T10:00:00.250Z"}}"#
        )
    };
    let (a, b) = ("7d1a1d3e-0a52-4c8f-9a86-0c3a5d6f1b01", "0c9e6f5a-6f2b-4a57-8a8e-52b1f1f2ab02");
    let result = Example {
        config: "config/weir.yaml",
        records: vec![
            Record::of(a, session(a, 1)),
            Record::of(b, session(b, 2)),
            Record::of(a, session(a, 1)),
            Record::of(b, session(b, 3)),
            Record::of("c", r#"{"session_id": "cut"#),
        ],
        result: "SELECT session_id, user_id, product, price, toString(ts) FROM user_sessions_clean ORDER BY user_id",
    }
    .run();
    assert_eq!(
        result.rows,
        format!("{a}\t1\t\\N\t19.9\t2026-03-01 10:00:00.250\n{b}\t2\t\\N\t19.9\t2026-03-01 10:00:00.250")
    );
    assert_eq!((result.duplicates, result.dead_letters), (2, 1));
}

#[test]
fn one_row_for_each_session_and_kind_of_event() {
    let event = |kind: &str, second: u32| {
        let value = format!(
            r#"{{"session_id":"s1","event_type":"{kind}","user":{{"name":"Ada","email":null}},"timestamp":"2026-03-01T10:00:{second:02}+01:00"}}"#
        );
        Record::of("s1", value)
    };
    let result = Example {
        config: "config/pipelines/sessions.yaml",
        records: vec![event("login", 1), event("click", 2), event("login", 3), event("login", 1)],
        result: "SELECT event_type, user_name, user_email, toString(timestamp) FROM session_events ORDER BY timestamp",
    }
    .run();
    assert_eq!(result.rows, "login\tAda\t\\N\t2026-03-01 09:00:01.000\nclick\tAda\t\\N\t2026-03-01 09:00:02.000");
    assert_eq!((result.duplicates, result.dead_letters), (2, 0));
}

#[test]
fn only_large_completed_transactions_arrive_in_a_new_shape() {
    let transaction = |id: &str, amount: &str, status: &str| {
        let value = format!(
            r#"{{"transaction_id":"{id}","user":{{"id":7}},"amount":{amount},"status":"{status}","created_at":1772359200000}}"#
        );
        Record::of(id, value)
    };
    let result = Example {
        config: "config/pipelines/filter-select.yaml",
        records: vec![
            transaction("t1", "200.0", "completed"),
            transaction("t2", "99.5", "completed"),
            transaction("t3", "500.0", "pending"),
            transaction("t1", "200.0", "completed"),
            // Nothing is larger than null: the filter cannot be computed.
            transaction("t4", "null", "completed"),
            // Fits the filter, and no Decimal(12, 2).
            transaction("t5", "100.005", "completed"),
        ],
        result: "SELECT transaction_id, user_id, amount, with_fee, source_topic, loaded_at > '2020-01-01' \
                 FROM large_transactions",
    }
    .run();
    assert_eq!(result.rows, "t1\t7\t200\t206\ttransactions\t1");
    assert_eq!((result.duplicates, result.dead_letters), (1, 2));
    let [t4, t5] = result.letters_topic.as_slice() else { panic!("{:?}", result.letters_topic) };
    assert!(t4.contains("\"t4\"") && t5.contains("\"t5\""), "as they were: {t4} {t5}");
}

#[test]
fn prices_that_are_written_differently_are_the_same_offer() {
    let offer = |product: &str, price: &str| {
        let value =
            format!(r#"{{"shop_id":"s","product":{{"id":{product},"price":{price}}},"offered_at":1772359200.5}}"#);
        Record::of("s", value)
    };
    let result = Example {
        config: "config/pipelines/composite-key.yaml",
        records: vec![
            offer("7", "19.9"),
            offer("\"7\"", "\"19.90\""),
            offer("7", "20"),
            offer("8", "19.9"),
            offer("7", "19.999"),
        ],
        result: "SELECT product_id, price, toString(offered_at) FROM price_offers ORDER BY product_id, price \
                 UNION ALL SELECT reason, toDecimal64(offset, 2), step FROM weir_dead_letters",
    }
    .run();
    // The engine promises no order between the parts of a union.
    let (letters, offers): (Vec<_>, Vec<_>) = result.rows.lines().partition(|line| line.starts_with("key_"));
    assert_eq!(
        offers,
        ["7\t19.9\t2026-03-01 10:00:00.500", "7\t20\t2026-03-01 10:00:00.500", "8\t19.9\t2026-03-01 10:00:00.500"]
    );
    assert_eq!(letters, ["key_does_not_fit\t4\t0"], "the fifth record, at the first step");
    assert_eq!((result.duplicates, result.dead_letters), (1, 1));
}

#[test]
fn a_row_is_written_when_something_changed() {
    let status = |status: &str, counter: u32| {
        let value = format!(
            r#"{{"device_id":"d","status":"{status}","firmware":"1.2","location":{{"site":"north"}},"counter":{counter}}}"#
        );
        Record::of("d", value)
    };
    let result = Example {
        config: "config/pipelines/keep-changes.yaml",
        records: vec![status("up", 1), status("up", 2), status("down", 3), status("down", 4), status("up", 5)],
        result: "SELECT status, site, _offset FROM device_changes ORDER BY _offset",
    }
    .run();
    assert_eq!(result.rows, "up\tnorth\t0\ndown\tnorth\t2\nup\tnorth\t4");
    assert_eq!((result.duplicates, result.dead_letters), (2, 0));
}

#[test]
fn an_older_version_that_arrives_late_is_dropped() {
    let version = |stock: u32, hour: u32| {
        let value =
            format!(r#"{{"product_id":1,"name":"lamp","stock":{stock},"updated_at":"2026-03-01 {hour}:00:00"}}"#);
        Record::of("1", value)
    };
    let result = Example {
        config: "config/pipelines/keep-latest.yaml",
        records: vec![version(5, 10), version(3, 12), version(4, 11)],
        result: "SELECT stock, toString(updated_at) FROM products FINAL",
    }
    .run();
    assert_eq!(result.rows, "3\t2026-03-01 11:00:00.000", "noon in Berlin");
    assert_eq!((result.duplicates, result.dead_letters), (1, 0));
}

/// Ten in the morning of the first of March, 2026.
const TEN_MS: i64 = 1_772_359_200_000;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

#[test]
fn an_order_gets_the_customer_as_he_was_when_it_was_placed() {
    let order = |id: &str, customer: u32, at: &str| {
        let value =
            format!(r#"{{"order_id":"{id}","customer_id":{customer},"amount":20,"placed_at":"2026-03-01T{at}:00Z"}}"#);
        Record::of(customer.to_string(), value)
    };
    let customer = |id: u32, name: &str, country: &str, at: &str| {
        let value = format!(
            r#"{{"id":{id},"name":"{name}","address":{{"country":"{country}"}},"updated_at":"2026-03-01T{at}:00Z"}}"#
        );
        Record::of(id.to_string(), value).to("customers")
    };
    let result = Example {
        config: "config/pipelines/enrich-with-table.yaml",
        records: vec![
            customer(1, "Ada Byron", "GB", "08:00"),
            customer(1, "Ada Lovelace", "FR", "10:00"),
            customer(2, "Bob", "PL", "08:00"),
            Record::tombstone("2", TEN_MS - HOUR_MS).to("customers"),
            order("o1", 1, "09:00"),
            order("o2", 1, "11:00"),
            order("o3", 2, "08:30"),
            order("o4", 2, "11:00"),
            // Nobody knows this customer; the second order comes when the first has waited long enough.
            order("o5", 3, "12:00"),
            order("o6", 3, "13:00"),
        ],
        result: "SELECT order_id, customer_id, customer_name, country FROM orders_with_customers ORDER BY order_id",
    }
    .run();
    let rows = [
        "o1\t1\tAda Byron\tGB",
        "o2\t1\tAda Lovelace\tFR",
        "o3\t2\tBob\tPL",
        "o4\t2\t\\N\tunknown",
        "o5\t3\t\\N\tunknown",
    ];
    assert_eq!(result.rows.lines().collect::<Vec<_>>(), rows);
    assert_eq!(result.dead_letters, 0);
}

#[test]
fn every_payment_within_the_interval_and_every_unpaid_order_is_a_row() {
    let order = |id: &str, at_ms: i64| {
        let value = format!(r#"{{"order_id":"{id}","amount":20,"placed_at":{}}}"#, TEN_MS + at_ms);
        Record::of("one partition", value)
    };
    let payment = |id: &str, order: &str, state: &str, at_ms: i64| {
        let value = format!(
            r#"{{"payment_id":"{id}","order_id":"{order}","state":"{state}","amount":10.5,"paid_at":{}}}"#,
            TEN_MS + at_ms
        );
        Record::of("one partition", value).to("payments")
    };
    let result = Example {
        config: "config/pipelines/orders-payments.yaml",
        records: vec![
            order("a", 0),
            order("b", 10 * MINUTE_MS),
            order("c", 20 * MINUTE_MS),
            payment("p3", "b", "captured", 9 * MINUTE_MS),
            payment("p3", "b", "captured", 9 * MINUTE_MS),
            payment("p4", "b", "refused", 11 * MINUTE_MS),
            payment("p1", "a", "captured", HOUR_MS - 1),
            payment("p2", "a", "captured", HOUR_MS),
            payment("p5", "a", "captured", HOUR_MS + 1),
            // Time goes on for both.
            order("z", 3 * HOUR_MS),
            payment("p9", "z", "captured", 3 * HOUR_MS),
        ],
        result: "SELECT order_id, payment_id, paid, formatDateTime(paid_at, '%H:%i') \
                 FROM orders_and_payments ORDER BY order_id, payment_id",
    }
    .run();
    let rows =
        ["a\tp1\t10.5\t10:59", "a\tp2\t10.5\t11:00", "b\tp3\t10.5\t10:09", "c\t\\N\t\\N\t\\N", "z\tp9\t10.5\t13:00"];
    assert_eq!(result.rows.lines().collect::<Vec<_>>(), rows);
    assert_eq!((result.duplicates, result.dead_letters), (1, 0));
}

#[test]
fn an_order_its_payment_and_its_shipment_become_one_row() {
    let record = |topic: &'static str, value: String| Record::of("one partition", value).to(topic);
    let order = |id: &str, at_ms: i64| {
        record("orders", format!(r#"{{"order_id":"{id}","amount":20,"placed_at":{}}}"#, TEN_MS + at_ms))
    };
    let payment = |order: &str, amount: u32, at_ms: i64| {
        let at_ms = TEN_MS + at_ms;
        let value = format!(r#"{{"order_id":"{order}","amount":{amount},"method":"card","paid_at":{at_ms}}}"#);
        record("payments", value)
    };
    let shipment = |order: &str, at_ms: i64| {
        let at_ms = TEN_MS + at_ms;
        record("shipments", format!(r#"{{"order_id":"{order}","carrier":"barge","shipped_at":{at_ms}}}"#))
    };
    const DAY_MS: i64 = 24 * HOUR_MS;
    let result = Example {
        config: "config/pipelines/three-way-join.yaml",
        records: vec![
            order("complete", 0),
            order("complete", MINUTE_MS),
            order("never paid", 0),
            order("never shipped", MINUTE_MS),
            order("paid in part", MINUTE_MS),
            payment("complete", 20, 90 * MINUTE_MS),
            payment("never shipped", 25, 2 * MINUTE_MS),
            payment("paid in part", 19, 2 * MINUTE_MS),
            shipment("complete", 2 * DAY_MS),
            shipment("never paid", 2 * DAY_MS),
            // After three days: too late for the row of its order.
            shipment("never shipped", 4 * DAY_MS),
            // Time goes on for all.
            order("next", 9 * DAY_MS),
            payment("next", 20, 9 * DAY_MS),
            shipment("next", 9 * DAY_MS),
        ],
        result: "SELECT * FROM order_journeys ORDER BY order_id",
    }
    .run();
    let rows = ["complete\t20\tcard\t90\tbarge", "never shipped\t20\tcard\t1\t\\N", "next\t20\tcard\t0\tbarge"];
    assert_eq!(result.rows.lines().collect::<Vec<_>>(), rows);
    assert_eq!((result.duplicates, result.dead_letters), (1, 0));
}

#[test]
fn impressions_and_clicks_come_together_or_alone() {
    let impression = |id: &str, at_ms: i64| {
        let value = format!(r#"{{"impression_id":"{id}","campaign":"spring","shown_at":{}}}"#, TEN_MS + at_ms);
        Record::of("one partition", value)
    };
    let click = |id: &str, impression: &str, at_ms: i64| {
        let at_ms = TEN_MS + at_ms;
        let value = format!(r#"{{"click_id":"{id}","impression_id":"{impression}","clicked_at":{at_ms}}}"#);
        Record::of("one partition", value).to("clicks")
    };
    let result = Example {
        config: "config/pipelines/full-join.yaml",
        records: vec![
            impression("both", 0),
            impression("not clicked", MINUTE_MS),
            impression("clicked too late", MINUTE_MS),
            click("c1", "both", 0),
            click("c2", "both", 10 * MINUTE_MS),
            click("c3", "never shown", 10 * MINUTE_MS),
            click("c4", "clicked too late", 11 * MINUTE_MS + 1),
            // Time goes on for both.
            impression("next", HOUR_MS),
            click("c9", "next", HOUR_MS),
        ],
        result: "SELECT impression_id, campaign, formatDateTime(shown_at, '%H:%i'), click_id, \
                 formatDateTime(clicked_at, '%H:%i') FROM impressions_and_clicks ORDER BY impression_id, click_id",
    }
    .run();
    let rows = [
        "both\tspring\t10:00\tc1\t10:00",
        "both\tspring\t10:00\tc2\t10:10",
        "clicked too late\tspring\t10:01\t\\N\t\\N",
        "clicked too late\t\\N\t\\N\tc4\t10:11",
        "never shown\t\\N\t\\N\tc3\t10:10",
        "next\tspring\t11:00\tc9\t11:00",
        "not clicked\tspring\t10:01\t\\N\t\\N",
    ];
    let mut found: Vec<_> = result.rows.lines().collect();
    found.sort_unstable();
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    assert_eq!(found, rows);
    assert_eq!(result.dead_letters, 0);
}
