//! What the system says of this process, by the names that Prometheus' own client libraries give it.

use std::fs;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::exposition::Exposition;

/// How old what was read may be: files are counted one by one on older kernels.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// Ticks of CPU time in a second, as `/proc` counts on every machine of Linux that Rust knows.
const TICKS: f64 = 100.0;

/// Reads it, seldom enough.
#[derive(Debug, Default)]
pub struct Process(Mutex<Option<(Instant, Facts)>>);

/// What there is to know. A system without `/proc` says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Facts {
    resident: Option<u64>,
    virtual_size: Option<u64>,
    threads: Option<u64>,
    files: Option<u64>,
    most_files: Option<u64>,
    cpu: Option<f64>,
}

impl Process {
    /// Adds what is known, not older than a second.
    pub fn expose(&self, exposition: &mut Exposition, now: Instant) {
        let Facts { resident, virtual_size, threads, files, most_files, cpu } = self.facts(now);
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory in bytes.", resident),
            ("process_virtual_memory_bytes", "Virtual memory in bytes.", virtual_size),
            ("process_threads", "Threads of the process.", threads),
            ("process_open_fds", "Open files, sockets among them.", files),
            ("process_max_fds", "Files that may be open.", most_files),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                exposition.gauge(name, help, value);
            }
        }
        if let Some(cpu) = cpu {
            exposition.counter("process_cpu_seconds_total", "CPU time used, in seconds.", cpu);
        }
    }

    fn facts(&self, now: Instant) -> Facts {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *known {
            Some((read, facts)) if now.saturating_duration_since(read) < FRESH_FOR => facts,
            Some(_) | None => known.insert((now, Facts::read())).1,
        }
    }
}

impl Facts {
    fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let kib = |key| number_after(&status, key).map(|kib| kib * 1024);
        Self {
            resident: kib("VmRSS:"),
            virtual_size: kib("VmSize:"),
            threads: number_after(&status, "Threads:"),
            files: open_files(),
            most_files: number_after(&limits, "Max open files"),
            cpu: cpu_seconds(&stat),
        }
    }
}

/// The number that comes after `key` at the start of a line.
fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// How many files are open: the directory's size since Linux 6.2, and how many stand in it before.
fn open_files() -> Option<u64> {
    let directory = "/proc/self/fd";
    match fs::metadata(directory).ok()?.len() {
        // The one that reading it takes isn't ours for long.
        0 => u64::try_from(fs::read_dir(directory).ok()?.count().saturating_sub(1)).ok(),
        files => Some(files),
    }
}

/// CPU time, in user and system mode, of a line of `/proc/self/stat`; the command's name in it may have blanks.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let ticks: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((ticks + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_blanks_and_brackets_does_not_shift_the_fields() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194304 1 2 3 4 150 50 0 0 20 0 1 0 9 8 7";

        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!([cpu_seconds(""), cpu_seconds("42 (a) S 1")], [None; 2]);
    }

    #[test]
    fn open_files_and_memory_are_this_processes_own() {
        let files = || Facts::read().files.unwrap();
        let (before, facts) = (files(), Facts::read());

        let held: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();

        // Other tests of this process open and close files meanwhile.
        assert!(files() + 20 > before + 50, "{before} files, then {}", files());
        assert!(facts.resident > Some(1 << 20) && facts.virtual_size >= facts.resident, "{facts:?}");
        assert!(facts.threads >= Some(1) && facts.most_files >= facts.files, "{facts:?}");
        drop(held);
    }
}
