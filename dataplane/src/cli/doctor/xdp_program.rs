//! Whose XDP program sits on an interface, and what is pinned for it.

use std::path::Path;
use std::time::Duration;

use dataplane::config::{Attachment, InterfaceConfig};
use dataplane::steer::SteerError;
use dataplane::steer::inspect::{Foreign, PinnedStatus, inspect};
use dataplane_ebpf::layout::{LAYOUT_VERSION, PROGRAM};

use super::report::{Finding, Verdict};

pub(super) fn examine(config: &InterfaceConfig, pin_directory: &Path) -> Finding {
    match ask(&config.name, pin_directory) {
        Ok((attached, pinned)) => judge(config, pin_directory, attached.as_ref(), pinned.as_ref()),
        Err(error) => Finding::note(subject(config), format!("cannot tell: {error}; run doctor as root")),
    }
}

fn ask(interface: &str, pin_directory: &Path) -> Result<(Option<Foreign>, Option<PinnedStatus>), SteerError> {
    let pinned = inspect(pin_directory, Duration::ZERO)?.pinned;
    Ok((Foreign::find(interface)?, pinned.into_iter().find(|pinned| pinned.interface == interface)))
}

fn subject(config: &InterfaceConfig) -> String {
    format!("{}: XDP program", config.name)
}

fn judge(
    config: &InterfaceConfig,
    pin_directory: &Path,
    attached: Option<&Foreign>,
    pinned: Option<&PinnedStatus>,
) -> Finding {
    if let Some(Foreign { program_id, program_name: None, .. }) = attached {
        let detail = format!("program {program_id} sits there; whose it is, only root is told");
        return Finding::note(subject(config), detail);
    }
    match config.attachment {
        Attachment::Owned => to_attach(config, pin_directory, attached, pinned),
        Attachment::Adopted => to_adopt(config, pin_directory, attached, pinned),
    }
}

/// For a daemon that attaches by itself, nothing must sit there.
fn to_attach(
    config: &InterfaceConfig,
    pin_directory: &Path,
    attached: Option<&Foreign>,
    pinned: Option<&PinnedStatus>,
) -> Finding {
    let subject = subject(config);
    match (attached, pinned) {
        (None, _) => Finding::good(subject, "none, so the daemon can attach its own"),
        (Some(own), Some(pinned)) if is_own(own) => Finding::lacking(
            subject,
            format!(
                "program {} is pinned at {}{}, and attachment = \"owned\" does not adopt it",
                own.program_id,
                pinned.path,
                if pinned.held { " and a daemon has it" } else { "" }
            ),
            format!(
                "dataplane steer unload --interface {} --pin-directory {}   # or set attachment = \"adopted\"",
                config.name,
                pin_directory.display()
            ),
        ),
        (Some(own), None) if is_own(own) => Finding::note(
            subject,
            format!(
                "program {} is this tool's own: a daemon serves here already, and has to end before another starts",
                own.program_id
            ),
        ),
        (Some(foreign), _) => Finding::lacking(subject, describe(foreign), detach(foreign)),
    }
}

/// For a daemon that adopts, what `load` attached and pinned must sit there.
fn to_adopt(
    config: &InterfaceConfig,
    pin_directory: &Path,
    attached: Option<&Foreign>,
    pinned: Option<&PinnedStatus>,
) -> Finding {
    const LOAD: &str = "dataplane steer load --config FILE";
    const RELOAD: &str = "dataplane steer unload --config FILE; dataplane steer load --config FILE";
    let subject = subject(config);
    match (attached, pinned) {
        (None, None) => Finding::lacking(subject, "none to adopt", LOAD),
        (Some(own), None) if is_own(own) => Finding::lacking(
            subject,
            format!(
                "program {} is this tool's own, but not pinned under {}: a daemon with attachment = \"owned\" has it",
                own.program_id,
                pin_directory.display()
            ),
            format!("{LOAD}   # once that daemon has ended"),
        ),
        (Some(foreign), None) => {
            Finding::lacking(subject, describe(foreign), format!("{}; {LOAD}", detach(foreign)))
        }
        (_, Some(pinned)) if pinned.layout_version != Some(LAYOUT_VERSION) => Finding::lacking(
            subject,
            format!("what is pinned at {} is of another version of dataplane", pinned.path),
            RELOAD,
        ),
        (None, Some(pinned)) => Finding::lacking(
            subject,
            format!(
                "what is pinned at {} is not attached any more: the interface was made anew",
                pinned.path
            ),
            RELOAD,
        ),
        (Some(own), Some(pinned)) if is_own(own) => {
            let verdict = if pinned.held { Verdict::Note } else { Verdict::Good };
            let state =
                if pinned.held { "in use by a daemon, which has to end first" } else { "to be adopted" };
            let detail = format!("program {} is pinned at {}, {state}", own.program_id, pinned.path);
            Finding::without_command(verdict, subject, detail)
        }
        (Some(foreign), Some(pinned)) => Finding::lacking(
            subject,
            format!("{}, and not what is pinned at {}", describe(foreign), pinned.path),
            format!("{}; {RELOAD}", detach(foreign)),
        ),
    }
}

