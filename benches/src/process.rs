//! What a process and its children have used, as the kernel counts it.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

/// A process and all below it: Squid makes its certificates in helpers of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in user and kernel mode, in steps of the kernel's clock (10 ms as a rule).
    pub processor: Duration,
    /// Memory in RAM, in KiB.
    pub resident: u64,
    /// The most of it since it was last reset, in KiB.
    pub peak: u64,
}

/// What the process and its descendants have used so far.
pub fn usage(root: u32) -> io::Result<Usage> {
    let mut usage = Usage::default();
    for (pid, used) in tree(root)? {
        usage.processor += ticks(used);
        // One that ended meanwhile holds nothing any more.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        usage.resident += kib(&status, "VmRSS:");
        usage.peak += kib(&status, "VmHWM:");
    }
    Ok(usage)
}

/// What all processors of the machine have done so far, for anybody; time that the host gave to others counts as well.
pub fn machine() -> io::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    // user, nice, system, idle, iowait, irq, softirq, steal
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    Ok(ticks(fields.iter().sum::<u64>() - idle))
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_nanos(ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// Forgets the peak so far, so that the next is of what follows alone.
pub fn reset_peak(root: u32) -> io::Result<()> {
    for (pid, _) in tree(root)? {
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    }
    Ok(())
}

/// The process and its descendants, each with its clock ticks.
fn tree(root: u32) -> io::Result<Vec<(u32, u64)>> {
    let mut children: HashMap<u32, Vec<(u32, u64)>> = HashMap::new();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some(Stat { parent, ticks }) = Stat::parse(&stat) else { continue };
        match pid == root {
            true => found.push((pid, ticks)),
            false => children.entry(parent).or_default().push((pid, ticks)),
        }
    }
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("process {root} is gone")));
    }
    let mut next = 0;
    while let Some(&(pid, _)) = found.get(next) {
        found.extend(children.remove(&pid).unwrap_or_default());
        next += 1;
    }
    Ok(found)
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Its own, and those of children that have ended.
    ticks: u64,
}

impl Stat {
    /// proc_pid_stat(5): the name is in parentheses and may hold some itself.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>());
        Some(Self { parent: fields.get(1)?.parse().ok()?, ticks: ticks.sum::<Result<_, _>>().ok()? })
    }
}

fn kib(status: &str, key: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB"));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_whatever_the_program_is_called() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 9 0 5 6 7";
        assert_eq!(Stat::parse(line), Some(Stat { parent: 7, ticks: 124 }));
        assert_eq!(Stat::parse("42 (cut"), None);
    }

    #[test]
    fn a_process_that_works_is_seen_to_work() {
        let before = usage(std::process::id()).unwrap();
        let until = std::time::Instant::now() + Duration::from_millis(200);
        let mut sum = 0u64;
        while std::time::Instant::now() < until {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        let after = usage(std::process::id()).unwrap();
        assert!(after.processor > before.processor, "{before:?} {after:?}");
        assert!(after.peak >= after.resident && after.resident > 0, "{after:?}");
    }

    #[test]
    fn the_work_of_a_child_counts() {
        let mut child = std::process::Command::new("sleep").arg("5").spawn().unwrap();
        let (own, whole) = (std::process::id(), tree(std::process::id()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        let pids: Vec<u32> = whole.iter().map(|(pid, _)| *pid).collect();
        assert!(pids.contains(&own) && pids.contains(&child.id()), "{pids:?}");
    }
}
