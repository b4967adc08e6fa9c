//! What the process itself takes, under the names that every Prometheus client uses.
//!
//! Read from `/proc` each time it is asked for; where there is none, there are no such metrics.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Registry, Result};

use crate::domain::time::Timestamp;

/// `USER_HZ`: in what the kernel tells of time to programs, whatever its own clock is.
const TICKS_PER_SECOND: f64 = 100.0;

/// What `/proc` says of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Taken {
    cpu_seconds: f64,
    threads: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    open_fds: f64,
    /// Infinite: there is no limit.
    max_fds: f64,
}

impl Taken {
    fn now() -> Option<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).ok();
        let open_fds = fs::read_dir("/proc/self/fd").ok()?.count();
        Self::read(&read("stat")?, &read("status")?, &read("limits")?, open_fds)
    }

    /// From what stands in `stat`, `status` and `limits`.
    fn read(stat: &str, status: &str, limits: &str, open_fds: usize) -> Option<Self> {
        // The second field is the program's name in parentheses, and may have some itself.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // As `man proc` counts them, from 1.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let kib = |name: &str| after(status, name)?.parse::<f64>().ok().map(|kib| kib * 1024.0);
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            threads: field(20)?,
            resident_bytes: kib("VmRSS:")?,
            virtual_bytes: kib("VmSize:")?,
            open_fds: open_fds as f64,
            max_fds: after(limits, "Max open files")?.parse().unwrap_or(f64::INFINITY),
        })
    }
}

/// The word after the line's beginning.
fn after<'a>(text: &'a str, beginning: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(beginning))?.split_whitespace().next()
}

/// Sets its metrics anew whenever they are asked for.
struct Process {
    cpu: Counter,
    threads: Gauge,
    resident: Gauge,
    address_space: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    started_at: Gauge,
}

/// Registers the metrics of this process, which started at `started_at`: what the kernel says of
/// that is hidden from a service that may see no other process. Without a `/proc`, there are none.
///
/// # Errors
/// When they are registered already.
#[rustfmt::skip]
pub(super) fn register(r: &Registry, started_at: Timestamp) -> Result<()> {
    if Taken::now().is_none() {
        return Ok(());
    }
    let gauge = |name: &str, help: &str| Gauge::new(name, help);
    let process = Process {
        cpu: Counter::new("process_cpu_seconds_total", "CPU time spent, in user and system mode.")?,
        threads: gauge("process_threads", "Threads of the process.")?,
        resident: gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.")?,
        address_space: gauge("process_virtual_memory_bytes", "Address space of the process.")?,
        open_fds: gauge("process_open_fds", "Files and sockets that are open.")?,
        max_fds: gauge("process_max_fds", "Files and sockets that may be open.")?,
        started_at: gauge("process_start_time_seconds", "When the process started, since the Unix epoch.")?,
    };
    process.started_at.set(started_at.as_seconds());
    r.register(Box::new(process))
}

impl Process {
    fn all(&self) -> [&dyn Collector; 7] {
        let Self { cpu, threads, resident, address_space, open_fds, max_fds, started_at } = self;
        [cpu, threads, resident, address_space, open_fds, max_fds, started_at]
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(taken) = Taken::now() else { return Vec::new() };
        // A counter only grows; two who ask at once may both have read a time before either counts.
        self.cpu.inc_by((taken.cpu_seconds - self.cpu.get()).max(0.0));
        self.threads.set(taken.threads);
        self.resident.set(taken.resident_bytes);
        self.address_space.set(taken.virtual_bytes);
        self.open_fds.set(taken.open_fds);
        self.max_fds.set(taken.max_fds);
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\trollbackd\nVmSize:\t  204800 kB\nVmRSS:\t   25000 kB\nThreads:\t5\n";
    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
        Max open files            1024                 524288               files\n";

    #[test]
    fn what_the_kernel_says_is_read_whatever_the_program_is_called() {
        for name in ["rollbackd", "a b) (c"] {
            let stat = format!(
                "42 ({name}) S 1 42 42 0 -1 4194560 900 0 1 0 250 50 0 0 20 0 5 0 12345 209715200 6103 18446744073709551615"
            );
            let taken = Taken::read(&stat, STATUS, LIMITS, 17).unwrap();
            let want = Taken {
                cpu_seconds: 3.0,
                threads: 5.0,
                resident_bytes: 25_600_000.0,
                virtual_bytes: 209_715_200.0,
                open_fds: 17.0,
                max_fds: 1024.0,
            };
            assert_eq!(taken, want, "{name}");
            let unlimited = LIMITS.replace("1024  ", "unlimited");
            let taken = Taken::read(&stat, STATUS, &unlimited, 17).unwrap();
            assert!(taken.max_fds.is_infinite(), "{unlimited}");
        }
        assert_eq!(Taken::read("", STATUS, LIMITS, 17), None);
    }
}
