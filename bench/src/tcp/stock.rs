//! `redis-benchmark`: what users see. It talks over the kernel's sockets from the generator's core, which is as a rule
//! what saturates then; the row says so.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dataplane::testbed::{ChildGuard, cpu, signals};

use super::plan::Case;
use super::rig::{Bed, Losses, Times};
use super::row::Figures;
use super::systems::{RESP_PORT, Running};
use crate::host::clocks::Clocks;

pub(super) const PROGRAM: &str = "redis-benchmark";
/// Requests for each second of a slot, by pipeline: about what it can do.
const REQUESTS_PER_S: f64 = 100_000.0;
const REQUESTS_PER_S_PIPELINED: f64 = 500_000.0;
/// Keys that it draws from, which is why some of its gets find nothing.
const KEYS: &str = "100000";
/// How long it may take to be gone once it has ended.
const END_LIMIT: Duration = Duration::from_secs(2);
/// How many times longer than asked for it may take.
const PATIENCE: u32 = 60;

/// True when it is on `PATH`.
pub(super) fn is_there() -> bool {
    std::process::Command::new(PROGRAM).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// One run of it.
pub(super) fn measure(
    bed: &Bed,
    running: &mut Running,
    case: &Case,
    length: Duration,
) -> Result<(Figures, Times, Losses)> {
    let Case { operation, value_bytes, connections, pipeline, .. } = *case;
    let rate = if pipeline > 1 { REQUESTS_PER_S_PIPELINED } else { REQUESTS_PER_S };
    let requests = (rate * length.as_secs_f64()).ceil() as u64;
    let mut command = bed.pair.left.command(PROGRAM);
    command.args(["-h", &bed.pair.right_end.v4.to_string(), "-p", &RESP_PORT.to_string(), "--csv"]);
    command.args(["-t", operation.name(), "-r", KEYS, "-n", &requests.to_string()]);
    command.args([
        "-d",
        &value_bytes.to_string(),
        "-c",
        &connections.to_string(),
        "-P",
        &pipeline.to_string(),
    ]);
    let watched = bed.watched(running)?;
    let before = bed.losses(running)?;
    let first = Clocks::read(&watched)?;
    let mut child = ChildGuard::spawn(PROGRAM, &mut command)?;
    cpu::pin_thread(child.pid(), bed.generator_core)?;
    let start = Instant::now();
    while child.ended()?.is_none() {
        if signals::caught() {
            bail!("interrupted; everything is cleaned up");
        }
        ensure!(
            start.elapsed() < length * PATIENCE,
            "{PROGRAM} takes too long; it said:\n{}",
            child.output()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let last = Clocks::read(&watched)?;
    let status = child.wait_for_end(END_LIMIT)?;
    let said = child.output();
    ensure!(status.success(), "{PROGRAM} failed ({status}):\n{said}");
    let mut figures = figures(&said).with_context(|| format!("{PROGRAM} said:\n{said}"))?;
    figures.replies = requests;
    let losses = bed.losses(running)?.since(&before, 0);
    Ok((figures, Times::between(&first, &last), losses))
}

/// Reads its CSV by the names of the columns.
fn figures(said: &str) -> Result<Figures> {
    let mut lines = said.lines().skip_while(|line| !line.starts_with("\"test\""));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { bail!("there is no table") };
    let unquoted = |line: &str| -> Vec<String> {
        line.split("\",\"").map(|field| field.trim_matches('"').to_owned()).collect()
    };
    let (names, values) = (unquoted(names), unquoted(values));
    let column = |name: &str| -> Result<f64> {
        let at = names.iter().position(|known| known == name).with_context(|| format!("no column {name}"))?;
        let value = values.get(at).with_context(|| format!("no value of {name}"))?;
        value.parse().with_context(|| format!("{name} is {value:?}"))
    };
    Ok(Figures {
        rate: column("rps")?,
        p50_us: column("p50_latency_ms")? * 1e3,
        p99_us: column("p99_latency_ms")? * 1e3,
        p999_us: None,
        ..Figures::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_table_is_read_by_names() {
        let said = "WARNING: something\n\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
                    \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                    \"GET\",\"125000.00\",\"0.2\",\"0.1\",\"0.215\",\"0.3\",\"0.415\",\"1.0\"\n";
        let read = figures(said).expect("a table");
        assert!((read.rate - 125_000.0).abs() < 1e-6 && (read.p50_us - 215.0).abs() < 1e-6);
        assert!((read.p99_us - 415.0).abs() < 1e-6 && read.p999_us.is_none());
        figures("Could not connect").expect_err("no table");
        figures("\"test\",\"rps\"\n\"GET\",\"x\"\n").expect_err("no number");
    }
}
