//! The command line from outside: exit codes, what goes where, help texts and findings as golden files.

use assert_cmd::Command;
use std::path::Path;

fn weir() -> Command {
    let mut command = Command::cargo_bin("weir").expect("the binary is built");
    // The findings must not depend on who runs the test.
    command.env_clear().current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli"));
    command
}

struct Outcome {
    code: i32,
    out: String,
    err: String,
}

fn run(args: &[&str]) -> Outcome {
    finish(weir().args(args))
}

fn finish(command: &mut Command) -> Outcome {
    let output = command.output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is text");
    Outcome {
        code: output.status.code().expect("it was not killed"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

#[test]
fn help_of_each_command() {
    const COMMANDS: [&str; 19] = [
        "",
        "run",
        "demo",
        "check",
        "explain",
        "dead-letters",
        "dead-letters list",
        "dead-letters show",
        "dead-letters replay",
        "dead-letters delete",
        "dead-letters export",
        "outbox",
        "outbox list",
        "outbox export",
        "outbox discard",
        "schema",
        "completions",
        "healthcheck",
        "version",
    ];
    for command in COMMANDS {
        let args: Vec<&str> = command.split(' ').chain(["--help"]).filter(|arg| !arg.is_empty()).collect();
        let outcome = run(&args);
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
        let name = if command.is_empty() { "weir".to_owned() } else { command.replace(' ', "_") };
        insta::assert_snapshot!(format!("help_{name}"), outcome.out);
    }
}

#[test]
fn a_wrong_command_line_exits_with_2_and_leaves_stdout_empty() {
    for args in [
        &[][..],
        &["chekc"],
        &["check", "--formt", "json"],
        &["check", "--fix"],
        &["check", "--connect", "--yes"],
        &["check", "--log-level", "a=b=c"],
        &["check", "--log-level", "warning"],
        &["completions", "x"],
        &["dead-letters", "show", "17"],
        &["dead-letters", "list", "--from", "yesterday"],
        &["dead-letters", "list", "--limit", "0"],
        &["outbox", "export", "weir1/p/0"],
    ] {
        let outcome = run(args);
        assert_eq!((outcome.code, outcome.out.as_str()), (2, ""), "{args:?}");
        assert!(!outcome.err.is_empty());
    }
}

#[test]
fn check_says_everything_at_once() {
    let outcome = run(&["check", "--config", "wrong.yaml"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (1, ""));
    assert!(!outcome.out.contains("hunter2"), "{}", outcome.out);
    insta::assert_snapshot!("findings", outcome.out);
}

#[test]
fn check_says_the_same_as_json() {
    let outcome = run(&["check", "--config", "wrong.yaml", "--format", "json"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (1, ""));
    assert!(!outcome.out.contains("hunter2"), "{}", outcome.out);
    let report: serde_json::Value = serde_json::from_str(&outcome.out).expect("the output is JSON");
    insta::assert_json_snapshot!("findings_json", report);
}

#[test]
fn check_of_a_good_file_exits_with_0() {
    let outcome = run(&["check", "--config", "good.yaml"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    insta::assert_snapshot!("good", outcome.out);
}

#[test]
fn wrong_expressions_are_shown_with_a_caret_inside_them() {
    let outcome = run(&["check", "--config", "expressions.yaml"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (1, ""));
    insta::assert_snapshot!("expressions", outcome.out);
}

#[test]
fn a_wrong_expression_keeps_everything_from_starting() {
    let outcome = run(&["run", "--config", "expressions.yaml"]);
    assert_eq!((outcome.code, outcome.out.as_str()), (1, ""));
    assert!(outcome.err.contains("there is no function `nosuch`"), "{}", outcome.err);
}

#[test]
fn explain_says_what_is_read_kept_written_and_promised() {
    let outcome = run(&["explain", "--config", "explain.yaml"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    insta::assert_snapshot!("explain", outcome.out);
    let unknown = run(&["explain", "--config", "explain.yaml", "--pipeline", "nosuch"]);
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.err.contains("there is no pipeline `nosuch` in the file; it has: offers, states"),
        "{}",
        unknown.err
    );
}

#[test]
fn explain_says_what_meets_in_a_join_and_what_its_right_side_does() {
    let outcome = run(&["explain", "--config", "explain_join.yaml"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    insta::assert_snapshot!("explain_join", outcome.out);
}

#[test]
fn a_taken_port_touches_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let text = format!(
        "kafka: {{ brokers: [\"127.0.0.1:9\"] }}\nclickhouse: {{ url: \"http://127.0.0.1:9\" }}\nhttp: {{ listen: \"{address}\" }}\n\
         pipelines: [ {{ name: p, source: {{ kafka: {{ topic: t }} }}, sink: {{ clickhouse: {{ table: t }} }} }} ]\n"
    );
    std::fs::write(folder.path().join("weir.yaml"), text).expect("a file");
    let outcome = finish(weir().current_dir(&folder).args(["run"]));
    assert_eq!((outcome.code, outcome.out.as_str()), (1, ""));
    assert!(outcome.err.contains(&format!("cannot listen on {address} (http.listen)")), "{}", outcome.err);
    assert!(!folder.path().join("data").exists(), "the state is somebody else's until the port is ours");
}

#[test]
fn letters_of_several_pipelines_need_a_name() {
    let outcome = run(&["dead-letters", "list", "--config", "explain.yaml"]);
    assert_eq!((outcome.code, outcome.out.as_str()), (1, ""));
    assert!(outcome.err.contains("which pipeline? name it with --pipeline: offers, states"), "{}", outcome.err);
}

#[test]
fn a_token_of_no_pipeline_is_refused() {
    let outcome = run(&["outbox", "discard", "weir1/other/0/1/2/0/d/t", "--config", "explain.yaml"]);
    assert_eq!((outcome.code, outcome.out.as_str()), (1, ""));
    assert!(outcome.err.contains("names no block of a pipeline of this file"), "{}", outcome.err);
}

#[test]
fn a_file_in_one_long_line_is_shown_around_the_caret() {
    let folder = tempfile::tempdir().expect("a folder");
    let steps = vec![r#"{"filter": "amount > 0.0"}"#; 20].join(", ");
    let text = format!(r#"{{"pipelines": [{{"name": "p", "steps": [{steps}], "sinkk": 5}}]}}"#);
    std::fs::write(folder.path().join("weir.yaml"), text).expect("a file");
    let outcome = finish(weir().current_dir(&folder).args(["check"]));
    insta::assert_snapshot!("long_line", outcome.out);
}

#[test]
fn a_text_that_is_not_yaml_is_one_finding() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("weir.yaml"), "pipelines:\n\t- name: a\n").expect("a file");
    let outcome = finish(weir().current_dir(&folder).args(["check"]));
    assert_eq!(outcome.code, 1);
    insta::assert_snapshot!("not_yaml", outcome.out);
}

#[test]
fn a_file_that_is_not_there_exits_with_1() {
    let outcome = run(&["check", "--config", "nowhere.yaml"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.out.contains("nowhere.yaml") && outcome.out.contains("cannot be read"), "{}", outcome.out);
}

#[test]
fn the_file_is_found_where_it_is_usual() {
    let folder = tempfile::tempdir().expect("a folder");
    let write =
        |name: &str| std::fs::write(folder.path().join(name), format!("# {name}\nversion: 1\n")).expect("a file");
    let judged = |command: &mut Command| {
        let out = finish(command.current_dir(&folder).args(["check", "--format", "json"])).out;
        let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        report["file"].as_str().expect("the file is named").to_string()
    };
    std::fs::create_dir(folder.path().join("config")).expect("a folder");
    write("config/weir.yaml");
    assert_eq!(judged(&mut weir()), "config/weir.yaml");
    write("weir.yaml");
    assert_eq!(judged(&mut weir()), "weir.yaml");
    write("other.yaml");
    assert_eq!(judged(weir().env("WEIR_CONFIG", "other.yaml")), "other.yaml");
    assert_eq!(judged(weir().env("WEIR_CONFIG", "other.yaml").args(["--config", "weir.yaml"])), "weir.yaml");
}

#[test]
fn variables_come_from_the_environment() {
    let outcome = finish(weir().env("TABLE", "").args(["check", "--config", "variables.yaml"]));
    assert_eq!(outcome.code, 1);
    assert!(outcome.out.contains("`TABLE` is not set: name the table"), "{}", outcome.out);
    let outcome = finish(weir().env("TABLE", "t").args(["check", "--config", "variables.yaml"]));
    assert_eq!(outcome.code, 0, "{}", outcome.out);
}

#[test]
fn no_colours_without_a_terminal() {
    let outcome = run(&["check", "--config", "wrong.yaml"]);
    assert!(!outcome.out.contains('\u{1b}'));
}

#[test]
fn the_schema_is_the_one_in_the_repository() {
    let outcome = run(&["schema"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    let kept = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/pipeline.schema.json"));
    assert!(outcome.out == kept.unwrap_or_default(), "write it anew: weir schema > config/pipeline.schema.json");
}

#[test]
fn completions_exist_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let outcome = run(&["completions", shell]);
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
        assert!(outcome.out.contains("healthcheck"), "{shell}");
    }
}

#[test]
fn version_names_the_engines() {
    let outcome = run(&["version"]);
    let lines: Vec<&str> = outcome.out.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!((outcome.code, lines), (0, vec!["weir", "librdkafka", "rocksdb"]));
    assert_eq!(run(&["--version"]).out, format!("weir {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn healthcheck_without_a_weir_exits_with_1() {
    let outcome = run(&["healthcheck", "--config", "good.yaml"]);
    assert_eq!((outcome.code, outcome.out.as_str()), (1, ""));
    assert!(outcome.err.contains("no weir answers at 127.0.0.1:9"), "{}", outcome.err);
}
