//! What a process holds, as the kernel counts it.

use std::time::Duration;

use nix::unistd::Pid;

use super::PATIENCE;

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
    pub(crate) async fn stays(process: Pid, before: Self, margin: u64) {
        // A scrape of the test's own may still be being closed.
        let closed = async {
            while Self::of(process).files > before.files {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, closed).await;
        let after = Self::of(process);
        assert!(after.files <= before.files, "open files rose from {} to {}", before.files, after.files);
        assert!(after.rss <= before.rss + margin, "memory rose from {} to {} KiB", before.rss, after.rss);
    }
}
