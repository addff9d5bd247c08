//! The real ClickHouse engine as a process: started, killed, started again on the same folder and port.

use super::{PATIENCE, free_port, wait_for};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;
use weir::demo::clickhouse::{Server, ServerOptions};

pub const USER: &str = "default";

pub struct ClickHouse {
    folder: TempDir,
    port: u16,
    password: String,
    server: Option<Server>,
}

impl ClickHouse {
    /// One for all tests of this process that do not hurt it. Each takes a database of its own.
    pub fn shared() -> &'static ClickHouse {
        static SHARED: OnceLock<ClickHouse> = OnceLock::new();
        SHARED.get_or_init(ClickHouse::start)
    }

    pub fn start() -> ClickHouse {
        ClickHouse::start_with_password("")
    }

    pub fn start_with_password(password: &str) -> ClickHouse {
        let folder = tempfile::Builder::new().prefix("weir-clickhouse-").tempdir().unwrap();
        let mut clickhouse = ClickHouse { folder, port: free_port(), password: password.to_owned(), server: None };
        clickhouse.restart();
        clickhouse
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Starts it again on the same folder and port.
    pub fn restart(&mut self) {
        self.kill();
        let options = ServerOptions {
            program: PathBuf::from(env!("CARGO_BIN_EXE_weir-embedded-clickhouse")),
            path: self.folder.path().join("data"),
            port: self.port,
            user: USER.to_owned(),
            password: self.password.clone(),
            log: Some(self.folder.path().join("log")),
        };
        self.server = Some(Server::start(&options).unwrap_or_else(|error| panic!("{error}")));
    }

    pub fn process_id(&self) -> u32 {
        self.server.as_ref().expect("the server runs").id()
    }

    /// The answer's text, without the line's end; fails with the error's text.
    pub fn query(&self, text: &str) -> String {
        self.try_query(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
    }

    /// The answer's text, or the error's.
    pub fn try_query(&self, text: &str) -> Result<String, String> {
        let agent = ureq::Agent::from(
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build(),
        );
        let mut answer = agent
            .post(self.url())
            .header("X-ClickHouse-User", USER)
            .header("X-ClickHouse-Key", &self.password)
            .send(text)
            .map_err(|error| error.to_string())?;
        let body = answer.body_mut().with_config().limit(1 << 30).read_to_vec().map_err(|error| error.to_string())?;
        let body = String::from_utf8_lossy(&body).trim_end_matches('\n').to_owned();
        if answer.status().is_success() { Ok(body) } else { Err(body) }
    }

    /// A number that the query answers.
    pub fn count(&self, query: &str) -> u64 {
        let answer = self.query(query);
        answer.parse().unwrap_or_else(|_| panic!("{query}\nanswers no number: {answer}"))
    }

    /// Waits until the query answers `want`.
    pub fn wait_for_answer(&self, query: &str, want: &str, wait: Duration) {
        let mut last = String::new();
        wait_for(&format!("`{want}` from {query}"), wait, || {
            last = self.try_query(query).unwrap_or_else(|error| error);
            (last == want).then_some(())
        });
    }
}
