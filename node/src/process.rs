//! What the process uses of its machine, in parts of what it may use.

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Instant;

use crate::interfaces::Interfaces;
use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// The figures of one moment, 0 to 1 each; not a number where the system does not tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    /// Processor time since the last look, of all cores.
    pub(crate) cpu: f64,
    /// Memory that is resident, of the machine's or the control group's.
    pub(crate) memory: f64,
    /// The disk of the data directory: what is taken.
    pub(crate) disk: f64,
    /// Open file descriptors, of the limit of the process.
    pub(crate) descriptors: f64,
    /// Traffic of the busiest network interface since the last look, of its speed.
    pub(crate) network: f64,
}

/// Reads them. Blocks for a moment: it reads files of the system.
#[derive(Debug)]
pub(crate) struct Reader {
    system: System,
    pid: Option<Pid>,
    dir: Option<PathBuf>,
    /// Processor time in milliseconds at the last look, and when that was.
    last: Option<(u64, Instant)>,
    interfaces: Interfaces,
}

impl Reader {
    /// For this process; `dir` is its data directory.
    pub(crate) fn new(dir: Option<PathBuf>) -> Self {
        Reader {
            system: System::new(),
            pid: sysinfo::get_current_pid().ok(),
            dir,
            last: None,
            interfaces: Interfaces::new(),
        }
    }

    /// The figures of now.
    pub(crate) fn read(&mut self) -> Figures {
        let (disk, network) = (self.disk(), self.interfaces.in_use());
        let unknown = Figures { cpu: f64::NAN, memory: f64::NAN, disk, descriptors: f64::NAN, network };
        let Some(pid) = self.pid else { return unknown };
        let what = ProcessRefreshKind::nothing().with_cpu().with_memory();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, what);
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let Some(process) = self.system.process(pid) else { return unknown };
        let used_ms = process.accumulated_cpu_time();
        let limit = self.system.cgroup_limits().map(|limits| limits.total_memory).filter(|total| *total > 0);
        let total = limit.map_or(self.system.total_memory(), |limit| limit.min(self.system.total_memory()));
        let memory = share(process.memory(), total);
        let descriptors =
            process.open_files().zip(process.open_files_limit()).map_or(f64::NAN, |(open, limit)| {
                share(u64::try_from(open).unwrap_or(u64::MAX), u64::try_from(limit).unwrap_or(u64::MAX))
            });
        Figures { cpu: self.cpu(used_ms), memory, disk, descriptors, network }
    }

    fn cpu(&mut self, used_ms: u64) -> f64 {
        let now = Instant::now();
        let Some((before_ms, at)) = self.last.replace((used_ms, now)) else { return f64::NAN };
        let cores = available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let cores = f64::from(u32::try_from(cores).unwrap_or(u32::MAX));
        let used = f64::from(u32::try_from(used_ms.saturating_sub(before_ms)).unwrap_or(u32::MAX));
        used / (now.duration_since(at).as_secs_f64() * 1e3 * cores)
    }

    fn disk(&self) -> f64 {
        self.dir.as_deref().and_then(disk_in_use).unwrap_or(f64::NAN)
    }
}

/// The part of a disk that is taken, as `df` says it: what only root could write counts as taken by nobody.
fn disk_in_use(dir: &Path) -> Option<f64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    let used = disk.f_blocks.checked_sub(disk.f_bfree)?;
    Some(share(used, used.checked_add(disk.f_bavail)?))
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { f64::NAN } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    #[test]
    fn the_process_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = Reader::new(Some(dir.path().to_owned()));
        assert!(reader.read().cpu.is_nan(), "a rate takes two looks");
        // Something to be seen, in processor time: the clock that is read has ticks of 10 ms.
        let used_ms = || {
            let used = clock_gettime(ClockId::ProcessCPUTime);
            used.tv_sec * 1000 + used.tv_nsec / 1_000_000
        };
        let begun = used_ms();
        while used_ms() < begun + 30 {
            std::hint::black_box(blake3::hash(&[0; 4096]));
        }
        let Figures { cpu, memory, disk, descriptors, network } = reader.read();
        assert!(cpu > 0.0 && cpu < 2.0, "{cpu}");
        for share in [memory, disk, descriptors] {
            assert!((0.0..=1.0).contains(&share), "{memory} {disk} {descriptors}");
        }
        assert!(network.is_nan() || network >= 0.0, "{network}");
        assert!(Reader::new(None).read().disk.is_nan());
    }
}
