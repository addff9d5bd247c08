//! A user who may insert some columns of a table, and not the table.

use crate::fixture::{Database, ENGINE, connection};
use crate::support::clickhouse::ClickHouse;
use axum::Router;
use axum::http::{HeaderMap, Uri};
use weir::sink::clickhouse::client::Client;

/// The engine knows one user, who may do everything: here it stands behind a server whose users may insert these columns
/// only. Its address.
async fn server_that_grants(columns: &'static [&'static str], engine: &'static ClickHouse) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |uri: Uri, headers: HeaderMap, body: String| async move {
        match body.strip_prefix("CHECK GRANT INSERT") {
            Some(asked) => format!("{{\"result\":{}}}\n", u8::from(are_granted(columns, asked))),
            None => tokio::task::spawn_blocking(move || ask(engine, &uri, &headers, &body)).await.unwrap(),
        }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    format!("http://{address}")
}

/// Whether `(a, b) ON t` names nothing but these columns; without columns the question is about the whole table.
fn are_granted(columns: &[&str], asked: &str) -> bool {
    let listed = asked.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(listed, _)| listed);
    let listed: Vec<&str> = listed.into_iter().flat_map(|listed| listed.split(", ")).collect();
    !listed.is_empty() && listed.iter().all(|name| columns.contains(&name.trim_matches('`')))
}

fn ask(engine: &ClickHouse, uri: &Uri, headers: &HeaderMap, body: &str) -> String {
    let question = ureq::post(format!("{}{uri}", engine.url())).header("authorization", &headers["authorization"]);
    question.send(body).unwrap().body_mut().read_to_string().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_of_the_inserted_columns_is_enough() {
    let database = Database::new("test_grants");
    database.run(&format!("CREATE TABLE $.t (id UInt32, name String, made String MATERIALIZED name) {ENGINE}"));
    let problems = async |columns: &'static [&'static str]| {
        let url = server_that_grants(columns, database.engine).await;
        let client = Client::new(&connection(&[url], &database.name)).unwrap();
        let problems = database.inspect_through(&client, "t").await.problems;
        problems.into_iter().map(|problem| problem.code).collect::<Vec<_>>()
    };
    assert_eq!(problems(&["id", "name"]).await, Vec::<&str>::new());
    assert_eq!(problems(&["id"]).await, ["no_grant"]);
    assert_eq!(database.inspect("t").await.problems, [], "the engine understands the question");
}
