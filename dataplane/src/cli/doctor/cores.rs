//! The plan, and what else runs on the workers' cores.

use std::fs;

use dataplane::config::Config;
use dataplane::topology::{self, Plan, Topology};

use super::report::{Finding, Verdict};

/// The plan, when there is one, and what was found.
pub(super) fn examine(config: &Config, topology: &Topology) -> (Option<Plan>, Vec<Finding>) {
    let plan = match topology::plan(topology, config) {
        Ok(plan) => plan,
        Err(errors) => {
            let finding = |error: &topology::PlanError| {
                // Each names the key of the configuration that mends it, and the command where that can.
                Finding::without_command(Verdict::Lacking, "plan", error.to_string())
            };
            return (None, errors.0.iter().map(finding).collect());
        }
    };
    let cores: Vec<usize> = plan.workers.iter().map(|worker| worker.core).collect();
    let queues: usize = plan.workers.iter().map(|worker| worker.queues.len()).sum();
    let detail = format!("{} workers serve {queues} queues on cores {cores:?}", cores.len());
    let mut findings = vec![Finding::good("plan", detail)];
    findings.extend(plan.remarks.iter().map(|remark| Finding::note("plan", remark)));
    findings.extend(irqbalance(&cores));
    findings.push(governor(&cores));
    findings.push(isolation(&cores));
    (Some(plan), findings)
}

fn irqbalance(cores: &[usize]) -> Option<Finding> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut names = processes.filter_map(|process| fs::read_to_string(process.path().join("comm")).ok());
    names.any(|name| name.trim() == "irqbalance").then(|| {
        Finding::advice(
            "irqbalance",
            "runs, and may move interrupts onto the workers' cores",
            format!("systemctl stop irqbalance   # or IRQBALANCE_BANNED_CPULIST={}", list(cores)),
        )
    })
}

fn governor(cores: &[usize]) -> Finding {
    let of_core = |core: &usize| {
        let path = format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
        fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
    };
    let governors: Vec<String> = cores.iter().filter_map(of_core).collect();
    match governors.iter().find(|governor| *governor != "performance") {
        Some(other) => Finding::advice(
            "CPU governor",
            format!("is {other}: a core that wakes from sleep answers slowly at first"),
            format!("cpupower --cpu {} frequency-set --governor performance", list(cores)),
        ),
        None if governors.is_empty() => {
            Finding::note("CPU governor", "none here: the host or its hypervisor decides")
        }
        None => Finding::good("CPU governor", "is performance"),
    }
}

fn isolation(cores: &[usize]) -> Finding {
    let isolated = fs::read_to_string("/sys/devices/system/cpu/isolated").unwrap_or_default();
    let isolated = parse_list(isolated.trim());
    let shared: Vec<usize> = cores.iter().copied().filter(|core| !isolated.contains(core)).collect();
    if shared.is_empty() {
        return Finding::good("isolated cores", "the scheduler keeps other work off the workers' cores");
    }
    Finding::note(
        "isolated cores",
        format!(
            "cores {} also run other processes; for the last microseconds of latency boot with isolcpus={1} \
             nohz_full={1}",
            list(&shared),
            list(cores)
        ),
    )
}

fn list(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// Reads a list as the kernel writes it: `0-3,8`.
fn parse_list(text: &str) -> Vec<usize> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<usize>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernels_lists_are_read() {
        assert_eq!(super::parse_list("0-2,8"), [0, 1, 2, 8]);
        assert_eq!(super::parse_list(""), Vec::<usize>::new());
    }
}
