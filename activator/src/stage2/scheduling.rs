//! `CPUSchedulingPolicy=`, `CPUAffinity=`, `IOSchedulingClass=`, `TimerSlackNSec=` and their kin.

use super::error::{At, Failed, Stage};
use super::sys;
use crate::manifest::Scheduling;
use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};
use std::num::NonZeroU64;

/// SCHED_RESET_ON_FORK of sched(7).
const RESET_ON_FORK: u32 = 0x4000_0000;

/// Sets what is to be set.
pub(super) fn apply(scheduling: &Scheduling) -> Result<(), Failed> {
    let Scheduling { policy, priority, reset_on_fork, affinity, io_priority, timer_slack_ns } =
        scheduling;
    if policy.is_some() || priority.is_some() || *reset_on_fork {
        let flag = if *reset_on_fork { RESET_ON_FORK } else { 0 };
        let policy = policy.unwrap_or(0);
        sys::set_scheduler(policy | flag, priority.unwrap_or(0))
            .at(Stage::Scheduler, || format!("set the scheduling policy {policy}"))?;
    }
    if !affinity.is_empty() {
        let mut cpus = CpuSet::new();
        // A number that cannot be is left out, as one that this machine has not.
        let known =
            affinity.iter().map(|cpu| usize::from(*cpu)).filter(|cpu| *cpu < CpuSet::MAX_CPU);
        known.for_each(|cpu| cpus.set(cpu));
        sched_setaffinity(None, &cpus)
            .at(Stage::CpuAffinity, || format!("run on the CPUs {affinity:?} only"))?;
    }
    if let Some(priority) = io_priority {
        sys::set_io_priority(*priority)
            .at(Stage::Scheduler, || format!("set the I/O priority {priority:#x}"))?;
    }
    if let Some(slack) = timer_slack_ns {
        // 0 would be the default; the least is what it means here.
        set_current_timer_slack(NonZeroU64::new((*slack).max(1)))
            .at(Stage::Scheduler, || format!("set the timer slack to {slack} ns"))?;
    }
    Ok(())
}
