//! Programs that everybody has, unchanged, against the daemon over the bypass: `redis-cli`, `redis-benchmark` and
//! `memccapable`. Needs root, `ip` (iproute2), redis-tools and libmemcached-tools.

mod daemon_support;

use std::process::{Command, Output};

use dataplane::testbed::{Daemon, requirements};

use daemon_support::{Family, Rig};

/// Redis's own port.
const RESP_PORT: u16 = 6_379;

struct Stock {
    rig: Rig,
    daemon: Daemon,
}

impl Stock {
    /// A daemon that speaks memcached and RESP over one table.
    fn start() -> Self {
        let rig = Rig::new();
        let config = rig.config("", "", "protocol = \"tcp\"")
            + &format!(
                "\n[[listener]]\nservice = \"resp\"\nprotocol = \"tcp\"\nport = {RESP_PORT}\n\
                 allow = [\"10.77.0.0/24\", \"fd77::/64\"]\n"
            );
        let daemon = rig.start_with(&config.replace("capacity = \"16MiB\"", "capacity = \"64MiB\""));
        Self { rig, daemon }
    }

    fn run(&self, program: &str, package: &str, arguments: &[&str]) -> Output {
        requirements::program(program, package).unwrap_or_else(|error| panic!("{error}"));
        let mut command: Command = self.rig.pair.left.command(program);
        command.args(arguments).output().expect("it runs")
    }

    fn redis_cli(&self, arguments: &[&str]) -> String {
        let server = Family::V4.of(&self.rig.pair.right_end).to_string();
        let port = RESP_PORT.to_string();
        let mut all = vec!["-h", &server, "-p", &port];
        all.extend(arguments);
        let output = self.run("redis-cli", "redis-tools", &all);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn redis_benchmark(&self, arguments: &[&str]) -> String {
        let server = Family::V4.of(&self.rig.pair.right_end).to_string();
        let port = RESP_PORT.to_string();
        let mut all = vec!["-h", &server, "-p", &port, "--csv"];
        all.extend(arguments);
        let output = self.run("redis-benchmark", "redis-tools", &all);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn redis_cli_sets_gets_scans_and_speaks_both_versions() {
    let mut stock = Stock::start();
    assert_eq!(stock.redis_cli(&["PING"]), "PONG");
    assert_eq!(stock.redis_cli(&["SET", "key", "value with\nanything \u{e9} in it"]), "OK");
    assert_eq!(stock.redis_cli(&["-3", "GET", "key"]), "value with\nanything \u{e9} in it");
    for number in 0..100 {
        assert_eq!(stock.redis_cli(&["SET", &format!("item:{number}"), "x", "EX", "1000"]), "OK");
    }
    let mut keys: Vec<String> =
        stock.redis_cli(&["--scan", "--pattern", "item:*"]).lines().map(str::to_owned).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 100, "{keys:?}");
    assert_eq!(stock.redis_cli(&["INCRBY", "counter", "41"]), "41");
    assert_eq!(stock.redis_cli(&["INCR", "counter"]), "42");
    assert!(stock.redis_cli(&["NOSUCH"]).starts_with("ERR unknown command 'NOSUCH'"));
    let Stock { rig, daemon } = &mut stock;
    rig.assert_no_frame_lost(daemon);
}

#[test]
fn redis_benchmark_runs_to_its_end_pipelined_and_with_many_connections() {
    let mut stock = Stock::start();
    for (connections, pipeline, requests) in
        [("50", "1", "20000"), ("50", "16", "100000"), ("1000", "1", "20000")]
    {
        let csv = stock.redis_benchmark(&[
            "-c",
            connections,
            "-P",
            pipeline,
            "-n",
            requests,
            "-t",
            "set,get",
            "-d",
            "32",
            "-r",
            "10000",
        ]);
        let rates: Vec<f64> = csv
            .lines()
            .skip(1)
            .filter_map(|line| line.split(',').nth(1)?.trim_matches('"').parse().ok())
            .collect();
        assert!(rates.len() == 2 && rates.iter().all(|&rate| rate > 0.0), "{csv}");
    }
    let Stock { rig, daemon } = &mut stock;
    let status = rig.wait_for_status(daemon, "the connections to be closed", |status| {
        status.workers[0].tcp_connections == 0
    });
    // What the load generator sent came to the worker past the kernel.
    let worker = &status.workers[0];
    assert!(worker.requests["store"] >= 140_000 && worker.tcp_events["accepted"] >= 1_000, "{worker:?}");
    rig.assert_no_frame_lost(daemon);
}

#[test]
fn memcached_and_redis_clients_see_each_others_items() {
    let stock = Stock::start();
    assert_eq!(stock.redis_cli(&["SET", "shared", "by redis"]), "OK");
    let server = std::net::SocketAddr::new(Family::V4.of(&stock.rig.pair.right_end), daemon_support::PORT);
    let url = format!("memcache://{server}?protocol=ascii&tcp_nodelay=true&timeout=5");
    let seen = stock.rig.pair.left.run(|| {
        let client = memcache::connect(url).expect("it connects");
        client.set("mine", "by memcached", 0).expect("it stores");
        client.get::<String>("shared").expect("it reads")
    });
    assert_eq!(seen.expect("entered").as_deref(), Some("by redis"));
    assert_eq!(stock.redis_cli(&["GET", "mine"]), "by memcached");
}

#[test]
fn memccapable_finds_nothing_wrong_with_the_text_protocol() {
    let stock = Stock::start();
    let server = Family::V4.of(&stock.rig.pair.right_end).to_string();
    let output = stock.run("memccapable", "libmemcached-tools", &["-a", "-h", &server]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("All tests passed"), "{said}");
}
