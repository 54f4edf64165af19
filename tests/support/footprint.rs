//! What a process holds, as the kernel counts it.

use std::time::Duration;

use nix::unistd::Pid;

use super::PATIENCE;

/// How often work is done again that leaves more memory than it found.
const TRIES: usize = 4;

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

    /// Asserts that `work` leaves no more files open than before, and memory within `margin` KiB of what it was.
    ///
    /// Queues and buffers grow to what the machine's load made of a burst, once. What leaks, leaks each time: the work is
    /// done again, [`TRIES`] times at most, until it leaves memory as it was.
    pub(crate) async fn stays(process: Pid, margin: u64, mut work: impl AsyncFnMut()) {
        let mut rises = Vec::new();
        for _ in 0..TRIES {
            let before = Self::of(process);
            work().await;
            let after = Self::settled(process, before.files).await;
            assert!(after.files <= before.files, "open files rose from {} to {}", before.files, after.files);
            if after.rss <= before.rss + margin {
                return;
            }
            rises.push((before.rss, after.rss));
        }
        panic!("memory rose each time, in KiB: {rises:?}");
    }

    /// It once no more than so many `files` are open, or when that takes too long.
    async fn settled(process: Pid, files: usize) -> Self {
        // A scrape of the test's own may still be being closed.
        let closed = async {
            while Self::of(process).files > files {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, closed).await;
        Self::of(process)
    }
}
