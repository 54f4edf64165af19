//! The core that servers are pinned to.

use std::error::Error;
use std::time::Duration;

/// For how long it has been used by anyone, the hypervisor included (proc(5)).
pub(crate) fn core_used() -> Result<Duration, Box<dyn Error + Send + Sync>> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().find_map(|line| line.strip_prefix("cpu0 ")).ok_or("no cpu0 in /proc/stat")?;
    let ticks = fields.split_whitespace().take(8).map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok(Duration::from_millis((ticks.iter().sum::<u64>() - idle) * 10))
}
