//! Huge pages: how many this configuration wants, and how many there are.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use dataplane::config::{Config, display_size};
use dataplane::limits::FRAME_BYTES;
use dataplane::memory::HugePages;
use dataplane::topology::Plan;

use super::report::Finding;

/// Bytes of a huge page.
const PAGE_BYTES: u64 = 2 << 20;

/// Pages of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Need {
    /// Without them it runs in ordinary pages.
    wanted: u64,
    /// Of these, how many it does not start without.
    required: u64,
}

pub(super) fn examine(config: &Config, plan: &Plan) -> Vec<Finding> {
    let needs = needs(config, plan);
    if needs.is_empty() {
        return vec![Finding::note("huge pages", "the configuration wants none")];
    }
    let several_nodes = PathBuf::from("/sys/devices/system/node/node1").exists();
    needs.into_iter().map(|(node, need)| judge(node.filter(|_| several_nodes), need)).collect()
}

/// Pages by node. Each region is mapped by itself, so each is rounded up by itself.
fn needs(config: &Config, plan: &Plan) -> BTreeMap<Option<u32>, Need> {
    let mut needs: BTreeMap<Option<u32>, Need> = BTreeMap::new();
    for worker in &plan.workers {
        let umems = worker.queues.iter().filter_map(|queue| {
            let interface = config.interfaces.iter().find(|interface| interface.name == queue.interface)?;
            Some((u64::from(interface.frames) * FRAME_BYTES as u64, interface.huge_pages))
        });
        let table = (config.table.capacity_bytes, config.table.huge_pages);
        for (bytes, choice) in umems.chain([table]).filter(|(_, choice)| *choice != HugePages::Never) {
            let pages = bytes.div_ceil(PAGE_BYTES);
            let need = needs.entry(worker.node).or_default();
            need.wanted += pages;
            need.required += if choice == HugePages::Required { pages } else { 0 };
        }
    }
    needs
}

fn judge(node: Option<u32>, need: Need) -> Finding {
    let subject = node.map_or("huge pages".to_owned(), |node| format!("huge pages of node {node}"));
    let directory =
        node.map_or("/sys/kernel/mm".to_owned(), |node| format!("/sys/devices/system/node/node{node}"));
    let directory = PathBuf::from(directory).join("hugepages/hugepages-2048kB");
    let count =
        |file: &str| -> Option<u64> { fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok() };
    let (Some(total), Some(free)) = (count("nr_hugepages"), count("free_hugepages")) else {
        return Finding::note(subject, "this kernel has no huge pages of 2 MiB; ordinary pages are used");
    };
    let detail = format!(
        "{} are wanted ({}), {free} of {total} are free",
        need.wanted,
        display_size(need.wanted * PAGE_BYTES)
    );
    if free >= need.wanted {
        return Finding::good(subject, detail);
    }
    let target = total + need.wanted - free;
    let command = match node {
        None => format!("sysctl -w vm.nr_hugepages={target}"),
        Some(_) => format!("echo {target} > {}/nr_hugepages", directory.display()),
    };
    if free < need.required {
        Finding::lacking(subject, format!("{detail}; {} are required", need.required), command)
    } else {
        Finding::advice(
            subject,
            format!("{detail}; it would run in ordinary pages, with more TLB misses"),
            command,
        )
    }
}

#[cfg(test)]
mod tests {
    use dataplane::config;
    use dataplane::topology::{QueueAssignment, WorkerPlan};

    use super::*;

    #[test]
    fn tables_and_umems_are_added_up_by_node() {
        let mut config = config::parse(include_str!("../../../dataplane.example.toml")).expect("the example");
        config.table.huge_pages = HugePages::Required;
        let queue = |queue| QueueAssignment { interface: "eth1".into(), queue };
        let worker = |worker, node, queues| WorkerPlan { worker, core: worker, node: Some(node), queues };
        let plan = Plan {
            workers: vec![worker(0, 0, vec![queue(0), queue(1)]), worker(1, 1, vec![queue(2)])],
            housekeeping_cores: vec![0],
            remarks: Vec::new(),
        };
        // 1 GiB of table, and 8192 frames of 4 KiB a queue.
        let expected = [
            (Some(0), Need { wanted: 512 + 2 * 16, required: 512 }),
            (Some(1), Need { wanted: 512 + 16, required: 512 }),
        ];
        assert_eq!(needs(&config, &plan).into_iter().collect::<Vec<_>>(), expected);
        config.interfaces[0].huge_pages = HugePages::Never;
        config.table.huge_pages = HugePages::Never;
        assert!(needs(&config, &plan).is_empty());
    }

    #[test]
    fn more_than_any_host_has_is_lacking_with_the_command() {
        let pages = 1 << 40;
        let finding = judge(None, Need { wanted: pages, required: pages });
        if let Some(command) = finding.command {
            assert!(command.starts_with("sysctl -w vm.nr_hugepages="), "{command}");
        } else {
            assert!(finding.detail.contains("no huge pages"), "{}", finding.detail);
        }
    }
}
