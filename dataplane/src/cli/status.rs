//! `dataplane status`: asks a running daemon's admin API.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use dataplane::config::{DaemonConfig, display_size};
use dataplane::control::status::{ListenerStatus, StatusReport, WorkerStatus};

/// Longest wait for each step of the exchange.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer taken, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

#[derive(Args)]
pub(super) struct Arguments {
    /// The daemon's admin API, `daemon.admin` in its configuration.
    #[arg(long, value_name = "ADDRESS", default_value_t = DaemonConfig::default().admin)]
    admin: SocketAddr,
    /// Prints the daemon's answer, one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn status(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let body = get(arguments.admin, "/status")?;
    let report: StatusReport = serde_json::from_str(&body)
        .with_context(|| format!("what answers at {} is no dataplane of this version", arguments.admin))?;
    super::print(&if arguments.json { body } else { table(&report) })?;
    Ok(ExitCode::SUCCESS)
}

/// One GET with `Connection: close`, so that the body ends with the stream.
fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| {
        format!("no daemon answers at {address}; is it running, and is this its daemon.admin?")
    })?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer))
        .with_context(|| format!("the daemon at {address} did not answer within {} s", TIMEOUT.as_secs()))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("the daemon at {address} answers {path} with: {status}");
    }
    Ok(body.to_owned())
}

fn table(report: &StatusReport) -> String {
    let mut text = String::new();
    let state = if report.ready { "serving" } else { "NOT serving" };
    let _ = writeln!(
        text,
        "dataplane {} (pid {}), {state}, up {} s",
        report.version, report.pid, report.uptime_s
    );
    listeners(&mut text, &report.listeners);
    if !report.queues.is_empty() {
        let _ = writeln!(text, "\nqueue          worker  XDP      copy       attachment  huge pages  state");
    }
    for queue in &report.queues {
        let _ = writeln!(
            text,
            "{:<13}  {:>6}  {:<7}  {:<9}  {:<10}  {:<10}  {}",
            format!("{}:{}", queue.interface, queue.queue),
            queue.worker,
            queue.xdp_mode,
            queue.copy_mode,
            queue.attachment,
            if queue.huge_pages { "yes" } else { "no" },
            queue.state
        );
    }
    for queue in &report.queues {
        if let Some(reason) = &queue.fallback {
            let _ = writeln!(
                text,
                "{}:{} fell back to {} XDP: {reason}",
                queue.interface, queue.queue, queue.xdp_mode
            );
        }
    }
    let _ = writeln!(
        text,
        "\nworker  core  node  heartbeat  busy   requests  hit ratio      items  huge pages  memory"
    );
    for worker in &report.workers {
        let _ = writeln!(
            text,
            "{:>6}  {:>4}  {:>4}  {:>6} ms  {:>3.0}%  {:>9}  {:>8.1}%  {:>9}  {:<10}  {} of {}",
            worker.worker,
            worker.core,
            worker.node.map_or("-".to_owned(), |node| node.to_string()),
            worker.heartbeat_age_ms,
            100.0 * share(worker.busy_ns, worker.idle_ns.saturating_add(worker.asleep_ns)),
            worker.requests.values().sum::<u64>(),
            100.0 * share(worker.hits, worker.misses),
            worker.items,
            if worker.table_huge_pages { "yes" } else { "no" },
            display_size(worker.used_bytes),
            display_size(worker.capacity_bytes),
        );
    }
    for worker in &report.workers {
        remarks(&mut text, worker);
    }
    for (interface, verdicts) in &report.verdicts {
        let counts: Vec<String> = verdicts
            .iter()
            .filter(|&(_, &count)| count > 0)
            .map(|(verdict, count)| format!("{verdict} {count}"))
            .collect();
        let _ = writeln!(
            text,
            "\n{interface}: {}",
            if counts.is_empty() { "no packet yet".into() } else { counts.join(", ") }
        );
    }
    text.trim_end().to_owned()
}

