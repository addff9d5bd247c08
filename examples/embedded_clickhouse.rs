//! The embedded ClickHouse as a program of its own: `embedded_clickhouse --path DIR --listen 127.0.0.1:8123`.

use weir::demo::clickhouse::{ServeArgs, serve};

#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let mut args = ServeArgs {
        library: None,
        path: "clickhouse-data".into(),
        listen: ([127, 0, 0, 1], 0).into(),
        user: "default".into(),
        password: String::new(),
        until_stdin_closes: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("every option but --until-stdin-closes has a value");
        match word.as_str() {
            "--library" => args.library = Some(value().into()),
            "--path" => args.path = value().into(),
            "--listen" => args.listen = value().parse().expect("an address such as 127.0.0.1:8123"),
            "--user" => args.user = value(),
            "--password" => args.password = value(),
            "--until-stdin-closes" => args.until_stdin_closes = true,
            other => panic!("unknown option {other}"),
        }
    }
    if let Err(error) = serve(args) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
