//! `bench demo`: two network namespaces joined by a veth pair, the daemon on one side, ordinary kernel UDP
//! sockets on the other. Stores and reads back real items, looks at every reply, and shows that the server
//! namespace's own UDP stack saw none of it.

mod load;
mod mmsg;
mod report;

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dataplane::control::status::StatusReport;
use dataplane::testbed::{Daemon, UdpCounters, VethEnd, VethPair, cpu, daemon, requirements, signals};

use crate::client::Client;
use crate::functional;
use crate::workload::Operation;
use load::{Load, Tally};
pub use report::Report;

/// Sockets the load uses.
const SOCKETS: usize = 4;
/// memcached's own port.
const PORT: u16 = 11_211;
/// How long one functional request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(1);
/// How long frames may take to come to rest after the load.
const REST_LIMIT: Duration = Duration::from_secs(2);

/// What the demo is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seconds of load.
    pub seconds: f64,
    /// One JSON object on the last line of standard output, and nothing else there.
    pub json: bool,
}

/// Runs the demo and prints its result.
///
/// # Errors
/// What is missing on this host, what failed, or that a reply was wrong or missing.
pub fn run(options: &Options) -> Result<()> {
    requirements::check()?;
    let binary = daemon::find_binary()?;
    let report = measure(&binary, options)?;
    if options.json {
        println!("{}", serde_json::to_string(&report).context("write the report")?);
    } else {
        println!("{report}");
    }
    let problems = report.problems();
    if !problems.is_empty() {
        bail!("the demo failed: {}", problems.join("; "));
    }
    Ok(())
}

/// Everything between making the namespaces and taking them away.
fn measure(binary: &Path, options: &Options) -> Result<Report> {
    let cores = cpu::usable_cores();
    let (client_core, worker_core) = match cores.as_slice() {
        [] => bail!("this process may use no core at all"),
        [only] => (*only, *only),
        [first, second, ..] => (*first, *second),
    };
    step("two namespaces joined by a veth pair");
    let pair = VethPair::simple()?;
    let before = UdpCounters::read(&pair.right)?;
    step(&format!("the daemon in {}, its worker on core {worker_core}", pair.right.name()));
    let config = daemon_config(&pair.right_end, &pair.left_end, worker_core);
    let mut daemon = Daemon::start(&pair.right, binary, &config)?;
    cpu::pin_this_thread(client_core)?;

    for (local, server) in pair.left_end.addresses().into_iter().zip(pair.right_end.addresses()) {
        let mut client = Client::new(connect(&pair, local, server)?, REQUEST_LIMIT);
        let checks = functional::check(&mut client)
            .with_context(|| format!("the functional check over {server} failed"))?;
        step(&format!("{checks} functional checks over {server}: passed"));
    }

    let [local, _] = pair.left_end.addresses();
    let [server, _] = pair.right_end.addresses();
    let sockets = (0..SOCKETS).map(|_| connect(&pair, local, server)).collect::<Result<Vec<_>>>()?;
    let outstanding = SOCKETS * load::OUTSTANDING_PER_SOCKET;
    step(&format!("load: {SOCKETS} sockets, {outstanding} requests under way, client on core {client_core}"));
    let mut load = Load::new(sockets);
    let mut live = LiveLine::new();
    let set_length = Duration::from_secs_f64(options.seconds / 3.0);
    let sets = load.run(Operation::Set, set_length, &mut |tally| live.show("set", tally))?;
    let get_length = Duration::from_secs_f64(options.seconds).saturating_sub(sets.elapsed);
    let gets = load.run(Operation::Get, get_length, &mut |tally| live.show("get", tally))?;
    live.end();
    if signals::caught() {
        bail!("interrupted; everything is cleaned up");
    }

    let status = at_rest(&mut daemon, &pair)?;
    let counted = UdpCounters::read(&pair.right)?.since(&before);
    daemon.stop().context("the daemon did not end in order after SIGTERM")?;
    Ok(Report::new(&sets, &gets, &status, &counted))
}

/// What the daemon is told: the other end's addresses, and no one else's.
fn daemon_config(server: &VethEnd, client: &VethEnd, core: usize) -> String {
    format!(
        r#"
[daemon]
admin = "{admin}"
[[interface]]
name = "{interface}"
[workers]
cores = [{core}]
[table]
capacity = "256MiB"
[[listener]]
service = "memcached"
port = {PORT}
allow = ["{v4}/32", "{v6}/128"]
"#,
        admin = daemon::ADMIN,
        interface = server.interface,
        v4 = client.v4,
        v6 = client.v6,
    )
}

fn connect(pair: &VethPair, local: IpAddr, server: IpAddr) -> Result<UdpSocket> {
    pair.left
        .run(|| {
            let socket = UdpSocket::bind(SocketAddr::new(local, 0))?;
            socket.connect(SocketAddr::new(server, PORT))?;
            Ok(socket)
        })?
        .map_err(|error: std::io::Error| anyhow::anyhow!("cannot make a socket to {server}: {error}"))
}

/// The daemon's status once no frame is under way.
fn at_rest(daemon: &mut Daemon, pair: &VethPair) -> Result<StatusReport> {
    let start = Instant::now();
    loop {
        let status = daemon.status(&pair.right)?;
        if report::frames_lost(&status) == 0 || start.elapsed() > REST_LIMIT {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn step(what: &str) {
    eprintln!("  {what}");
}

/// One line that is overwritten, where there is a terminal to overwrite it on.
struct LiveLine {
    terminal: bool,
    shown: Option<Instant>,
}

impl LiveLine {
    /// Seconds between lines where each stays.
    const PLAIN_INTERVAL: Duration = Duration::from_secs(1);

    fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), shown: None }
    }

    fn show(&mut self, operation: &str, tally: &Tally) {
        if !self.terminal && self.shown.is_some_and(|shown| shown.elapsed() < Self::PLAIN_INTERVAL) {
            return;
        }
        self.shown = Some(Instant::now());
        let line = format!(
            "  {operation} {seconds:5.1} s  {replies:>9} replies  {rate:>8.0}/s  p50 {p50:.0} us  p99 {p99:.0} us  \
             wrong {wrong}  missing {missing}",
            seconds = tally.elapsed.as_secs_f64(),
            replies = tally.replies,
            rate = tally.replies as f64 / tally.elapsed.as_secs_f64(),
            p50 = tally.latencies.quantile_us(0.5),
            p99 = tally.latencies.quantile_us(0.99),
            wrong = tally.wrong,
            missing = tally.missing,
        );
        if self.terminal {
            eprint!("\r\x1b[2K{line}");
            // A live line that cannot be shown is no reason to stop.
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    fn end(&self) {
        if self.terminal && self.shown.is_some() {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one_that_the_daemon_takes() {
        let (server, client) = (VethEnd::right(), VethEnd::left());
        let config = dataplane::config::parse(&daemon_config(&server, &client, 1)).expect("valid");
        assert_eq!(config.interfaces[0].name, server.interface);
        assert_eq!(config.workers.cores, Some(vec![1]));
        assert_eq!(config.daemon.admin.to_string(), daemon::ADMIN);
        assert!(config.listeners[0].allow.iter().any(|net| net.contains(&std::net::IpAddr::V6(client.v6))));
        assert!(!config.listeners[0].allow.iter().any(|net| net.contains(&std::net::IpAddr::V4(server.v4))));
    }
}
