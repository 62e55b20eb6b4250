//! `docs/protocols.md` against the code: every command, meta flag and error text there is stands in it, and every command
//! that stands in it is there.

use dataplane::limits::{
    ITEM_BYTES_MAX, KEY_BYTES_MAX, MEMCACHED_DATAGRAM_KEYS_MAX, REPLY_BYTES_MAX, VALUE_BYTES_MAX,
};
use dataplane::protocol::memcached::parse::error_lines::{ERROR, INVALID_FLAG};
use dataplane::protocol::memcached::parse::{GET_LINE_BYTES_MAX, LINE_BYTES_MAX, Parsed, parse};
use dataplane::protocol::resp;
use dataplane::protocol::resp::catalogue::COMMANDS;
use dataplane::protocol::resp::spec::find;

const DOCS: &str = include_str!("../../docs/protocols.md");

const MEMCACHED_SOURCES: [&str; 4] = [
    include_str!("../src/protocol/memcached/parse.rs"),
    include_str!("../src/protocol/memcached/classic.rs"),
    include_str!("../src/protocol/memcached/reply.rs"),
    include_str!("../src/protocol/memcached/statistics.rs"),
];

const RESP_SOURCES: [&str; 5] = [
    include_str!("../src/protocol/resp/errors.rs"),
    include_str!("../src/protocol/resp/stream.rs"),
    include_str!("../src/protocol/resp/commands/client.rs"),
    include_str!("../src/protocol/resp/commands/connection.rs"),
    include_str!("../src/protocol/resp/commands/expiry.rs"),
];

/// A chapter of the documentation, its heading included, up to the next of its level.
fn chapter(heading: &str) -> &'static str {
    let start = DOCS.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading:?}")) + 1;
    let level = heading.split(' ').next().expect("a heading's mark");
    let rest = &DOCS[start..];
    let end = rest[heading.len()..].find(&format!("\n{level} ")).map_or(rest.len(), |at| heading.len() + at);
    &rest[..end]
}

