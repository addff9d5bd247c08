//! The parts that the other tests stand on do what those tests take for granted.

mod support;

mod parts {
    mod clickhouse;
    mod demo;
    mod demo_runs;
    mod kafka;
    mod proxy;
    mod redis;
}
