//! Debian's redis-server as a process.

use super::process::Process;
use super::{PATIENCE, free_port, wait_for};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use tempfile::TempDir;

pub struct Redis {
    folder: TempDir,
    port: u16,
    process: Option<Process>,
}

impl Redis {
    /// Keeps every write (`appendonly`, flushed each time), so that a `kill -9` loses nothing.
    pub fn start() -> Redis {
        let folder = tempfile::Builder::new().prefix("weir-redis-").tempdir().unwrap();
        let mut redis = Redis { folder, port: free_port(), process: None };
        redis.restart();
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--port", &self.port.to_string(), "--dir"]).arg(self.folder.path());
        let mut process = Process::start("redis-server", command, &self.folder.path().join("log"));
        wait_for("an answer of redis-server", PATIENCE, || {
            process.assert_running();
            self.ping().ok()
        });
        self.process = Some(process);
    }

    fn ping(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        if &answer == b"+PONG\r\n" { Ok(()) } else { Err(std::io::Error::other("no PONG")) }
    }
}
