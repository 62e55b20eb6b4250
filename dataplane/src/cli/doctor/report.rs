//! How findings are told.

use std::fmt;

use serde::Serialize;

/// What a finding means for the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Good,
    /// Something to know.
    Note,
    /// It would run, but worse than it could.
    Advice,
    /// It would not run.
    Lacking,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at, such as `capabilities` or `eth1: driver`.
    pub(super) subject: String,
    /// What it means.
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) detail: String,
    /// The command that mends it, where there is one.
    pub(super) command: Option<String>,
}

impl Finding {
    pub(super) fn good(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::without_command(Verdict::Good, subject, detail)
    }

    pub(super) fn note(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::without_command(Verdict::Note, subject, detail)
    }

    /// What no command mends; the detail says what does.
    pub(super) fn without_command(
        verdict: Verdict,
        subject: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self { subject: subject.into(), verdict, detail: detail.into(), command: None }
    }

    /// With the command that mends it, if there is one on this host.
    pub(super) fn with_command(
        verdict: Verdict,
        subject: impl Into<String>,
        detail: impl Into<String>,
        command: Option<String>,
    ) -> Self {
        Self { command, ..Self::without_command(verdict, subject, detail) }
    }

    pub(super) fn advice(
        subject: impl Into<String>,
        detail: impl Into<String>,
        command: impl Into<String>,
    ) -> Self {
        Self::with_command(Verdict::Advice, subject, detail, Some(command.into()))
    }

    pub(super) fn lacking(
        subject: impl Into<String>,
        detail: impl Into<String>,
        command: impl Into<String>,
    ) -> Self {
        Self::with_command(Verdict::Lacking, subject, detail, Some(command.into()))
    }
}

/// Everything that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    /// True when nothing is lacking.
    pub(super) fit: bool,
    /// The findings, in the order they were looked at.
    pub(super) findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        Self { fit: findings.iter().all(|finding| finding.verdict != Verdict::Lacking), findings }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0);
        for finding in &self.findings {
            let verdict = match finding.verdict {
                Verdict::Good => "good",
                Verdict::Note => "note",
                Verdict::Advice => "advice",
                Verdict::Lacking => "LACKING",
            };
            writeln!(out, "{verdict:<7}  {:<width$}  {}", finding.subject, finding.detail)?;
            if let Some(command) = &finding.command {
                writeln!(out, "{:<7}  {:<width$}  -> {command}", "", "")?;
            }
        }
        let count = |verdict| self.findings.iter().filter(|finding| finding.verdict == verdict).count();
        match count(Verdict::Lacking) {
            0 => write!(out, "\nthis host can run it (advice: {})", count(Verdict::Advice)),
            lacking => write!(out, "\nthis host cannot run it (lacking: {lacking})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_lacking_makes_the_host_unfit_and_advice_does_not() {
        let advice = Finding::advice("governor", "is powersave", "cpupower frequency-set -g performance");
        let report = Report::new(vec![Finding::good("kernel", "6.18"), advice.clone()]);
        assert!(report.fit);
        let report = Report::new(vec![
            advice,
            Finding::lacking("bpffs", "is not mounted", "mount -t bpf bpf /sys/fs/bpf"),
        ]);
        assert!(!report.fit);
        let text = report.to_string();
        assert!(text.contains("LACKING  bpffs     is not mounted\n"), "{text}");
        assert!(text.contains("-> mount -t bpf bpf /sys/fs/bpf\n"), "{text}");
        let json = serde_json::to_value(&report).expect("it is JSON");
        assert_eq!((&json["fit"], &json["findings"][1]["verdict"]), (&false.into(), &"lacking".into()));
    }
}
