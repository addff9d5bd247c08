//! The handle of whoever starts the server's process: starts, kills, starts again on the same folder.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Loading 560 MB of library and booting takes a second or two; a busy machine gets this long.
const START_WAIT: Duration = Duration::from_secs(60);

/// How to start the process.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The program `weir-embedded-clickhouse`.
    pub program: PathBuf,
    /// The data folder.
    pub path: PathBuf,
    /// Port 0 takes a free one.
    pub port: u16,
    pub user: String,
    pub password: String,
    /// Where its stderr goes; `None`: nowhere.
    pub log: Option<PathBuf>,
}

/// A running server; dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    url: String,
}

/// The server's program, which is built beside weir's.
pub fn server_program() -> Result<PathBuf> {
    let weir = std::env::current_exe().map_err(|error| Error::stop("io", format!("cannot find myself: {error}")))?;
    let program = weir.with_file_name("weir-embedded-clickhouse");
    match program.is_file() {
        true => Ok(program),
        false => Err(Error::stop(
            "parts",
            format!("{} is not there: `cargo build --release` builds it beside weir", program.display()),
        )),
    }
}

impl Server {
    /// Starts the process and waits until it listens.
    pub fn start(options: &ServerOptions) -> Result<Server> {
        let stop = |what: String| Error::stop("embedded_clickhouse", what);
        let log = options.log.as_ref().map(|path| File::options().create(true).append(true).open(path)).transpose();
        let log = log.map_err(|error| stop(format!("cannot write the embedded ClickHouse's log: {error}")))?;
        let mut child = Command::new(&options.program)
            .arg("--path")
            .arg(&options.path)
            .args(["--listen", &format!("127.0.0.1:{}", options.port), "--until-stdin-closes"])
            .args(["--user", &options.user, "--password", &options.password])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.map_or_else(Stdio::null, Stdio::from))
            // Ctrl-C of a terminal goes to the whole group: the server is still needed then.
            .process_group(0)
            .spawn()
            .map_err(|error| stop(format!("cannot start {}: {error}", options.program.display())))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        match first_line(stdout) {
            Some(url) => Ok(Server { child, url }),
            None => {
                let _ = child.kill();
                let ended = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                let log = options.log.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
                let log = log.unwrap_or_default();
                Err(stop(format!("the embedded ClickHouse did not start ({ended})\n{}", log.trim_end())))
            }
        }
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port, to start again on.
    pub fn port(&self) -> u16 {
        self.url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("the address ends in a port")
    }

    /// The process's id, for signals.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    /// `kill -9`: the engine loses nothing by it.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first line, waited for in a thread of its own because a pipe has no deadline.
fn first_line(stdout: ChildStdout) -> Option<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(line);
    });
    let line = receiver.recv_timeout(START_WAIT).ok()?;
    Some(line.trim().to_owned()).filter(|line| line.starts_with("http://"))
}
