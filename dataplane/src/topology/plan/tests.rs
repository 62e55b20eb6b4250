use proptest::prelude::*;

use super::*;
use crate::config::{ListenerConfig, TcpConfig};
use crate::limits::WORKERS_MAX;
use crate::topology::Interface;

/// `nodes` nodes of `physical` cores of `threads` threads each, numbered as Linux does: first every core's first
/// thread, then every core's second.
fn host(nodes: usize, physical: usize, threads: usize) -> Topology {
    let total = nodes * physical;
    let cores = (0..total * threads).map(|id| {
        let node = u32::try_from(id % total / physical).ok();
        Core { id, physical: id % total, node, usable: true }
    });
    Topology { cores: cores.collect(), interfaces: Vec::new() }
}

fn nic(mut topology: Topology, name: &str, queues: u32, node: Option<u32>) -> Topology {
    topology.interfaces.push(Interface { name: name.to_owned(), queues, receive_only: 0, node });
    topology
}

fn serving(names: &[&str]) -> Config {
    Config {
        daemon: Default::default(),
        interfaces: names.iter().map(|&name| InterfaceConfig::named(name)).collect(),
        workers: Default::default(),
        table: Default::default(),
        tcp: TcpConfig::default(),
        listeners: vec![ListenerConfig::new("memcached", 11211)],
    }
}

fn cores_of(plan: &Plan) -> Vec<usize> {
    plan.workers.iter().map(|worker| worker.core).collect()
}

fn queues_per_worker(plan: &Plan) -> Vec<usize> {
    plan.workers.iter().map(|worker| worker.queues.len()).collect()
}

/// A plan with as many workers as queues and cores allow.
fn plan(topology: &Topology, config: &Config) -> Result<Plan, PlanErrors> {
    plan_with(topology, config, WORKERS_MAX)
}

#[test]
fn one_worker_serves_every_queue_unless_cores_are_named() {
    let topology = nic(host(2, 4, 1), "eth1", 4, Some(1));
    let plan = super::plan(&topology, &serving(&["eth1"])).expect("there is a plan");
    assert_eq!(plan.workers.len(), 1);
    assert_eq!(plan.workers[0].queues.len(), 4);
    assert_eq!(plan.workers[0].node, Some(1));
}

#[test]
fn workers_go_to_the_nics_node() {
    let topology = nic(host(2, 4, 1), "eth1", 4, Some(1));
    let plan = plan(&topology, &serving(&["eth1"])).expect("there is a plan");
    assert_eq!(cores_of(&plan), [4, 5, 6, 7]);
    assert!(plan.workers.iter().all(|worker| worker.node == Some(1)));
    assert_eq!(plan.housekeeping_cores, [0, 1, 2, 3]);
    assert_eq!(plan.remarks.len(), 1, "four tables, and nothing else to say: {plan}");
}

#[test]
fn more_queues_than_cores_share_the_cores_and_none_is_left_out() {
    let topology = nic(host(2, 4, 1), "eth1", 10, Some(1));
    let plan = plan(&topology, &serving(&["eth1"])).expect("there is a plan");
    assert_eq!(cores_of(&plan), [4, 5, 6, 7]);
    let mut counts = queues_per_worker(&plan);
    counts.sort_unstable();
    assert_eq!(counts, [2, 2, 3, 3]);
}

#[test]
fn fewer_queues_than_cores_make_fewer_workers() {
    let topology = nic(host(1, 8, 1), "eth1", 2, None);
    let plan = plan(&topology, &serving(&["eth1"])).expect("there is a plan");
    assert_eq!(cores_of(&plan), [1, 2], "core 0 stays with the control plane");
    assert_eq!(plan.housekeeping_cores, [0, 3, 4, 5, 6, 7]);
}

#[test]
fn sibling_threads_do_not_both_poll() {
    let topology = nic(host(1, 4, 2), "eth1", 16, Some(0));
    let plan = plan(&topology, &serving(&["eth1"])).expect("there is a plan");
    assert_eq!(cores_of(&plan), [1, 2, 3]);
    assert_eq!(plan.housekeeping_cores, [0, 4, 5, 6, 7]);
}

