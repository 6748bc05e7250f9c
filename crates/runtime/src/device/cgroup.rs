//! Limits that the control groups of Linux put on this process: versions 1 and 2, on every level above it.

use std::path::{Component, Path, PathBuf};

/// What the groups allow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Limits {
    /// The least memory that a level allows, in bytes.
    pub memory: Option<u64>,
    /// The least that a level has left, in bytes; what the system can drop counts as left.
    pub left: Option<u64>,
    /// The least processor time that a level allows, in processors.
    pub quota: Option<f64>,
}

/// Reads the limits of the groups in `membership` (the text of `/proc/self/cgroup`) below `root` (`/sys/fs/cgroup`).
pub(super) fn limits(root: &Path, membership: &str) -> Limits {
    let mut limits = Limits::default();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let has = |name: &str| controllers.split(',').any(|controller| controller == name);
        if controllers.is_empty() {
            levels(root, group).for_each(|folder| limits.version_2(&folder));
        }
        if has("memory") {
            levels(&root.join(controllers), group).for_each(|folder| limits.memory_1(&folder));
        }
        if has("cpu") {
            levels(&root.join(controllers), group).for_each(|folder| limits.cpu_1(&folder));
        }
    }
    limits
}

impl Limits {
    fn version_2(&mut self, folder: &Path) {
        let max = number(&folder.join("memory.max"));
        self.allow(max, number(&folder.join("memory.current")), stat(folder, "inactive_file"));
        let cpu = std::fs::read_to_string(folder.join("cpu.max")).unwrap_or_default();
        let mut fields = cpu.split_whitespace().map(|field| field.parse::<f64>().ok());
        if let (Some(Some(quota)), Some(Some(period))) = (fields.next(), fields.next()) {
            self.run(quota / period);
        }
    }

    fn memory_1(&mut self, folder: &Path) {
        // No limit is the largest multiple of a page that a signed number holds.
        let max = number(&folder.join("memory.limit_in_bytes")).filter(|max| *max < 1 << 60);
        self.allow(max, number(&folder.join("memory.usage_in_bytes")), stat(folder, "total_inactive_file"));
    }

    fn cpu_1(&mut self, folder: &Path) {
        let quota = number(&folder.join("cpu.cfs_quota_us"));
        if let (Some(quota), Some(period)) = (quota, number(&folder.join("cpu.cfs_period_us"))) {
            self.run(quota as f64 / period as f64);
        }
    }

    fn allow(&mut self, max: Option<u64>, used: Option<u64>, droppable: u64) {
        let Some(max) = max else { return };
        self.memory = Some(self.memory.map_or(max, |least| least.min(max)));
        if let Some(used) = used {
            let left = max.saturating_sub(used.saturating_sub(droppable));
            self.left = Some(self.left.map_or(left, |least| least.min(left)));
        }
    }

    fn run(&mut self, quota: f64) {
        if quota.is_finite() && quota > 0.0 {
            self.quota = Some(self.quota.map_or(quota, |least| least.min(quota)));
        }
    }
}

/// The folder of `group` and of all groups above it. Inside a container some may not be there.
fn levels(root: &Path, group: &str) -> impl Iterator<Item = PathBuf> {
    let names = Path::new(group).components().filter(|part| matches!(part, Component::Normal(_)));
    let lowest = names.fold(root.to_path_buf(), |path, name| path.join(name));
    let depth = lowest.components().count() - root.components().count();
    (0..=depth).scan(lowest, |folder, _| {
        let this = folder.clone();
        folder.pop();
        Some(this)
    })
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn stat(folder: &Path, key: &str) -> u64 {
    let text = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn version_2_takes_the_least_of_all_levels() {
        let root = tree(&[
            ("memory.current", "9000\n"),
            ("pods/memory.max", "4000\n"),
            ("pods/memory.current", "3500\n"),
            ("pods/memory.stat", "anon 5\ninactive_file 500\nactive_file 7\n"),
            ("pods/cpu.max", "150000 100000\n"),
            ("pods/one/memory.max", "max\n"),
            ("pods/one/memory.current", "10\n"),
            ("pods/one/cpu.max", "max 100000\n"),
        ]);
        let expected = Limits { memory: Some(4000), left: Some(1000), quota: Some(1.5) };
        assert_eq!(limits(root.path(), "0::/pods/one\n"), expected);
        assert_eq!(limits(root.path(), "0::/\n"), Limits::default());
        // A namespace may show a path that goes up, or one that is not here.
        assert_eq!(limits(root.path(), "0::/../../pods/gone/deep\n"), expected);
    }

    #[test]
    fn version_1_has_a_folder_per_controller() {
        let root = tree(&[
            ("memory/job/memory.limit_in_bytes", "1000\n"),
            ("memory/job/memory.usage_in_bytes", "400\n"),
            ("memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 100\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cpu,cpuacct/job/cpu.cfs_quota_us", "50000\n"),
            ("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n"),
            ("cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ]);
        let membership = "9:name=systemd:/\n4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n";
        let expected = Limits { memory: Some(1000), left: Some(700), quota: Some(0.5) };
        assert_eq!(limits(root.path(), membership), expected);
        assert_eq!(limits(root.path(), "4:memory:/\n3:cpu,cpuacct:/\n"), Limits::default());
        assert_eq!(limits(root.path(), "nonsense\n4\n:::\n"), Limits::default());
    }
}
