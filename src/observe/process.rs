//! The process itself, as every Prometheus client tells it: read from `/proc`.

use rustix::param::{clock_ticks_per_second, page_size};

/// What `/proc` says; `None` where it does not.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) resident_bytes: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_fds: Option<u64>,
    pub(super) fds_max: Option<u64>,
}

pub(super) fn process() -> Process {
    let pages = field("/proc/self/statm", 1);
    // Behind the name in brackets, which may hold blanks: user and system time are the 14th and 15th field of all.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit_once(") ").and_then(|(_, rest)| {
        let mut times = rest.split(' ').skip(11).map_while(|field| field.parse::<u64>().ok());
        times.next()?.checked_add(times.next()?)
    });
    let ticks_a_second = clock_ticks_per_second().max(1);
    Process {
        resident_bytes: pages.and_then(|pages| pages.checked_mul(u64::try_from(page_size()).ok()?)),
        cpu_seconds: ticks.map(|ticks| ticks as f64 / ticks_a_second as f64),
        open_fds: std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
        fds_max: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
    }
}

fn field(path: &str, index: usize) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.split_whitespace().nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_files() {
        let Process { resident_bytes, cpu_seconds, open_fds, fds_max } = process();
        assert!(resident_bytes > Some(1 << 20), "{resident_bytes:?}");
        assert!(cpu_seconds >= Some(0.0), "{cpu_seconds:?}");
        assert!(open_fds >= Some(3) && fds_max.is_none_or(|max| max > 3), "{open_fds:?} {fds_max:?}");
    }
}
