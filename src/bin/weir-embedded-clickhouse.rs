//! The embedded ClickHouse's process, started by `weir demo` and the tests: `--path DIR --listen 127.0.0.1:8123`.
//!
//! A program of its own because of memory: weir's allocator stands in for the C library's `malloc`, and the
//! engine frees with the C library what the C library allocated for it, so the two cannot share a process.

use std::process::ExitCode;
use weir::demo::clickhouse::{ServeArgs, serve};

const USAGE: &str = "usage: weir-embedded-clickhouse [--library FILE] [--path DIR] [--listen ADDRESS] [--user NAME] \
                     [--password TEXT] [--until-stdin-closes]";

fn main() -> ExitCode {
    let Some(args) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<ServeArgs> {
    let mut args = ServeArgs::default();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--library" => args.library = Some(words.next()?.into()),
            "--path" => args.path = words.next()?.into(),
            "--listen" => args.listen = words.next()?.parse().ok()?,
            "--user" => args.user = words.next()?,
            "--password" => args.password = words.next()?,
            "--until-stdin-closes" => args.until_stdin_closes = true,
            _ => return None,
        }
    }
    Some(args)
}
