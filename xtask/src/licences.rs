//! Licences and sources of every dependency, against the lists in `deny.toml`: what cargo-deny does with them, in
//! a form that needs nothing but cargo.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Where dependencies may come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Makes `cargo` the command that names every dependency on the platforms this runs on.
pub(crate) fn metadata_command(cargo: &mut Command) -> &mut Command {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform"]).arg(platform)
}

/// Checks what `cargo metadata` says, which is to name one dependency at least.
pub(crate) fn check(metadata: &[u8], policy: &str) -> Result<()> {
    let metadata: serde_json::Value =
        serde_json::from_slice(metadata).context("cannot read what cargo metadata says")?;
    let allowed = allowed(policy)?;
    let mut problems = Vec::new();
    let mut dependencies = 0;
    for package in metadata["packages"].as_array().context("cargo metadata names no packages")? {
        // The workspace's own have no source.
        let Some(source) = package["source"].as_str() else { continue };
        dependencies += 1;
        let name = format!(
            "{} {}",
            package["name"].as_str().unwrap_or("?"),
            package["version"].as_str().unwrap_or("?")
        );
        if source != REGISTRY {
            problems.push(format!("{name} comes from {source}"));
        }
        match package["license"].as_str() {
            Some(license) if permits(license, &allowed) => {}
            Some(license) => problems.push(format!("{name} is under {license}")),
            None => problems.push(format!("{name} names no licence")),
        }
    }
    ensure!(dependencies > 0, "cargo metadata names no dependency");
    ensure!(problems.is_empty(), "not allowed by deny.toml: {}", problems.join("; "));
    Ok(())
}

/// The strings of `allow = [...]` under `[licenses]`.
fn allowed(policy: &str) -> Result<Vec<String>> {
    let (_, section) = policy.split_once("[licenses]").context("deny.toml has no [licenses]")?;
    let (_, list) = section.split_once("allow = [").context("deny.toml allows no licence")?;
    let (list, _) = list.split_once(']').context("the list of deny.toml has no end")?;
    let allowed: Vec<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    ensure!(!allowed.is_empty(), "deny.toml allows no licence");
    Ok(allowed)
}

/// True when the terms of an SPDX expression can be met with the allowed licences alone. An old form has `/` for `OR`.
fn permits(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest, allowed) && rest.is_empty()
}

/// `term OR term ...`; AND binds tighter.
fn any_of(rest: &mut &[&str], allowed: &[String]) -> bool {
    let mut permitted = all_of(rest, allowed);
    while let Some((&"OR", after)) = rest.split_first() {
        *rest = after;
        permitted |= all_of(rest, allowed);
    }
    permitted
}

fn all_of(rest: &mut &[&str], allowed: &[String]) -> bool {
    let mut permitted = term(rest, allowed);
    while let Some((&"AND", after)) = rest.split_first() {
        *rest = after;
        permitted &= term(rest, allowed);
    }
    permitted
}

/// A licence, with its exception if it has one, or an expression in brackets.
fn term(rest: &mut &[&str], allowed: &[String]) -> bool {
    let Some((&word, after)) = rest.split_first() else { return false };
    *rest = after;
    if word == "(" {
        let permitted = any_of(rest, allowed);
        let Some((&")", after)) = rest.split_first() else { return false };
        *rest = after;
        return permitted;
    }
    let mut licence = word.to_owned();
    if let [with @ "WITH", exception, after @ ..] = rest {
        licence = format!("{word} {with} {exception}");
        *rest = after;
    }
    allowed.contains(&licence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str =
        "[licenses]\n# why\nallow = [\n \"MIT\",\n \"Zlib\",\n \"Apache-2.0 WITH LLVM-exception\",\n]\n";

    #[test]
    fn expressions_are_understood() {
        let allowed = allowed(POLICY).expect("a list");
        assert_eq!(allowed.len(), 3);
        for (expression, permitted) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("MIT OR GPL-3.0-only", true),
            ("GPL-3.0-only/MIT", true),
            ("MIT AND GPL-3.0-only", false),
            ("MIT AND Zlib", true),
            ("(MIT OR GPL-3.0-only) AND Zlib", true),
            ("GPL-3.0-only OR MIT AND Zlib", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
            ("(MIT", false),
            ("MIT Zlib", false),
            ("", false),
        ] {
            assert_eq!(permits(expression, &allowed), permitted, "{expression}");
        }
    }

    #[test]
    fn licences_and_sources_that_are_not_allowed_are_named() {
        let check = |license: &str, source: &str| {
            let package = serde_json::json!({
                "name": "some", "version": "1.0.0", "license": license, "source": source
            });
            check(serde_json::json!({ "packages": [package] }).to_string().as_bytes(), POLICY)
        };
        check("MIT", REGISTRY).expect("allowed");
        let error = check("GPL-3.0-only", REGISTRY).expect_err("not allowed");
        assert!(error.to_string().contains("some 1.0.0 is under GPL-3.0-only"), "{error}");
        check("MIT", "git+https://example.org/some").expect_err("from elsewhere");
        super::check(b"{\"packages\": []}", POLICY).expect_err("nothing was checked");
    }
}
