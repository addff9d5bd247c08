//! Disks that take no more: a few MiB of memory where this user may mount, and everywhere a limit on files.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A few MiB of memory as a disk.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount (a container without CAP_SYS_ADMIN): [`limit_files`] works there, too.
    pub fn mount(at: &Path, mib: u32) -> Option<SmallDisk> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "weir-test"]).arg(at);
        let mounted = command.output().is_ok_and(|output| output.status.success());
        mounted.then(|| SmallDisk(at.to_owned()))
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
