//! Wall time, CPU time and peak memory of whole processes, and of a thread's work.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use rustix::time::{ClockId, clock_gettime};

use crate::support::agent;

/// What a piece of work took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    pub wall_s: f64,
    pub cpu_s: f64,
    pub peak_bytes: u64,
}

/// As [`process`], with the processes that it has started and waited for.
pub fn whole(command: &mut Command) -> Cost {
    measure(command, family_cpu_seconds)
}

/// User and system time of a process that has ended, and of its children.
fn family_cpu_seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is not reaped yet");
    let after = text.rsplit_once(')').expect("a command in brackets").1;
    let ticks: u32 = after.split_whitespace().skip(11).take(4).map(|field| field.parse::<u32>().expect("ticks")).sum();
    f64::from(ticks) / 100.0
}

/// Runs a command to its end and measures it. Its CPU time is read when it has ended but is not yet reaped.
pub fn process(command: &mut Command) -> Cost {
    measure(command, agent::cpu_seconds)
}

fn measure(command: &mut Command, cpu_seconds: impl Fn(u32) -> f64) -> Cost {
    let begin = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start the command");
    let pid = child.id();
    let sampler = std::thread::spawn(move || sample_peak(pid));
    let id = Pid::from_child(&child);
    waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).expect("wait for the command");
    let wall_s = begin.elapsed().as_secs_f64();
    let cpu_s = cpu_seconds(pid);
    finish(&mut child, command);
    Cost { wall_s, cpu_s, peak_bytes: sampler.join().unwrap() }
}

fn finish(child: &mut Child, command: &Command) {
    use std::io::Read;

    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(status.success(), "{command:?}: {status}: {said}");
}

/// The highest VmHWM seen until the process is gone.
fn sample_peak(pid: u32) -> u64 {
    let mut peak = 0;
    loop {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return peak };
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let Some(kib) = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()) else {
            return peak;
        };
        peak = peak.max(kib * 1024);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Measures what this thread does.
pub fn thread(work: impl FnOnce()) -> Cost {
    let cpu = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let (begin, cpu_begin) = (Instant::now(), cpu());
    work();
    Cost { wall_s: begin.elapsed().as_secs_f64(), cpu_s: cpu() - cpu_begin, peak_bytes: 0 }
}

/// The middle one by `key`.
pub fn median(costs: &[Cost], key: impl Fn(&Cost) -> f64) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(key).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
