//! What a process holds, as the kernel counts it.

use nix::unistd::Pid;

/// Memory and files of a process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// Resident memory in KiB.
    pub(crate) rss: u64,
    /// Open files, sockets among them.
    pub(crate) files: usize,
}

impl Footprint {
    /// Reads it from `/proc`.
    pub(crate) fn of(process: Pid) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let rss = rss.trim().trim_end_matches(" kB").parse().unwrap();
        let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
        Self { rss, files }
    }

    /// Asserts that no more files are open than `before`, and that memory rose by `margin` KiB at most.
    pub(crate) fn is_flat_since(self, before: Self, margin: u64) {
        // Fewer there may be: a scrape of the test's own was still being closed then.
        assert!(self.files <= before.files, "open files rose from {} to {}", before.files, self.files);
        assert!(self.rss <= before.rss + margin, "memory rose from {} to {} KiB", before.rss, self.rss);
    }
}
