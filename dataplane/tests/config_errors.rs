//! A configuration is refused with every error at once, each with its line, its key path and the way out.

use dataplane::config::{self, Config, Idle, InterfaceConfig, ListenerConfig, TcpConfig};
use dataplane::daemon::Daemon;
use dataplane::net::allow::AllowList;
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../dataplane.example.toml");

/// The least that is a configuration.
const LEAST: &str =
    "interface = [{ name = \"eth1\" }]\nlistener = [{ service = \"memcached\", port = 11211 }]\n";

fn errors_of(text: &str) -> Vec<String> {
    match config::parse(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.errors.iter().map(ToString::to_string).collect(),
    }
}

/// The one error of a text that has one.
fn error_of(text: &str) -> String {
    let errors = errors_of(text);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors.into_iter().next().expect("there is one")
}

#[test]
fn the_example_is_exactly_the_defaults() {
    let example = config::parse(EXAMPLE).expect("the example is a configuration");
    let defaults = Config {
        daemon: Default::default(),
        interfaces: vec![InterfaceConfig::named("eth1")],
        workers: Default::default(),
        table: Default::default(),
        tcp: TcpConfig::default(),
        listeners: vec![ListenerConfig::new("memcached", 11211)],
    };
    assert_eq!(example, defaults);
    assert_eq!(config::parse(LEAST).expect("so is the least"), defaults);
}

#[test]
fn what_the_example_shows_as_a_comment_is_valid_too() {
    let is_commented_out = |line: &&str| line.starts_with("# ") && line.contains(" = ");
    let shown = EXAMPLE.lines().filter(is_commented_out).count();
    assert!(shown >= 6, "the example comments its optional keys");
    let uncommented: Vec<&str> =
        EXAMPLE.lines().map(|line| if is_commented_out(&line) { &line[2..] } else { line }).collect();
    let config = config::parse(&uncommented.join("\n")).expect("every commented key is right");
    assert_eq!(config.listeners[0].allow, config::private_sources(), "the shown default is the default");
    assert!(config.listeners[0].rate_limit.is_some());
    assert_eq!(config.interfaces[0].queues.as_deref(), Some(&[0, 1][..]));
}

#[test]
fn every_error_is_reported_at_once_with_line_and_key() {
    let text = r#"
[daemon]
admin = "0.0.0.0:9190"
steer_log = "warning"
lgo = "info"

[[interface]]
name = "eth1"
ring_entries = 1000
frames = "many"

[[interface]]
name = "eth1"
queues = []

[workers]
cores = [1, 1]
spin_us = -5

[table]
capacity = "1GB"

[[listener]]
service = "memcached"
port = 70000

[[listener]]
service = "memcached"
port = 11211
allow = ["10.0.0/8", "192.168.0.0/16"]
adress = ["192.0.2.1"]
"#;
    let errors = config::parse(text).expect_err("it is full of errors").errors;
    let found: Vec<(usize, &str)> =
        errors.iter().map(|error| (error.line.expect("each has a line"), error.key.as_str())).collect();
    let expected = [
        (3, "daemon.admin"),
        (4, "daemon.steer_log"),
        (5, "daemon.lgo"),
        (9, "interface[0].ring_entries"),
        (10, "interface[0].frames"),
        (13, "interface[1].name"),
        (14, "interface[1].queues"),
        (17, "workers.cores[1]"),
        (18, "workers.spin_us"),
        (21, "table.capacity"),
        (25, "listener[0].port"),
        (30, "listener[1].allow[0]"),
        (31, "listener[1].adress"),
    ];
    assert_eq!(found, expected, "{errors:#?}");
    let allow = errors.iter().find(|error| error.key == "listener[1].allow[0]").expect("it is there");
    assert_eq!(
        allow.to_string(),
        "listener[1].allow[0]: \"10.0.0/8\" is not a network; write it like 10.0.0.0/8 (line 30)"
    );
}

#[test]
fn an_unknown_key_is_told_its_neighbour() {
    let text = "interface = [{ name = \"eth1\", ring_entrys = 64 }]\n\
                listener = [{ service = \"memcached\", port = 11211 }]\n";
    assert!(error_of(text).contains("did you mean ring_entries?"));
    assert!(error_of(&format!("{LEAST}[workers]\nthreads = 4\n")).contains("the keys here are cores"));
    assert!(error_of(&format!("{LEAST}[worker]\ncores = [1]\n")).contains("did you mean workers?"));
}