/// Whether it is a steering program, by its name.
fn is_own(attached: &Foreign) -> bool {
    attached.program_name.as_deref() == Some(PROGRAM)
}

fn describe(foreign: &Foreign) -> String {
    let name = foreign.program_name.as_deref().unwrap_or_default();
    format!("program {} ({name}) of another tool sits there", foreign.program_id)
}

/// Takes another tool's program off; better is to stop that tool.
fn detach(foreign: &Foreign) -> String {
    match foreign.link_id {
        Some(link) => format!("bpftool link detach id {link}"),
        None => format!("ip link set dev {} xdp off", foreign.interface),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached(name: &str, link_id: Option<u32>) -> Foreign {
        Foreign { interface: "eth1".into(), program_id: 7, program_name: Some(name.into()), link_id }
    }

    fn pinned(layout_version: u32, held: bool) -> PinnedStatus {
        let (interface, path) = ("eth1".into(), "/pins/eth1".into());
        PinnedStatus { interface, path, layout_version: Some(layout_version), held }
    }

    #[test]
    fn each_program_is_told_by_whose_it_is() {
        use Attachment::{Adopted, Owned};
        let (own, foreign, by_netlink) =
            (attached(PROGRAM, Some(3)), attached("other", Some(3)), attached("other", None));
        let (waiting, held, older) =
            (pinned(LAYOUT_VERSION, false), pinned(LAYOUT_VERSION, true), pinned(LAYOUT_VERSION - 1, false));
        let load = "dataplane steer load --config FILE";
        for (attachment, attached, pinned, verdict, command) in [
            (Owned, None, None, Verdict::Good, ""),
            (Owned, Some(&own), None, Verdict::Note, ""),
            (Owned, Some(&own), Some(&waiting), Verdict::Lacking, "dataplane steer unload --interface eth1"),
            (Owned, Some(&foreign), None, Verdict::Lacking, "bpftool link detach id 3"),
            (Owned, Some(&by_netlink), None, Verdict::Lacking, "ip link set dev eth1 xdp off"),
            (Adopted, None, None, Verdict::Lacking, load),
            (Adopted, Some(&own), None, Verdict::Lacking, load),
            (
                Adopted,
                Some(&foreign),
                None,
                Verdict::Lacking,
                "bpftool link detach id 3; dataplane steer load",
            ),
            (Adopted, None, Some(&waiting), Verdict::Lacking, "dataplane steer unload --config FILE"),
            (Adopted, Some(&own), Some(&waiting), Verdict::Good, ""),
            (Adopted, Some(&own), Some(&held), Verdict::Note, ""),
            (Adopted, Some(&own), Some(&older), Verdict::Lacking, "dataplane steer unload --config FILE"),
            (
                Adopted,
                Some(&foreign),
                Some(&waiting),
                Verdict::Lacking,
                "bpftool link detach id 3; dataplane",
            ),
        ] {
            let config = InterfaceConfig { attachment, ..InterfaceConfig::named("eth1") };
            let finding = judge(&config, Path::new("/pins"), attached, pinned);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(
                finding.command.unwrap_or_default().starts_with(command),
                "{command}: {}",
                finding.detail
            );
        }
    }
}
