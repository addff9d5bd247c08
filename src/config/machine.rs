//! What the machine, or the container around us, has: cores and memory.

use std::fs;
use std::path::Path;

/// The part of the machine that this process may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    pub cores: usize,
    pub memory_bytes: u64,
}

/// Where nothing can be read.
const MEMORY_UNKNOWN_BYTES: u64 = 2 << 30;

impl Machine {
    /// Asks the operating system. Cores respect affinity and the container's quota.
    pub fn this() -> Machine {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_bytes(&text));
        let limit = cgroup_limit_bytes(Path::new("/"));
        let memory_bytes = total.into_iter().chain(limit).min().unwrap_or(MEMORY_UNKNOWN_BYTES);
        Machine { cores, memory_bytes }
    }
}

fn meminfo_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest memory limit of our control group and those above it; version 2, else version 1.
fn cgroup_limit_bytes(root: &Path) -> Option<u64> {
    let own = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let v2 = own.lines().find_map(|line| line.strip_prefix("0::"));
    let v1 = own.lines().find_map(|line| line.split_once(":memory:").map(|(_, path)| path));
    let mut limits = Vec::new();
    if let Some(path) = v2 {
        limits.extend(limits_upwards(&root.join("sys/fs/cgroup"), path, "memory.max"));
    }
    if let Some(path) = v1 {
        limits.extend(limits_upwards(&root.join("sys/fs/cgroup/memory"), path, "memory.limit_in_bytes"));
    }
    limits.into_iter().min()
}

fn limits_upwards(mount: &Path, path: &str, file: &str) -> Vec<u64> {
    // Inside a container the path may be that of the host; the mount itself is then our own group.
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    groups.filter_map(|group| fs::read_to_string(mount.join(group).join(file)).ok()?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_files(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_total_is_read_from_meminfo() {
        assert_eq!(meminfo_bytes("MemTotal:       24651234 kB\nMemFree: 1 kB\n"), Some(24651234 * 1024));
        assert_eq!(meminfo_bytes("nothing"), None);
    }

    #[test]
    fn the_smallest_limit_of_our_group_and_those_above_counts() {
        let root = with_files(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "1000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ]);
        assert_eq!(cgroup_limit_bytes(root.path()), Some(1000));
    }

    #[test]
    fn a_container_that_sees_the_hosts_path_still_finds_its_limit() {
        let root = with_files(&[("proc/self/cgroup", "0::/docker/abc\n"), ("sys/fs/cgroup/memory.max", "2000\n")]);
        assert_eq!(cgroup_limit_bytes(root.path()), Some(2000));
    }

    #[test]
    fn version_1_is_read_too() {
        let root = with_files(&[
            ("proc/self/cgroup", "5:memory:/x\n1:name=systemd:/x\n"),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "3000\n"),
        ]);
        assert_eq!(cgroup_limit_bytes(root.path()), Some(3000));
    }

    #[test]
    fn without_control_groups_there_is_no_limit() {
        assert_eq!(cgroup_limit_bytes(with_files(&[]).path()), None);
        assert!(Machine::this().cores >= 1);
    }
}
