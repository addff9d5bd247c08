//! `weir healthcheck`: whether the weir of this configuration is ready, as an exit code for containers.

use super::Global;
use std::process::ExitCode;
use std::time::Duration;

/// Ask a running weir whether it is ready: exit code 0, else 1
#[derive(clap::Args)]
pub struct Healthcheck {
    /// How many seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,
}

impl Healthcheck {
    pub fn run(self, global: &Global) -> ExitCode {
        let loaded = global.load();
        let Some(plan) = loaded.plan else {
            eprint!("{}", loaded.report);
            return ExitCode::FAILURE;
        };
        match ready(&plan.http.listen, Duration::from_secs(self.timeout)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        }
    }
}

fn ready(listen: &str, timeout: Duration) -> Result<(), String> {
    let address = reachable(listen);
    // A proxy of the environment is for the world, not for this machine.
    let config = ureq::Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false).proxy(None);
    let agent = config.build().new_agent();
    let mut answer = agent
        .get(format!("http://{address}/readyz"))
        .call()
        .map_err(|error| format!("no weir answers at {address}: {error}"))?;
    let reason = answer.body_mut().read_to_string().unwrap_or_default();
    match answer.status().as_u16() {
        200..=299 => Ok(()),
        status => Err(format!("weir at {address} is not ready ({status}): {}", reason.trim())),
    }
}

/// Who listens on all addresses is asked on the loopback one.
pub(super) fn reachable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => listen.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Answers one request with that status.
    fn answering(status: &'static str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let body = "restoring orders";
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn ready_is_what_the_server_says() {
        let wait = Duration::from_secs(5);
        assert_eq!(ready(&answering("200 OK"), wait), Ok(()));
        let not = ready(&answering("503 Service Unavailable"), wait).unwrap_err();
        assert!(not.contains("503") && not.contains("restoring orders"), "{not}");
    }

    #[test]
    fn nobody_there_is_not_ready() {
        assert!(ready("127.0.0.1:1", Duration::from_secs(5)).unwrap_err().contains("no weir answers"));
    }

    #[test]
    fn who_listens_everywhere_is_asked_here() {
        assert_eq!(reachable("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(reachable("[::]:80"), "[::1]:80");
        assert_eq!(reachable("10.0.0.1:80"), "10.0.0.1:80");
    }
}
