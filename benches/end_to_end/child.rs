//! A child process and what it has cost, as the kernel counts it.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a finished process has cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub wall: Duration,
    /// User and system, all threads.
    pub cpu: Duration,
    pub memory_peak_bytes: u64,
}

/// Runs it to its end; its output and cost. Fails when it fails.
pub fn run(name: &str, command: Command) -> (String, Cost) {
    let began = Instant::now();
    #[expect(clippy::zombie_processes, reason = "`reap` waits for it with wait4, which tells its cost too")]
    let mut child = start(command, Stdio::piped());
    let mut output = String::new();
    child.stdout.take().expect("it is piped").read_to_string(&mut output).expect("text");
    let (succeeded, cost) = reap(&child, began);
    assert!(succeeded, "{name} failed; it said:\n{output}");
    (output, cost)
}

/// Starts it; it ends with this process.
pub fn start(mut command: Command, stdout: Stdio) -> Child {
    command.stdin(Stdio::null()).stdout(stdout);
    // SAFETY: prctl is safe to call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

/// Waits for its end; whether it succeeded, and its cost.
pub fn reap(child: &Child, began: Instant) -> (bool, Cost) {
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: the child is ours and not reaped yet; both places are there to be filled.
    let id = unsafe { libc::wait4(child.id() as i32, &raw mut status, 0, usage.as_mut_ptr()) };
    assert_eq!(id, child.id() as i32, "wait4 gives the child back");
    // SAFETY: wait4 has filled it.
    let usage = unsafe { usage.assume_init() };
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    let cost = Cost { wall: began.elapsed(), cpu, memory_peak_bytes: usage.ru_maxrss as u64 * 1024 };
    (libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, cost)
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
}
