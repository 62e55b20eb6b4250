//! Steps with a name, a time and a verdict, run one after the other.

use std::io::{IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Lines shown of a failed step's output.
const OUTPUT_LINES_MAX: usize = 400;

/// Runs steps and counts what passed.
pub(crate) struct Steps {
    total: usize,
    done: usize,
    passed: u64,
    start: Instant,
}

impl Steps {
    /// For `total` steps.
    pub(crate) fn new(total: usize) -> Self {
        Self { total, done: 0, passed: 0, start: Instant::now() }
    }

    /// Runs one step. Its output is shown when it fails, and then nothing more runs.
    pub(crate) fn run(&mut self, name: &str, work: impl FnOnce(&mut Step<'_>) -> Result<()>) -> Result<()> {
        self.done += 1;
        let title = format!("[{}/{}] {name}", self.done, self.total);
        let start = Instant::now();
        let mut step = Step { title: &title, start, tests: 0, terminal: std::io::stderr().is_terminal() };
        if !step.terminal {
            eprintln!("{title} ...");
        }
        let result = work(&mut step);
        let tests = step.tests;
        // A step without tests of its own is a check by itself.
        self.passed += if result.is_ok() { tests.max(1) } else { tests };
        let seconds = start.elapsed().as_secs_f64();
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        let counted = if tests > 0 { format!(", {tests} tests") } else { String::new() };
        let clear = if step.terminal { "\r\x1b[2K" } else { "" };
        eprintln!("{clear}{title}: {verdict} ({seconds:.1} s{counted})");
        result.with_context(|| {
            let left = self.total - self.done;
            format!("{} passed, 1 failed, {left} not run: {name}", self.passed)
        })
    }

    /// The closing lines.
    pub(crate) fn finish(&self) {
        let seconds = self.start.elapsed().as_secs_f64();
        let plural = if self.done == 1 { "" } else { "s" };
        println!("{} step{plural} in {seconds:.0} s", self.done);
        // Alone on its line: that is what machines look for.
        println!("{} passed, 0 failed", self.passed);
    }
}

/// What a command printed.
pub(crate) struct Output {
    /// On standard output.
    pub stdout: String,
    /// On both streams, as it came.
    pub all: String,
}

/// One step under way.
pub(crate) struct Step<'a> {
    title: &'a str,
    start: Instant,
    tests: u64,
    terminal: bool,
}

impl Step<'_> {
    /// Runs a command to its end; its output is collected, and shown if it fails. Tests it reports are counted.
    pub(crate) fn command(&mut self, command: &mut Command) -> Result<Output> {
        let shown = display(command);
        let (output, success, status) = self.collect(command)?;
        if !success {
            eprintln!();
            let lines: Vec<&str> = output.all.lines().collect();
            let skipped = lines.len().saturating_sub(OUTPUT_LINES_MAX);
            if skipped > 0 {
                eprintln!("... {skipped} lines ...");
            }
            for line in &lines[skipped..] {
                eprintln!("{line}");
            }
            bail!("`{shown}` failed ({status})");
        }
        self.tests += passed_tests(&output.all).unwrap_or(0);
        Ok(output)
    }

    /// Tests counted so far.
    pub(crate) fn tests(&self) -> u64 {
        self.tests
    }

    fn collect(&self, command: &mut Command) -> Result<(Output, bool, String)> {
        let shown = display(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // What is read and shown again has neither colours nor bars in it.
        command
            .env("NO_COLOR", "1")
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_TERM_PROGRESS_WHEN", "never");
        let mut child = command.spawn().with_context(|| format!("cannot run `{shown}`"))?;
        let (sender, receiver) = mpsc::channel::<(bool, Vec<u8>)>();
        let streams: [(bool, Box<dyn Read + Send>); 2] = [
            (true, Box::new(child.stdout.take().context("no standard output")?)),
            (false, Box::new(child.stderr.take().context("no standard error")?)),
        ];
        for (is_stdout, mut stream) in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if sender.send((is_stdout, buffer[..length].to_vec())).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let (mut stdout, mut all) = (Vec::new(), Vec::new());
        loop {
            match receiver.recv_timeout(Duration::from_millis(500)) {
                Ok((is_stdout, piece)) => {
                    if is_stdout {
                        stdout.extend_from_slice(&piece);
                    }
                    all.extend_from_slice(&piece);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.tick();
        }
        let status = child.wait().with_context(|| format!("cannot wait for `{shown}`"))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((Output { stdout: text(stdout), all: text(all) }, status.success(), status.to_string()))
    }

    fn tick(&self) {
        if self.terminal {
            eprint!("\r\x1b[2K{} ... {:.0} s", self.title, self.start.elapsed().as_secs_f64());
            // A progress line that cannot be shown is no reason to stop.
            let _ = std::io::stderr().flush();
        }
    }
}

fn display(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(name).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Tests that nextest (`Summary [..] 12 tests run: 12 passed`) or libtest (`test result: ok. 12 passed`) say
/// passed; `None` when the output is neither's.
fn passed_tests(output: &str) -> Option<u64> {
    let mut sum = None;
    for line in output.lines() {
        let line = line.trim_start();
        let counted = if let Some(rest) = line.strip_prefix("test result: ok. ") {
            rest.split(' ').next()
        } else if line.starts_with("Summary [") {
            // "12 tests run:", "1 test run:".
            line.split(" run: ").nth(1).and_then(|rest| rest.split(' ').next())
        } else {
            None
        };
        if let Some(count) = counted.and_then(|count| count.parse::<u64>().ok()) {
            sum = Some(sum.unwrap_or(0) + count);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_tests_are_read_from_both_runners() {
        let libtest =
            "running 3 tests\ntest result: ok. 3 passed; 0 failed\n\ntest result: ok. 4 passed; 0 failed";
        assert_eq!(passed_tests(libtest), Some(7));
        let nextest = "------------\n     Summary [   1.2s] 12 tests run: 12 passed, 0 skipped\n";
        assert_eq!(passed_tests(nextest), Some(12));
        assert_eq!(passed_tests("     Summary [   0.2s] 1 test run: 1 passed, 9 skipped\n"), Some(1));
        assert_eq!(passed_tests("Finished `dev` profile"), None);
    }

    #[test]
    fn streams_are_told_apart_and_have_no_colours() {
        let mut steps = Steps::new(1);
        let script = "echo told; echo noise >&2; echo $NO_COLOR";
        steps
            .run("streams", |step| {
                let output = step.command(Command::new("sh").args(["-c", script]))?;
                assert_eq!(output.stdout, "told\n1\n");
                assert!(output.all.contains("noise"), "{}", output.all);
                Ok(())
            })
            .expect("it runs");
    }

    #[test]
    fn a_failed_command_names_itself_and_stops_the_run() {
        let mut steps = Steps::new(3);
        steps.run("first", |step| step.command(&mut Command::new("true")).map(|_| ())).expect("true is true");
        let error = steps
            .run("second", |step| step.command(Command::new("sh").args(["-c", "exit 3"])).map(|_| ()))
            .expect_err("it fails");
        let text = format!("{error:#}");
        assert!(text.contains("1 passed, 1 failed, 1 not run") && text.contains("sh -c exit 3"), "{text}");
    }
}
