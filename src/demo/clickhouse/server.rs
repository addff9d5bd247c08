//! The server's process: ClickHouse's HTTP interface on the loopback address, in front of the engine.
//!
//! Owns the listener, the folder for incoming data, and the names of running statements. One request, one
//! connection of the engine, one thread while it runs: requests run side by side. A client that goes away does
//! not stop its INSERT, as on the server.

use super::answer::{self, About, Exception};
use super::engine::{Connection, Engine};
use super::library::library_path;
use super::request::Request;
use super::statement::{Statement, quote};
use crate::error::{Error, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Method, Response};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The largest body taken: several times the largest block that weir sends.
const BODY_BYTES_MAX: usize = 1 << 30;
/// Statements that run at the same time; more wait.
const STATEMENTS_MAX: usize = 64;

/// What the process is started with.
#[derive(Clone, Debug)]
pub struct ServeArgs {
    /// The engine's library; by default the fetched one.
    pub library: Option<PathBuf>,
    /// The data folder. One process at a time.
    pub path: PathBuf,
    /// Where to listen; port 0 takes a free one. The first line on stdout is the address: `http://127.0.0.1:8123`.
    pub listen: SocketAddr,
    pub user: String,
    pub password: String,
    /// End when stdin ends, which is when the process that holds its other side has ended, however it did.
    pub until_stdin_closes: bool,
}

impl Default for ServeArgs {
    fn default() -> ServeArgs {
        ServeArgs {
            library: None,
            path: "clickhouse-data".into(),
            listen: ([127, 0, 0, 1], 0).into(),
            user: "default".to_owned(),
            password: String::new(),
            until_stdin_closes: false,
        }
    }
}

/// Serves until SIGTERM or Ctrl-C (or the end of stdin). Does not return otherwise.
pub fn serve(args: ServeArgs) -> Result<()> {
    let stop = |what: String| Error::stop("embedded_clickhouse", what);
    if args.until_stdin_closes {
        std::thread::spawn(exit_with_stdin);
    }
    let library = args.library.clone().map_or_else(library_path, Ok)?;
    let incoming = args.path.join("incoming");
    // What an earlier, killed process left half written.
    let _ = fs::remove_dir_all(&incoming);
    fs::create_dir_all(&incoming).map_err(|error| stop(format!("cannot make {}: {error}", incoming.display())))?;
    let engine = Engine::start(&library, &args.path)?;
    let version = version_of(engine)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(STATEMENTS_MAX)
        .enable_all()
        .build()
        .map_err(|error| stop(format!("cannot start threads: {error}")))?;
    let house =
        House { engine, version, incoming, user: args.user, password: args.password, running: Mutex::default() };
    runtime
        .block_on(listen(args.listen, Arc::new(house)))
        .map_err(|error| stop(format!("cannot serve on {}: {error}", args.listen)))?;
    // The engine's destructors are not for processes that end: what was acknowledged is on disk already.
    // SAFETY: nothing of this process is to be cleaned up but the incoming folder, which the next start does.
    unsafe { libc::_exit(0) }
}

async fn listen(address: SocketAddr, house: Arc<House>) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    println!("http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let app = Router::new().fallback(handle).with_state(house);
    let ended = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    axum::serve(listener, app).with_graceful_shutdown(ended).await
}

fn exit_with_stdin() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    // SAFETY: as at the end of `serve`.
    unsafe { libc::_exit(0) }
}

fn version_of(engine: &'static Engine) -> Result<String> {
    let answer = engine.connect()?.query(b"SELECT version()", "TSVRaw", &[]);
    let answer = answer.map_err(|error| Error::stop("embedded_clickhouse", error.0))?;
    Ok(String::from_utf8_lossy(answer.as_ref()).trim().to_owned())
}

/// What all requests share.
struct House {
    engine: &'static Engine,
    version: String,
    incoming: PathBuf,
    user: String,
    password: String,
    /// Ids of the statements that run now.
    running: Mutex<BTreeSet<String>>,
}

