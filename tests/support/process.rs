//! A started program: its signals, its end, its log. It ends with the test process, however that ends.

use super::{PATIENCE, wait_for};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// How many lines of its log a failure shows.
const LOG_LINES: usize = 30;

/// How a program ended.
pub struct Ended {
    /// -1 when a signal ended it.
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts the program with both its outputs going to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Process {
        let file = File::options().create(true).append(true).open(log).unwrap();
        command.stdout(file);
        Process::spawn(name, command, log)
    }

    /// Starts the program with what it says going to `log`, and its data to `output`, which begins empty.
    pub fn start_apart(name: &str, mut command: Command, output: &Path, log: &Path) -> Process {
        command.stdout(File::create(output).unwrap());
        Process::spawn(name, command, log)
    }

    /// Runs the program to its end, with files of this folder in between.
    pub fn run(name: &str, command: Command, folder: &Path) -> Ended {
        let (out, err) = (folder.join("ended.out"), folder.join("ended.err"));
        let _ = std::fs::remove_file(&err);
        let status = Process::start_apart(name, command, &out, &err).wait(PATIENCE);
        let text = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        Ended { code: status.code().unwrap_or(-1), out: text(out), err: text(err) }
    }

    fn spawn(name: &str, mut command: Command, log: &Path) -> Process {
        let file = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stderr(file);
        let child = spawn(command).unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Process { child, name: name.to_owned(), log: log.to_owned() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a plain system call; the child is not reaped yet, so the id is its.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self, wait: Duration) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait(wait)
    }

    pub fn wait(&mut self, wait: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait_for(&what, wait, || self.child.try_wait().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Fails with the end of the log when the program has ended.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended with {status}:\n{}", self.name, self.log_end());
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Spawns from a thread that lives as long as this process. The kernel kills a child when the thread that started
/// it ends, so a child started by a test's own thread would end with that test, and one shared by tests must not.
fn spawn(mut command: Command) -> std::io::Result<Child> {
    type Order = (Command, Sender<std::io::Result<Child>>);
    static KEEPER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        std::thread::spawn(move || orders.iter().for_each(|(mut command, answer)| drop(answer.send(command.spawn()))));
        Mutex::new(sender)
    });
    // SAFETY: prctl is safe to call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let (sender, answer) = channel();
    keeper.lock().unwrap().send((command, sender)).expect("the keeper never ends");
    answer.recv().expect("the keeper answers every order")
}
