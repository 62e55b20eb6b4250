//! Command-line clients.

use std::process::Output;

use dataplane::testbed::requirements;

use crate::daemon_support::bed::{Bed, Place, Transport, events, over_every_transport};

over_every_transport!(
    redis_cli_sets_gets_and_speaks_both_versions,
    redis_cli_scans_every_key_once,
    redis_benchmark_runs_to_its_end_pipelined_and_with_many_connections,
    memccapable_finds_nothing_wrong_with_the_text_protocol,
);

fn run(place: Place<'_>, program: &str, package: &str, arguments: &[&str]) -> Output {
    requirements::program(program, package).unwrap_or_else(|error| panic!("{error}"));
    place.command(program).args(arguments).output().expect("it runs")
}

fn redis_tool(place: Place<'_>, program: &str, arguments: &[&str]) -> String {
    let (host, port) = (place.host(), place.port());
    let mut all = vec!["-h", &host, "-p", &port];
    all.extend(arguments);
    let output = run(place, program, "redis-tools", &all);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

pub(crate) fn redis_cli(place: Place<'_>, arguments: &[&str]) -> String {
    redis_tool(place, "redis-cli", arguments)
}

fn redis_cli_sets_gets_and_speaks_both_versions(transport: Transport) {
    let mut bed = Bed::start(transport);
    let cli = |arguments: &[&str]| redis_cli(bed.resp(), arguments);
    assert_eq!(cli(&["PING"]), "PONG");
    assert_eq!(cli(&["SET", "key", "value with\nanything \u{e9} in it"]), "OK");
    assert_eq!(cli(&["-3", "GET", "key"]), "value with\nanything \u{e9} in it");
    assert_eq!(cli(&["INCRBY", "counter", "41"]), "41");
    assert_eq!(cli(&["INCR", "counter"]), "42");
    assert!(cli(&["NOSUCH"]).starts_with("ERR unknown command 'NOSUCH'"));
    bed.assert_nothing_left();
}

fn redis_cli_scans_every_key_once(transport: Transport) {
    const ITEMS: usize = 3_000;
    const OTHERS: usize = 500;
    let mut bed = Bed::start(transport);
    // `MSET` of as many keys as there are words: as many as an argument list takes.
    let words = |prefix: &str, count: usize| -> Vec<String> {
        let pairs = (0..count).flat_map(|number| [format!("{prefix}:{number}"), number.to_string()]);
        std::iter::once("MSET".to_owned()).chain(pairs).collect()
    };
    for words in [words("item", ITEMS), words("other", OTHERS)] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(redis_cli(bed.resp(), &words), "OK");
    }
    let scan = |arguments: &[&str]| -> Vec<String> {
        let mut keys: Vec<String> = redis_cli(bed.resp(), arguments).lines().map(str::to_owned).collect();
        keys.sort_unstable();
        keys
    };
    let wanted = |prefix: &str, count: usize| -> Vec<String> {
        let mut keys: Vec<String> = (0..count).map(|number| format!("{prefix}:{number}")).collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(scan(&["--scan", "--pattern", "item:*"]), wanted("item", ITEMS));
    assert_eq!(scan(&["--scan", "--pattern", "*:[12]?"]).len(), 2 * 20);
    assert_eq!(scan(&["--scan", "--pattern", "other:*"]), wanted("other", OTHERS));
    assert_eq!(scan(&["-3", "--scan"]).len(), ITEMS + OTHERS);
    bed.assert_nothing_left();
}

fn redis_benchmark_runs_to_its_end_pipelined_and_with_many_connections(transport: Transport) {
    let mut bed = Bed::start(transport);
    // Connections, requests sent ahead, requests.
    let mut stores_min = 0;
    for (connections, pipeline, requests) in
        [(50, 1, 20_000), (50, 16, 100_000), (1_000, 1, 20_000), (1_000, 16, 100_000)]
    {
        let [connections, pipeline, count] =
            [connections, pipeline, requests].map(|number| number.to_string());
        let csv = redis_tool(
            bed.resp(),
            "redis-benchmark",
            &[
                "--csv",
                "-c",
                &connections,
                "-P",
                &pipeline,
                "-n",
                &count,
                "-t",
                "set,get",
                "-d",
                "32",
                "-r",
                "10000",
            ],
        );
        let rates: Vec<f64> = csv
            .lines()
            .skip(1)
            .filter_map(|line| line.split(',').nth(1)?.trim_matches('"').parse().ok())
            .collect();
        assert!(rates.len() == 2 && rates.iter().all(|&rate| rate > 0.0), "{csv}");
        stores_min += requests;
    }
    let status = bed.assert_nothing_left();
    // What the load generator sent came to the workers.
    let stores: u64 = status.workers.iter().map(|worker| worker.requests["store"]).sum();
    assert!(stores >= stores_min && events(&status, "accepted") >= 4_200, "{:?}", status.workers);
}

fn memccapable_finds_nothing_wrong_with_the_text_protocol(transport: Transport) {
    let bed = Bed::start(transport);
    let place = bed.memcached();
    let output =
        run(place, "memccapable", "libmemcached-tools", &["-a", "-h", &place.host(), "-p", &place.port()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("All tests passed"), "{said}");
}