#[test]
fn a_host_with_one_core_shares_it_and_says_so() {
    let topology = nic(host(1, 1, 1), "eth1", 1, None);
    let plan = plan(&topology, &serving(&["eth1"])).expect("there is a plan");
    assert_eq!((cores_of(&plan), plan.housekeeping_cores.clone()), (vec![0], vec![0]));
    assert!(plan.to_string().contains("note: every core"), "{plan}");
}

#[test]
fn offline_cores_and_those_of_other_cgroups_are_left_alone() {
    let mut topology = nic(host(2, 4, 1), "eth1", 8, Some(1));
    for core in &mut topology.cores {
        core.usable = matches!(core.id, 2 | 5 | 6);
    }
    let plan = plan(&topology, &serving(&["eth1"])).expect("there is a plan");
    assert_eq!(cores_of(&plan), [5, 6]);
    assert_eq!(plan.housekeeping_cores, [2]);
}

#[test]
fn a_nic_far_from_every_usable_core_is_served_all_the_same_and_said() {
    let mut topology = nic(host(2, 2, 1), "eth1", 1, Some(1));
    for core in &mut topology.cores {
        core.usable = core.node == Some(0);
    }
    let plan = plan(&topology, &serving(&["eth1"])).expect("there is a plan");
    assert_eq!(cores_of(&plan), [1]);
    assert!(plan.remarks[0].contains("crosses nodes"), "{plan}");
}

#[test]
fn two_nics_on_two_nodes_are_each_served_from_their_own() {
    let topology = nic(nic(host(2, 4, 1), "eth1", 2, Some(1)), "eth0", 2, Some(0));
    let plan = plan(&topology, &serving(&["eth1", "eth0"])).expect("there is a plan");
    for worker in &plan.workers {
        let name = if worker.node == Some(0) { "eth0" } else { "eth1" };
        assert!(worker.queues.iter().all(|queue| queue.interface == name), "{plan}");
    }
    assert_eq!(queues_per_worker(&plan), [1, 1, 1, 1]);
}

#[test]
fn named_cores_are_used_as_named_and_near_ones_first() {
    let topology = nic(host(2, 4, 1), "eth1", 3, Some(1));
    let mut config = serving(&["eth1"]);
    config.workers.cores = Some(vec![1, 6]);
    config.daemon.housekeeping_cores = Some(vec![3, 0]);
    let plan = plan(&topology, &config).expect("there is a plan");
    assert_eq!(cores_of(&plan), [1, 6]);
    assert_eq!(queues_per_worker(&plan), [1, 2], "the near core has the odd queue");
    assert_eq!(plan.housekeeping_cores, [0, 3]);
    assert_eq!(plan.remarks.len(), 2, "core 1 is far, and there are two tables: {plan}");
}

#[test]
fn every_reason_against_a_plan_is_named() {
    let mut topology = nic(host(1, 4, 1), "eth1", 2, None);
    topology.cores[3].usable = false;
    let mut config = serving(&["eth1", "eth9"]);
    config.interfaces[0].queues = Some(vec![0, 5]);
    config.workers.cores = Some(vec![1, 3, 64]);
    let errors = plan(&topology, &config).expect_err("nothing of it fits");
    let known = vec!["eth1".to_owned()];
    assert_eq!(
        errors.0,
        [
            PlanError::NoQueue { interface: "eth1".into(), queue: 5, count: 2 },
            PlanError::NoInterface { name: "eth9".into(), known },
            PlanError::CoreNotUsable { key: "workers.cores", core: 3, usable: vec![0, 1, 2] },
            PlanError::NoCore { key: "workers.cores", core: 64, known: vec![0, 1, 2, 3] },
        ]
    );
    assert!(errors.to_string().contains("ethtool -L eth1 combined 6"), "{errors}");
}