/// What stands in backticks in the first column of a chapter's tables.
fn first_column(chapter: &'static str) -> Vec<&'static str> {
    let rows = chapter.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row[2..].split(" | ").next().expect("a first cell"));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// Whether a command is named so: it stands in backticks, alone or before its arguments.
fn is_named(entries: &[&str], name: &str) -> bool {
    entries.iter().any(|entry| {
        entry.strip_prefix(name).is_some_and(|behind| behind.is_empty() || behind.starts_with(' '))
    })
}

#[test]
fn every_command_of_resp_is_documented_and_no_other() {
    let entries = first_column(chapter("## Commands of RESP"));
    for spec in &COMMANDS {
        let names: Vec<_> = match spec.subcommands {
            [] => vec![spec.name],
            subcommands => subcommands.iter().map(|spec| spec.name).collect(),
        };
        for name in names {
            let name = name.to_uppercase().replace('|', " ");
            assert!(is_named(&entries, &name), "{name} is not documented");
        }
    }
    for entry in entries {
        let words: Vec<_> = entry.split(' ').collect();
        let spec = find(words[0].as_bytes()).unwrap_or_else(|| panic!("{entry:?} is documented"));
        if !spec.subcommands.is_empty() && words.len() > 1 {
            assert!(spec.subcommand(words[1].as_bytes()).is_some(), "{entry:?} is documented");
        }
    }
}

/// The names that a source's `match name` tell apart.
fn matched_names(source: &'static str) -> Vec<&'static str> {
    let matches = source.split("match name {").skip(1).filter_map(|rest| rest.split("_ =>").next());
    let arms = matches.flat_map(str::lines).filter(|line| line.trim_start().starts_with("b\""));
    let patterns = arms.filter_map(|arm| arm.split("=>").next());
    patterns.flat_map(|pattern| pattern.split('"').skip(1).step_by(2)).collect()
}

/// Whether the parser knows a command of this name: nothing but an unknown name is an error whatever follows it.
fn is_known(name: &str) -> bool {
    ["", " a", " a 0", " a 0 0 0\r\n", " a 0 0 0 0\r\n"].iter().any(|rest| {
        let message = format!("{name}{rest}\r\n");
        !matches!(parse(message.as_bytes(), ITEM_BYTES_MAX), Parsed::Invalid(error) if error.line == ERROR)
    })
}

#[test]
fn every_command_of_memcached_is_documented_and_no_other() {
    let mut entries = first_column(chapter("## Classic commands"));
    entries.extend(first_column(chapter("## Meta commands")).iter().filter(|entry| entry.starts_with('m')));
    let names: Vec<_> = MEMCACHED_SOURCES[..2].iter().flat_map(|source| matched_names(source)).collect();
    assert!(names.len() >= 25, "{names:?}");
    for name in names {
        assert!(is_named(&entries, name), "{name} is not documented");
    }
    for entry in entries {
        let name = entry.split(' ').next().expect("a first word");
        assert!(is_known(name), "{entry:?} is documented");
    }
    assert!(!is_known("nonsense"));
}

#[test]
fn every_meta_flag_is_documented_and_no_other() {
    let chapter = chapter("## Meta commands");
    let table = &chapter[chapter.find("| flag |").expect("a table of flags")..];
    let documented: String = first_column(table).iter().filter_map(|entry| entry.chars().next()).collect();
    for flag in (b'!'..=b'~').map(char::from) {
        let message = format!("ms Zm9v 0 {flag}0\r\n\r\n");
        let known = !matches!(
            parse(message.as_bytes(), ITEM_BYTES_MAX), Parsed::Invalid(error) if error.line == INVALID_FLAG
        );
        assert_eq!(documented.contains(flag), known, "flag {flag}: documented, known");
    }
}

/// The string literals of a source that begin so, without the line breaks that a backslash hides, up to what a
/// format or a client fills in.
fn literals(source: &str, beginnings: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for beginning in beginnings {
        for (at, _) in source.match_indices(&format!("\"{beginning}")) {
            let literal = source[at + 1..].split('"').next().expect("a first piece");
            let mut lines = literal.split("\\\n");
            let first = lines.next().expect("a first line").to_string();
            let whole = lines.fold(first, |text, line| text + line.trim_start());
            found.push(whole.split("\\r\\n").next().expect("a first piece").to_string());
        }
    }
    found
}

#[test]
fn every_error_is_documented() {
    let docs = DOCS.replace("\\|", "|");
    let mut errors = Vec::new();
    for source in MEMCACHED_SOURCES {
        errors.extend(literals(source, &["ERROR\\r", "ERROR:", "CLIENT_ERROR ", "SERVER_ERROR "]));
    }
    for source in RESP_SOURCES {
        errors.extend(literals(source, &["ERR ", "OOM ", "NOPROTO ", "WRONGPASS ", "-ERR "]));
    }
    // Behind "Protocol error: ".
    let parser = include_str!("../src/protocol/resp/parse.rs");
    let attributes = parser.split("#[error(\"").skip(1).map(|rest| rest.split(['"', '{']).next());
    errors.extend(attributes.map(|text| text.expect("a text").to_string()));
    assert!(errors.len() > 75, "{} errors", errors.len());
    for error in errors {
        let text = error.strip_prefix('-').unwrap_or(&error);
        assert!(docs.contains(text), "{text:?} is not documented");
    }
}

#[test]
fn the_limits_are_those_of_the_code() {
    let (memcached, resp) = (chapter("## Limits of memcached"), chapter("## Limits of RESP"));
    let kib = |bytes: usize| format!("{} KiB", bytes >> 10);
    let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
    for (chapter, limit) in [
        (memcached, format!("| key | 1 to {KEY_BYTES_MAX} bytes")),
        (memcached, format!("| value | {}", mib(VALUE_BYTES_MAX))),
        (memcached, format!("| line | {LINE_BYTES_MAX} bytes")),
        (memcached, format!("`gats` | {}", kib(GET_LINE_BYTES_MAX))),
        (memcached, format!("| keys in a datagram | {MEMCACHED_DATAGRAM_KEYS_MAX} ")),
        (memcached, format!("`reply_max`, by default {}", kib(REPLY_BYTES_MAX))),
        (resp, format!("| key | 1 to {KEY_BYTES_MAX} bytes")),
        (resp, format!("| argument, and so a value | {}", mib(resp::BULK_BYTES_MAX))),
        (resp, format!("| argument that is read past | {}", mib(resp::SWALLOWED_BYTES_MAX))),
        (resp, format!("| request | {}", mib(resp::REQUEST_BYTES_MAX))),
        (resp, format!("takes: {} bytes`", resp::REQUEST_BYTES_MAX)),
        (resp, format!("| inline command | {}", kib(resp::LINE_BYTES_MAX))),
        (resp, format!("| line with a count or a length | {}", kib(resp::NUMBER_LINE_BYTES_MAX))),
    ] {
        assert!(chapter.contains(&limit), "no {limit:?}");
    }
}