#[test]
fn a_listener_open_to_the_world_is_refused_with_the_reason() {
    for open in [
        r#"["0.0.0.0/0"]"#,
        r#"["::/0"]"#,
        r#"["0.0.0.0/1", "128.0.0.0/1"]"#,
        r#"["10.0.0.0/8", "::/1", "8000::/1"]"#,
        r#"["0.0.0.0/2", "128.0.0.0/3", "192.0.0.0/4"]"#,
        r#"["2000::/5", "2800::/6", "2c00::/7"]"#,
        r#"["64:ff9b::/96"]"#,
    ] {
        let text = LEAST.replace("port = 11211", &format!("port = 11211, allow = {open}"));
        let error = error_of(&text);
        assert!(error.starts_with("listener[0].allow: ") && error.contains("amplify"), "{error}");
    }
    let nobody = LEAST.replace("port = 11211", "port = 11211, allow = []");
    assert!(error_of(&nobody).contains("is empty"));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    for (text, key, part) in [
        (
            "interface = [{ name = \"a\", frames = 2048 }]\nlistener = [{ service = \"s\", port = 1 }]",
            "interface[0].frames",
            "at least 4096",
        ),
        (
            "interface = [{ name = \"a\" }]\nlistener = [{ service = \"s\", port = 1, reply_max = \"1MiB\" }]",
            "listener[0].reply_max",
            "from 1400B to 64KiB",
        ),
        (
            "interface = [{ name = \"a\" }]\n\
             listener = [{ service = \"s\", port = 1 }, { service = \"t\", port = 1, addresses = [\"192.0.2.1\"] }]",
            "listener[1].port",
            "listener[0] is on port 1 already",
        ),
        (
            "interface = [{ name = \"a\" }]\n\
             listener = [{ service = \"s\", port = 1, addresses = [\"2001:db8::1\"], allow = [\"10.0.0.0/8\"] }]",
            "listener[0].addresses[0]",
            "no network in allow is IPv6",
        ),
        (
            "interface = [{ name = \"a\" }]\nlistener = [{ service = \"s\", port = 1 }]\n\
             table = { capacity = \"4MiB\" }",
            "table.capacity",
            "at least 8194KiB",
        ),
        (
            "interface = [{ name = \"a\" }]\nlistener = [{ service = \"s\", port = 1 }]\n\
             workers = { cores = [1, 2] }\ndaemon = { housekeeping_cores = [0, 2] }",
            "workers.cores",
            "core 2",
        ),
        (
            "interface = [{ name = \"a\" }]\nlistener = [{ service = \"s\", port = 1 }]\n\
             table = { item_max = \"1KiB\", item_expected = \"2KiB\" }",
            "table.item_expected",
            "more than item_max = 1KiB",
        ),
        (
            "interface = [{ name = \"a\", mode = \"generic\", copy = \"zero-copy\" }]\n\
             listener = [{ service = \"s\", port = 1 }]",
            "interface[0].copy",
            "leave one of the two out",
        ),
    ] {
        let error = error_of(text);
        assert!(error.starts_with(&format!("{key}: ")) && error.contains(part), "{error}");
        assert!(error.contains("(line "), "{error}");
    }
}

#[test]
fn more_than_the_xdp_program_has_room_for_is_refused() {
    let list = |count: usize, item: &dyn Fn(usize) -> String| {
        (0..count).map(|number| format!("\"{}\"", item(number))).collect::<Vec<_>>().join(", ")
    };
    let address = |number: usize| format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
    let networks = list(16 * 1024 + 1, &|number| format!("{}/32", address(number)));
    let error = error_of(&LEAST.replace("port = 11211", &format!("port = 11211, allow = [{networks}]")));
    assert!(error.starts_with("listener: ") && error.contains("16385 networks"), "{error}");
    let addresses = list(1025, &|number| address(number + 1));
    let error = error_of(&LEAST.replace("port = 11211", &format!("port = 11211, addresses = [{addresses}]")));
    assert!(error.starts_with("listener: ") && error.contains("1025 addresses"), "{error}");
}