async fn handle(State(house): State<Arc<House>>, request: axum::extract::Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let nothing_asked = parts.method == Method::GET && parts.uri.query().is_none();
    if nothing_asked && matches!(parts.uri.path(), "/" | "/ping" | "/replicas_status") {
        return Response::new(Body::from("Ok.\n"));
    }
    let about = |exception: &Exception| {
        let about = About { version: &house.version, query_id: "", format: "", elapsed: Default::default() };
        answer::failure(&about, exception)
    };
    let body = match to_bytes(body, BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => {
            return about(&Exception::new(3, "UNEXPECTED_END_OF_FILE", format!("The body broke off: {error}.")));
        }
    };
    let request = match Request::read(&parts.method, &parts.uri, &parts.headers, body) {
        Ok(request) => request,
        Err(exception) => return about(&exception),
    };
    let house = Arc::clone(&house);
    tokio::task::spawn_blocking(move || house.answer(request)).await.unwrap_or_else(|error| {
        let mut response = Response::new(Body::from(format!("the statement's thread ended: {error}\n")));
        *response.status_mut() = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

impl House {
    fn answer(&self, mut request: Request) -> Response<Body> {
        let begun = Instant::now();
        let query_id = request.query_id.take().filter(|id| !id.is_empty()).unwrap_or_else(new_query_id);
        let format = request.default_format.take().unwrap_or_else(|| "TabSeparated".to_owned());
        let result = self.run(&request, &query_id, &format);
        let about = About { version: &self.version, query_id: &query_id, format: &format, elapsed: begun.elapsed() };
        match result {
            Ok(answer) => answer::success(&about, answer),
            Err(exception) => answer::failure(&about, &exception),
        }
    }

    fn run(&self, request: &Request, query_id: &str, format: &str) -> Result<super::engine::Answer, Exception> {
        self.admit(request)?;
        let _running = self.enter(query_id)?;
        let mut connection =
            self.engine.connect().map_err(|error| Exception::new(210, "NETWORK_ERROR", error.message))?;
        prepare(&mut connection, request)?;
        let mut ask =
            |text: &[u8]| connection.query(text, format, &request.parameters).map_err(|error| Exception::of(&error));
        match Statement::of(&request.text) {
            Statement::Plain if request.data.is_empty() => ask(&request.text),
            Statement::Plain => ask(&[request.text.as_slice(), b"\n", &request.data].concat()),
            Statement::Insert { head, settings, format, data_start } => {
                let file = self.keep(&[&request.text[data_start..], &request.data])?;
                ask(Statement::from_file(&head, &settings, &format, &file.path().display().to_string()).as_bytes())
            }
        }
    }

    fn admit(&self, request: &Request) -> Result<(), Exception> {
        let user = request.user.as_deref().unwrap_or("default");
        if user == self.user && request.password.as_deref().unwrap_or_default() == self.password {
            return Ok(());
        }
        let sentence =
            format!("{user}: Authentication failed: password is incorrect, or there is no user with such name.");
        Err(Exception::new(516, "AUTHENTICATION_FAILED", sentence))
    }

    /// Notes that the id runs; two statements of one id do not run at the same time, as on the server.
    fn enter(&self, query_id: &str) -> Result<Running<'_>, Exception> {
        if !self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(query_id.to_owned()) {
            let sentence = format!("Query with id = {query_id} is already running.");
            return Err(Exception::new(216, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", sentence));
        }
        Ok(Running { house: self, query_id: query_id.to_owned() })
    }

    /// The data in a file, which goes with the value returned.
    fn keep(&self, data: &[&[u8]]) -> Result<NamedTempFile, Exception> {
        let write = |folder: &Path| {
            let mut file = NamedTempFile::new_in(folder)?;
            data.iter().try_for_each(|part| file.write_all(part))?;
            file.flush()?;
            std::io::Result::Ok(file)
        };
        write(&self.incoming)
            .map_err(|error| Exception::new(243, "NOT_ENOUGH_SPACE", format!("Cannot keep the data: {error}.")))
    }
}

/// The address's database and settings, made the connection's own.
fn prepare(connection: &mut Connection, request: &Request) -> Result<(), Exception> {
    let mut ask =
        |text: String| connection.query(text.as_bytes(), "Null", &[]).map(drop).map_err(|error| Exception::of(&error));
    if let Some(database) = &request.database {
        ask(format!("USE `{}`", database.replace('\\', "\\\\").replace('`', "\\`")))?;
    }
    let mut settings = Vec::new();
    for (name, value) in &request.settings {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Exception::new(115, "UNKNOWN_SETTING", format!("Unknown setting '{name}'.")));
        }
        settings.push(format!("{name}='{}'", quote(value)));
    }
    match settings.is_empty() {
        true => Ok(()),
        false => ask(format!("SET {}", settings.join(", "))),
    }
}

struct Running<'a> {
    house: &'a House,
    query_id: String,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.house.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.query_id);
    }
}

fn new_query_id() -> String {
    let mut random = [0; 16];
    // Only a name in an answer's header: without randomness the clock would do, so an error is no reason to stop.
    let _ = getrandom::fill(&mut random);
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