#[test]
fn queues_that_only_receive_are_not_served_and_naming_one_is_refused() {
    let mut topology = nic(host(1, 4, 1), "eth1", 2, None);
    topology.interfaces[0].receive_only = 2;
    let mut config = serving(&["eth1"]);
    let served = plan(&topology, &config).expect("there is a plan");
    assert_eq!(queues_per_worker(&served).iter().sum::<usize>(), 2);
    config.interfaces[0].queues = Some(vec![1, 3, 4]);
    let errors = plan(&topology, &config).expect_err("queue 3 cannot send, and 4 is not there");
    let interface = || "eth1".to_owned();
    assert_eq!(
        errors.0,
        [
            PlanError::ReceiveOnly { interface: interface(), queue: 3, count: 2 },
            PlanError::NoQueue { interface: interface(), queue: 4, count: 2 },
        ]
    );
}

#[test]
fn more_named_cores_than_queues_are_refused() {
    let topology = nic(host(1, 4, 1), "eth1", 1, None);
    let mut config = serving(&["eth1"]);
    config.workers.cores = Some(vec![1, 2]);
    let errors = plan(&topology, &config).expect_err("one would idle");
    assert_eq!(errors.0, [PlanError::WorkersWithoutQueue { cores: 2, queues: 1 }]);
}

#[test]
fn housekeeping_on_every_core_is_refused() {
    let topology = nic(host(1, 2, 1), "eth1", 1, None);
    let mut config = serving(&["eth1"]);
    config.daemon.housekeeping_cores = Some(vec![0, 1]);
    assert_eq!(plan(&topology, &config).expect_err("no core is left").0, [PlanError::NoCoreLeft]);
}

#[test]
fn too_many_queues_are_refused() {
    let topology = nic(host(1, 2, 1), "eth1", 1000, None);
    let errors = plan(&topology, &serving(&["eth1"])).expect_err("there are too many");
    assert_eq!(errors.0, [PlanError::TooManyQueues { count: 1000, max: QUEUES_MAX }]);
}

proptest! {
    #[test]
    fn every_queue_is_served_once_by_a_usable_core(
        nodes in 1usize..4, physical in 1usize..6, threads in 1usize..3, usable in any::<u64>(),
        nics in prop::collection::vec((1u32..40, prop::option::of(0u32..4)), 1..4),
    ) {
        let mut topology = host(nodes, physical, threads);
        for core in &mut topology.cores {
            core.usable = core.id == 0 || usable >> (core.id % 64) & 1 == 1;
        }
        let names: Vec<String> = (0..nics.len()).map(|index| format!("eth{index}")).collect();
        for (name, &(queues, node)) in names.iter().zip(&nics) {
            topology = nic(topology, name, queues, node);
        }
        let plan = plan(&topology, &serving(&names.iter().map(String::as_str).collect::<Vec<_>>()))
            .expect("core 0 is usable and every interface is there");
        let mut served: Vec<_> = plan
            .workers
            .iter()
            .flat_map(|worker| worker.queues.iter().map(|queue| (queue.interface.clone(), queue.queue)))
            .collect();
        served.sort();
        let mut wanted: Vec<_> = names
            .iter()
            .zip(&nics)
            .flat_map(|(name, &(queues, _))| (0..queues).map(move |queue| (name.clone(), queue)))
            .collect();
        wanted.sort();
        prop_assert_eq!(served, wanted);
        let usable = topology.usable_cores();
        let mut cores = cores_of(&plan);
        prop_assert!(cores.iter().all(|core| usable.contains(core)));
        prop_assert!(plan.workers.iter().all(|worker| !worker.queues.is_empty()));
        cores.dedup();
        prop_assert_eq!(cores.len(), plan.workers.len(), "one worker a core");
        prop_assert!(!plan.housekeeping_cores.is_empty());
        let physical: std::collections::BTreeSet<usize> =
            topology.cores.iter().filter(|core| core.usable).map(|core| core.physical).collect();
        let shared = plan.housekeeping_cores.iter().any(|core| cores.contains(core));
        prop_assert_eq!(shared, physical.len() == 1 && usable.len() == 1, "{}", plan);
    }
}