#[test]
fn every_unknown_service_is_told_at_once() {
    let text = "interface = [{ name = \"a\" }]\n\
        listener = [{ service = \"memcachd\", port = 1 },\n{ service = \"memcached\", port = 2 },\n\
        { service = \"web\", port = 3 }]";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("dataplane.toml");
    std::fs::write(&path, text).expect("a file");
    let errors = config::load_for(&path, &["echo", "memcached"]).expect_err("two are unknown").errors;
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "listener[0].service: this daemon has no service \"memcachd\"; did you mean \"memcached\"? (line 2)",
            "listener[2].service: this daemon has no service \"web\"; it has echo, memcached (line 4)",
        ]
    );
    assert!(config::load(&path).is_ok(), "whoever does not say which there are, takes any");
}

#[test]
fn a_configuration_made_in_code_is_checked_before_anything_is_touched() {
    let mut config = config::parse(LEAST).expect("is valid");
    config.interfaces[0].name = "no-such-nic".to_owned();
    config.listeners[0].allow = vec!["0.0.0.0/0".parse().expect("a network")];
    config.listeners.push(ListenerConfig { allow: Vec::new(), ..ListenerConfig::new("web", 80) });
    let error = Daemon::new().run(config).expect_err("it is open to the world").to_string();
    let expected =
        ["listener[0].allow: 0.0.0.0/0 is wider", "listener[1].allow: is empty", "no service \"web\""];
    assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    assert!(!error.contains("no-such-nic"), "the host has not been looked at: {error}");
}

#[test]
fn a_log_filter_that_would_silence_the_log_is_refused() {
    let log = |filter: &str| format!("{LEAST}[daemon]\nlog = \"{filter}\"\n");
    for (filter, part) in [("warning", "did you mean warn?"), ("é=info", "ASCII"), ("inof", "the levels are")]
    {
        let error = error_of(&log(filter));
        assert!(error.starts_with("daemon.log: ") && error.contains(part), "{error}");
    }
    let config = config::parse(&log("info, dataplane::steer = debug")).expect("is valid");
    assert_eq!(config.daemon.log, "info,dataplane::steer=debug");
}

#[test]
fn listeners_on_one_port_and_different_addresses_are_two() {
    let text = "interface = [{ name = \"a\" }]\n\
        listener = [{ service = \"s\", port = 1, addresses = [\"192.0.2.1\"] },\n\
                    { service = \"s\", port = 1, addresses = [\"192.0.2.2\", \"2001:db8::1\"] }]";
    assert_eq!(errors_of(text), Vec::<String>::new());
}

#[test]
fn an_empty_file_is_told_what_it_needs() {
    let errors = errors_of("");
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert!(errors[0].contains("[[listener]]") && errors[1].contains("[[interface]]"), "{errors:#?}");
    let errors = errors_of("interface = []\nlistener = []\n");
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert!(errors[0].contains("there is none; add a block [[interface]]"), "{errors:#?}");
    assert!(errors[1].contains("is empty; add a block [[listener]]"), "{errors:#?}");
}

#[test]
fn only_what_passes_the_kernel_by_needs_a_nic() {
    let listener = |transport: &str| {
        format!("listener = [{{ service = \"memcached\", port = 11211, transport = \"{transport}\" }}]\n")
    };
    assert_eq!(errors_of(&listener("kernel")), Vec::<String>::new());
    assert_eq!(errors_of(&listener("auto")), Vec::<String>::new());
    assert!(error_of(&listener("bypass")).contains("transport = \"kernel\""));
    assert!(error_of(&listener("dpdk")).contains("bypass, kernel, auto"), "{}", error_of(&listener("dpdk")));
}

#[test]
fn broken_toml_is_told_where_and_what_else_is_wrong() {
    let errors = errors_of("[daemon]\nlog = \nadmin = \"8.8.8.8:1\"\n[[interface]\nname = \"eth1\"\n");
    assert!(
        errors.iter().any(|error| error.contains("not TOML") && error.contains("(line 2)")),
        "{errors:#?}"
    );
    assert!(errors.iter().any(|error| error.contains("public address")), "{errors:#?}");
    assert!(!errors.iter().any(|error| error.contains("is missing")), "{errors:#?}");
}

#[test]
fn one_table_where_blocks_belong_is_told_so() {
    let error = error_of("listener = [{ service = \"s\", port = 1 }]\n[interface]\nname = \"eth1\"\n");
    assert!(error.contains("[[interface]]"), "{error}");
}

