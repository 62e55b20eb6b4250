//! `COMMAND`: what the server says of its commands, and what `HELP` says of subcommands.

use super::super::Arguments;
use super::super::catalogue::COMMANDS;
use super::super::encode::Encoder;
use super::super::spec::{Keys, Spec, access, categories, find, flags};
use super::{Command, Exchange, Outcome};
use crate::service::Output;

type Reply<'w, 'o> = Encoder<'w, dyn Output + 'o>;

pub(super) fn count<'a>(exchange: &mut Exchange<'_>) -> Outcome<'a> {
    exchange.reply.count(COMMANDS.len());
    Ok(())
}

/// `COMMAND`
pub(super) fn all<'a>(exchange: &mut Exchange<'_>) -> Outcome<'a> {
    exchange.whole(|reply| {
        reply.array(COMMANDS.len());
        COMMANDS.iter().for_each(|spec| command(reply, spec));
    })
}

/// A command, or a subcommand as `container|subcommand`.
fn named(name: &[u8]) -> Option<&'static Spec> {
    match name.iter().position(|&byte| byte == b'|') {
        Some(at) => find(&name[..at])?.subcommand(&name[at + 1..]),
        None => find(name),
    }
}

/// `COMMAND INFO [name ...]`
pub(super) fn info<'a>(exchange: &mut Exchange<'_>, names: Arguments<'a>) -> Outcome<'a> {
    if names.len() == 0 {
        return all(exchange);
    }
    exchange.whole(|reply| {
        reply.array(names.len());
        for name in names {
            match named(name) {
                Some(spec) => command(reply, spec),
                None => reply.null(),
            }
        }
    })
}

fn command(reply: &mut Reply<'_, '_>, spec: &Spec) {
    let (first, last, step) = spec.range();
    reply.array(10);
    reply.bulk(spec.name.as_bytes());
    reply.integer(spec.arity);
    words(reply, flags::labels(spec.flags));
    reply.integer(first);
    reply.integer(last);
    reply.integer(step);
    words(reply, categories::labels(spec.categories));
    reply.set(spec.tips.len());
    spec.tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    reply.set(spec.keys.len());
    spec.keys.iter().for_each(|keys| ranges(reply, keys));
    // Where there are none, Redis has a set of them.
    match spec.subcommands {
        [] => reply.set(0),
        subcommands => reply.array(subcommands.len()),
    }
    spec.subcommands.iter().for_each(|spec| command(reply, spec));
}

fn words(reply: &mut Reply<'_, '_>, words: impl Iterator<Item = &'static str> + Clone) {
    reply.set(words.clone().count());
    words.for_each(|word| reply.simple(word));
}

fn ranges(reply: &mut Reply<'_, '_>, keys: &Keys) {
    reply.map(3 + usize::from(keys.notes.is_some()));
    if let Some(notes) = keys.notes {
        reply.bulk(b"notes");
        reply.bulk(notes.as_bytes());
    }
    reply.bulk(b"flags");
    words(reply, access::labels(keys.access));
    search(reply, "begin_search", "index", &[("index", keys.first as i64)]);
    let range = [("lastkey", keys.last), ("keystep", keys.step as i64), ("limit", 0)];
    search(reply, "find_keys", "range", &range);
}

fn search(reply: &mut Reply<'_, '_>, name: &str, kind: &str, numbers: &[(&str, i64)]) {
    reply.bulk(name.as_bytes());
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(numbers.len());
    for &(name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(number);
    }
}

/// `COMMAND DOCS [name ...]`: of each command its summary, first release and group.
pub(super) fn docs<'a>(exchange: &mut Exchange<'_>, names: Arguments<'a>) -> Outcome<'a> {
    exchange.whole(|reply| {
        if names.len() == 0 {
            reply.map(COMMANDS.len());
            COMMANDS.iter().for_each(|spec| documented(reply, spec));
        } else {
            let known = || names.filter_map(named);
            reply.map(known().count());
            known().for_each(|spec| documented(reply, spec));
        }
    })
}

fn documented(reply: &mut Reply<'_, '_>, spec: &Spec) {
    reply.bulk(spec.name.as_bytes());
    reply.map(3 + usize::from(!spec.subcommands.is_empty()));
    for (key, value) in [("summary", spec.summary), ("since", spec.since), ("group", spec.group)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    if !spec.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(spec.subcommands.len());
        spec.subcommands.iter().for_each(|spec| documented(reply, spec));
    }
}

const CLIENT_HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GETNAME",
    "    Return the name of the current connection.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "LIST [options ...]",
    "    Return information about the current client connection, if the options name it. Options:",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "    * ID <client-id> [<client-id> [...]]",
    "NO-EVICT (ON|OFF)",
    "    Protect current client connection from eviction.",
    "SETINFO <option> <value>",
    "    Set client meta attr. Options are: lib-name, lib-ver.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
];

const COMMAND_HELP: &[&str] = &[
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "(no subcommand)",
    "    Return details about all commands.",
    "COUNT",
    "    Return the total number of commands in this server.",
    "DOCS [<command-name> [<command-name> ...]]",
    "    Return documentation details about multiple commands.",
    "    If no command names are given, documentation details for all",
    "    commands are returned.",
    "INFO [<command-name> [<command-name> ...]]",
    "    Return details about multiple commands.",
    "    If no command names are given, documentation details for all",
    "    commands are returned.",
];

const CONFIG_HELP: &[&str] = &[
    "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET <pattern>",
    "    Return parameters matching the glob-like <pattern> and their values.",
];

const HELP_HELP: &[&str] = &["HELP", "    Prints this help."];

pub(super) fn help<'a>(exchange: &mut Exchange<'_>) -> Outcome<'a> {
    let lines = match exchange.spec.command {
        Command::ClientHelp => CLIENT_HELP,
        Command::ConfigHelp => CONFIG_HELP,
        _ => COMMAND_HELP,
    };
    exchange.whole(|reply| {
        reply.array(lines.len() + HELP_HELP.len());
        lines.iter().chain(HELP_HELP).for_each(|line| reply.simple(line));
    })
}
