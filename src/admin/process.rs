//! The standard `process_*` metrics, from `/proc`. What cannot be read is left out.

use std::fs;

use prometheus::proto::MetricFamily;
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use super::{
    metrics::list::{self, Described},
    samples::real,
};

/// All of them.
pub(super) fn families() -> Vec<MetricFamily> {
    let of_process =
        |described: Described, value: Option<f64>| described.of(value.map(|value| real(&[], value)));
    let stat = Stat::read();
    let times = stat.as_ref();
    vec![
        of_process(list::PROCESS_CPU, times.map(|stat| stat.cpu_seconds)),
        of_process(list::PROCESS_OPEN_FDS, open_fds()),
        of_process(list::PROCESS_MAX_FDS, getrlimit(Resource::Nofile).current.map(|limit| limit as f64)),
        of_process(list::PROCESS_RESIDENT, times.map(|stat| stat.resident_bytes)),
        of_process(list::PROCESS_VIRTUAL, times.map(|stat| stat.virtual_bytes)),
        of_process(list::PROCESS_STARTED, times.and_then(|stat| Some(stat.started_seconds + boot_time()?))),
    ]
}

fn open_fds() -> Option<f64> {
    // Linux 6.2 and later tell it by the folder's size; to list thousands takes a millisecond and more.
    let told = fs::metadata("/proc/self/fd").ok()?.len();
    if told > 0 {
        return Some(told as f64);
    }
    // The one that lists them is among them.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// What of `/proc/self/stat` is told.
struct Stat {
    cpu_seconds: f64,
    /// After the machine's boot.
    started_seconds: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name in parentheses may contain spaces; what follows begins with field 3.
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let ticks = clock_ticks_per_second() as f64;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            started_seconds: field(22)? / ticks,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page_size() as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn tells_plausible_figures_of_this_process() {
        let value = |name: &str| {
            let families = families();
            let family = families.iter().find(|family| family.name() == name).expect("it is there");
            let metric = family.get_metric().first().expect("a sample");
            metric.get_gauge().get_value() + metric.get_counter().get_value()
        };
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let age = now.as_secs_f64() - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }
}
