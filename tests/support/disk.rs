//! Disks that take no more: a few MiB of memory, mounted by whoever may or in a namespace of its own, and a limit on
//! files.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A few MiB of memory as a disk.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Whether this process may mount; else see [`in_own_namespace`].
    pub fn may_mount() -> bool {
        let place = tempfile::tempdir().unwrap();
        SmallDisk::try_mount(place.path(), 1).is_ok()
    }

    pub fn mount(at: &Path, mib: u32) -> SmallDisk {
        SmallDisk::try_mount(at, mib).unwrap_or_else(|why| panic!("cannot mount a disk of {mib} MiB: {why}"))
    }

    fn try_mount(at: &Path, mib: u32) -> Result<SmallDisk, String> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "weir-test"]).arg(at);
        match command.output() {
            Ok(output) if output.status.success() => Ok(SmallDisk(at.to_owned())),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Leaves not a byte; what to delete afterwards.
    pub fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.0.join("filling");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Runs this test once more where it may mount: as the root of a namespace of its own.
pub fn in_own_namespace(test: &str) {
    const INSIDE: &str = "WEIR_TEST_NAMESPACE";
    assert!(std::env::var_os(INSIDE).is_none(), "not even a namespace of its own lets this user mount a disk");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(INSIDE, "yes");
    let output = command.output().expect("`unshare` (util-linux) can be started");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        output.status.success() && said.contains("1 passed"),
        "this test needs a disk of a few MiB: run it as a user who may mount, or allow user namespaces:\n{said}"
    );
}

/// Lets no file of this process grow beyond `bytes`, as `ulimit -f` would; `None` lifts the limit. Writes beyond it
/// fail, as they would on a full disk, and no signal ends the process.
pub fn limit_own_files(bytes: Option<u64>) -> std::io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain system calls on a struct of ours, allowed between fork and exec, too.
    let result = unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit);
        limit.rlim_cur = bytes.unwrap_or(limit.rlim_max);
        libc::setrlimit(libc::RLIMIT_FSIZE, &limit)
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The same for a program that is to be started.
pub fn limit_files(command: &mut Command, bytes: u64) {
    // SAFETY: it makes system calls only.
    unsafe { command.pre_exec(move || limit_own_files(Some(bytes))) };
}