#[test]
fn a_file_is_named_in_its_errors() {
    let missing = config::load("/nowhere/at/all.toml").expect_err("it is not there").to_string();
    assert_eq!(missing, "/nowhere/at/all.toml: there is no such file; start from dataplane.example.toml");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("dataplane.toml");
    std::fs::write(&path, [0xff, 0xfe]).expect("a file");
    assert!(config::load(&path).expect_err("it is no text").to_string().contains("UTF-8"));
    std::fs::write(&path, LEAST).expect("a file");
    assert!(config::load(&path).is_ok());
}

#[test]
fn busy_workers_ignore_how_long_to_spin() {
    let config =
        config::parse(&format!("{LEAST}[workers]\nidle = \"busy\"\nspin_us = 9\n")).expect("is valid");
    assert_eq!(config.workers.idle, Idle::Busy);
}

/// Values of every type, near and far from what the keys want.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        (0i64..70_000).prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("TOML has its own words", |float| float.is_finite())
            .prop_map(|float| format!("{float:?}")),
        any::<bool>().prop_map(|truth| truth.to_string()),
        "[a-zA-Z0-9 ./:-]{0,20}".prop_map(|text| format!("{text:?}")),
        Just("\"64KiB\"".to_owned()),
        Just("\"10.0.0.0/8\"".to_owned()),
        Just("1979-05-27".to_owned()),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            inner.prop_map(|value| format!("{{ burst = {value} }}")),
        ]
    })
}

const KEYS: [&str; 25] = [
    "admin",
    "housekeeping_cores",
    "pin_directory",
    "log",
    "steer_log",
    "name",
    "queues",
    "attachment",
    "mode",
    "copy",
    "frames",
    "ring_entries",
    "huge_pages",
    "checksum",
    "busy_poll",
    "cores",
    "idle",
    "spin_us",
    "capacity",
    "item_max",
    "item_expected",
    "service",
    "port",
    "allow",
    "rate_limit",
];

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        let _ = config::parse(&text);
    }

    #[test]
    fn no_mutilated_example_panics(cut in 0usize..EXAMPLE.len(), length in 0usize..40, insert in "[\\[\\]{}=\"', a-z0-9\n]{0,6}") {
        if EXAMPLE.is_char_boundary(cut) && EXAMPLE.is_char_boundary((cut + length).min(EXAMPLE.len())) {
            let rest = &EXAMPLE[(cut + length).min(EXAMPLE.len())..];
            let _ = config::parse(&format!("{}{insert}{rest}", &EXAMPLE[..cut]));
        }
    }

    #[test]
    fn no_value_panics_and_what_passes_is_safe(line in 0usize..60, value in value()) {
        let keys = EXAMPLE.lines().enumerate().filter(|(_, line)| line.contains(" = "));
        let (chosen, _) = keys.clone().nth(line % keys.count()).expect("the example has keys");
        let lines = EXAMPLE.lines().enumerate().map(|(index, line)| {
            let key = line.trim_start_matches("# ").split_once(" = ").map(|(key, _)| key);
            match key { Some(key) if index == chosen => format!("{key} = {value}"), _ => line.to_owned() }
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        if let Ok(config) = config::parse(&text) {
            prop_assert!(config.listeners.iter().all(|listener| listener.port > 0 && !listener.allow.is_empty()));
            let open = "8.8.8.8".parse().expect("an address");
            prop_assert!(config.listeners.iter().all(|listener| !AllowList::new(&listener.allow).contains(open)));
            prop_assert!(config.interfaces.iter().all(|interface| interface.ring_entries.is_power_of_two()));
        }
    }

    #[test]
    fn no_keys_in_wrong_places_panic(
        blocks in prop::collection::vec(
            (prop::sample::select(vec!["[daemon]", "[[interface]]", "[workers]", "[table]", "[[listener]]"]),
             prop::collection::vec((prop::sample::select(KEYS.to_vec()), value()), 0..6)), 0..5)
    ) {
        let mut text = String::new();
        for (header, keys) in blocks {
            text.push_str(header);
            for (key, value) in keys {
                text.push_str(&format!("\n{key} = {value}"));
            }
            text.push('\n');
        }
        let _ = config::parse(&text);
    }
}
