//! What a record costs, beside a consumer that only counts.

use super::*;
use weir::source::kafka::drain_bare;

/// `cargo test --release --test kafka -- --ignored --nocapture cost`
#[test]
#[ignore = "a measurement, not a promise"]
fn the_cost_of_a_record_against_a_bare_consumer() {
    const RECORDS: usize = 1_000_000;
    let (topic, topics) = one_topic(1);
    let value = "x".repeat(320);
    Writer::plain().send_many(&topic, 0, (0..RECORDS).map(|_| value.clone()));
    let kafka = plan(&unique("g"));
    for _ in 0..3 {
        let cpu_before = cpu_time();
        let bare = drain_bare(&kafka, &topic, 64 << 20).unwrap();
        assert_eq!(bare.records, RECORDS as u64);
        let per_record = |time: Duration| time.as_nanos() as f64 / RECORDS as f64;
        let cpu = cpu_time() - cpu_before;
        eprintln!("bare: {:.0} ns a record, {:.0} of this thread", per_record(bare.elapsed), per_record(cpu));
        let mut group = KafkaGroup::open(weir::source::kafka::MemberOptions {
            kafka: &kafka,
            instance_id: None,
            topics: &topics,
            queued_bytes_per_partition: 64 << 20,
            with_headers: false,
            describe_by_broker: None,
        })
        .unwrap();
        group.join().unwrap();
        let mut inputs = assigned(&mut group, 1, 0, &Arc::default());
        let mut batch = RecordBatch::default();
        let (mut read, mut cpu) = (0, Duration::ZERO);
        let mut started = None;
        while read < RECORDS {
            batch.clear();
            let before = Instant::now();
            let limit = FetchLimit { records: 4096, bytes: 4 << 20, offset_end: i64::MAX };
            let cpu_before = cpu_time();
            let records = inputs[0].fill(&mut batch, limit).unwrap().records;
            cpu += cpu_time() - cpu_before;
            if records > 0 {
                started.get_or_insert(before);
            } else {
                std::thread::sleep(Duration::from_micros(100));
            }
            read += records;
        }
        let wall = started.unwrap().elapsed();
        eprintln!("fill: {:.0} ns a record, {:.0} of this thread", per_record(wall), per_record(cpu));
        group.leave().unwrap();
    }
}

/// What this thread has worked: on a machine that others use too, the fairer clock.
fn cpu_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is there to be filled.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) }, 0);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
