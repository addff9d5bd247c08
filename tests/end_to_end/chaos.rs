//! Everything at once, at random: two instances, a lossy proxy, kills of every part, stops, lost disks.
//!
//! `SOAK=30m` lets it run longer, `WEIR_SEED` repeats its choices (not the moments at which they strike).

use crate::flow::{Dice, Flow, dice};
use crate::oracle::settle;
use crate::stage::Stage;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::Kafka;
use crate::support::proxy::{Fate, Proxy};
use crate::weir::Weir;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Without `SOAK`.
const LASTS: Duration = Duration::from_secs(60);

#[test]
fn two_instances_get_through_everything_at_once() {
    let (mut kafka, mut clickhouse) = (Kafka::start(), ClickHouse::start());
    let proxy = Proxy::start(&clickhouse.url());
    let stage = Stage { url: proxy.url(), ..Stage::new("chaos", &kafka, &clickhouse, 6) };
    let mut dice = dice("chaos");
    let flow = Flow::start(&kafka, &stage.name, 800, dice.below(u64::MAX));
    let names = ["a", "b"];
    let mut weirs = names.map(|name| stage.weir(name));
    let end = Instant::now() + lasts();
    while Instant::now() < end {
        sleep(Duration::from_millis(dice.below(2500)));
        let one = dice.below(2) as usize;
        let what = dice.below(12);
        println!("chaos: {}", describe(what, names[one]));
        match what {
            0..=3 => start_again(&stage, names[one], &mut weirs[one], &mut dice, false),
            4 => start_again(&stage, names[one], &mut weirs[one], &mut dice, true),
            5 => {
                weirs[one].stop();
                weirs[one] = stage.weir(names[one]);
            }
            6 => {
                weirs[one].signal(libc::SIGSTOP);
                sleep(Duration::from_millis(dice.below(9000)));
                weirs[one].signal(libc::SIGCONT);
            }
            7 => {
                clickhouse.kill();
                sleep(Duration::from_millis(dice.below(2000)));
                clickhouse.restart();
            }
            8 => {
                kafka.kill();
                sleep(Duration::from_millis(dice.below(2000)));
                kafka.restart();
            }
            9 => {
                proxy.outage(true);
                sleep(Duration::from_millis(dice.below(4000)));
                proxy.outage(false);
            }
            _ => proxy.next_inserts((0..10).map(|_| fate(&mut dice)).collect::<Vec<_>>()),
        }
        weirs.iter_mut().for_each(Weir::assert_running);
    }
    flow.stop();
    let [a, b] = &mut weirs;
    settle(&kafka, &clickhouse, &stage, None, &mut [a, b]);
}

fn start_again(stage: &Stage, name: &str, weir: &mut Weir, dice: &mut Dice, loses_its_disk: bool) {
    weir.kill();
    if loses_its_disk {
        std::fs::remove_dir_all(stage.state(name)).unwrap();
    }
    sleep(Duration::from_millis(dice.below(1000)));
    *weir = stage.weir(name);
}

fn fate(dice: &mut Dice) -> Fate {
    match dice.below(4) {
        0 => Fate::LoseRequest,
        1 => Fate::LoseAnswer,
        2 => Fate::CutRequest,
        _ => Fate::Delay(Duration::from_millis(500)),
    }
}

fn describe(what: u64, name: &str) -> String {
    match what {
        0..=3 => format!("kill {name}"),
        4 => format!("kill {name} and delete its directory"),
        5 => format!("stop {name} cleanly and start it again"),
        6 => format!("let {name} sleep"),
        7 => "kill ClickHouse".to_owned(),
        8 => "kill the broker".to_owned(),
        9 => "take the connection to ClickHouse away".to_owned(),
        _ => "lose the next inserts".to_owned(),
    }
}

/// `SOAK`: a number of `s`, `m` or `h`.
fn lasts() -> Duration {
    let Ok(text) = std::env::var("SOAK") else { return LASTS };
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => panic!("SOAK is a number of s, m or h, not {text}"),
    };
    Duration::from_secs(number.parse::<u64>().expect("SOAK is a number of s, m or h") * seconds)
}