fn listeners(text: &mut String, listeners: &[ListenerStatus]) {
    let _ = writeln!(text, "\nlistener       address                 transport");
    for listener in listeners {
        let on = |ip: &dyn std::fmt::Display| format!("{ip}:{}/{}", listener.port, listener.protocol);
        let addresses: Vec<String> = match &listener.addresses[..] {
            [] => vec![on(&"*")],
            addresses => addresses.iter().map(|ip| on(ip)).collect(),
        };
        let _ =
            writeln!(text, "{:<13}  {:<22}  {}", listener.service, addresses.join(" "), listener.transport);
        if let Some(reason) = &listener.fallback {
            let _ = writeln!(text, "{:13}  fell back to ordinary sockets: {reason}", "");
        }
    }
}

fn remarks(text: &mut String, worker: &WorkerStatus) {
    let drops: Vec<String> = worker
        .drops
        .iter()
        .filter(|&(_, &count)| count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if !drops.is_empty() {
        let _ = writeln!(text, "worker {} dropped: {}", worker.worker, drops.join(", "));
    }
    if worker.frames_lost > 0 {
        let _ =
            writeln!(text, "worker {} has lost {} frames: this is a bug", worker.worker, worker.frames_lost);
    }
}

/// The part that the first has in both; nothing of nothing is nothing.
fn share(part: u64, rest: u64) -> f64 {
    let whole = part.saturating_add(rest);
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use dataplane::control::status::{ListenerStatus, QueueStatus};

    use super::*;

    /// Answers one request with this, and hands back what was asked.
    fn answer_with(answer: &'static str) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("someone asks");
            let mut request = [0; 1024];
            let length = stream.read(&mut request).expect("a request");
            stream.write_all(answer.as_bytes()).expect("it listens");
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (address, thread)
    }

    #[test]
    fn the_body_of_an_answer_is_returned() {
        let (address, thread) = answer_with("HTTP/1.1 200 OK\r\ncontent-type: x\r\n\r\n{}");
        assert_eq!(get(address, "/status").expect("an answer"), "{}");
        assert!(thread.join().expect("it answers").starts_with("GET /status HTTP/1.1\r\n"));
    }

    #[test]
    fn what_is_no_daemon_is_told_so() {
        let (address, _thread) = answer_with("HTTP/1.1 404 Not Found\r\n\r\n");
        assert!(get(address, "/status").expect_err("not there").to_string().contains("404 Not Found"));
        let (address, _thread) = answer_with("SSH-2.0-OpenSSH\r\n");
        assert!(get(address, "/status").expect_err("no HTTP").to_string().contains("no HTTP"));
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let error = get(free.expect("a free port"), "/status").expect_err("nobody there");
        assert!(error.to_string().contains("is it running"), "{error}");
    }

    #[test]
    fn a_report_is_shown_with_its_shares() {
        let worker = WorkerStatus {
            core: 3,
            hits: 3,
            misses: 1,
            requests: [("get".to_owned(), 4)].into(),
            drops: [("rate_limited".to_owned(), 2), ("malformed".to_owned(), 0)].into(),
            frames_lost: 1,
            busy_ns: 1,
            asleep_ns: 3,
            capacity_bytes: 1 << 30,
            ..WorkerStatus::default()
        };
        let queue = QueueStatus {
            interface: "eth1".to_owned(),
            xdp_mode: "generic".to_owned(),
            fallback: Some("no native hook".to_owned()),
            ..QueueStatus::default()
        };
        let listener = ListenerStatus {
            service: "resp".to_owned(),
            protocol: "tcp".to_owned(),
            addresses: vec!["127.0.0.1".parse().expect("an address")],
            port: 6379,
            transport: "kernel".to_owned(),
            fallback: Some("no privilege".to_owned()),
        };
        let report = StatusReport {
            listeners: vec![listener],
            queues: vec![queue],
            workers: vec![worker],
            ..StatusReport::default()
        };
        let text = table(&report);
        assert!(text.contains("fell back to ordinary sockets: no privilege\n"), "{text}");
        assert!(text.contains("127.0.0.1:6379/tcp      kernel\n"), "{text}");
        assert!(text.contains("eth1:0 fell back to generic XDP: no native hook\n"), "{text}");
        for part in ["NOT serving", "75.0%", " 25%", "dropped: rate_limited 2\n", "this is a bug", "of 1GiB"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
