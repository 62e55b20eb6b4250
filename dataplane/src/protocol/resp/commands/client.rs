//! `CLIENT`: what is known of the connection. A connection knows itself alone.

use std::fmt::Write as _;

use super::super::Arguments;
use super::super::client::{BadName, Client, Name};
use super::super::errors::{Error, texts};
use super::super::number::parse_i64;
use super::super::text::Text;
use super::connection::name;
use super::{Exchange, Outcome, next};
use crate::time::Now;

pub(super) fn id<'a>(exchange: &mut Exchange<'_>) -> Outcome<'a> {
    exchange.reply.integer(exchange.client.id as i64);
    Ok(())
}

pub(super) fn getname<'a>(exchange: &mut Exchange<'_>) -> Outcome<'a> {
    match exchange.client.name.as_bytes() {
        [] => exchange.reply.null(),
        name => exchange.reply.bulk(name),
    }
    Ok(())
}

pub(super) fn setname<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    exchange.client.name = name(next(&mut arguments))?;
    exchange.reply.ok();
    Ok(())
}

/// `CLIENT SETINFO lib-name|lib-ver value`, as Redis 7.2 has it.
pub(super) fn setinfo<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let (attribute, value) = (next(&mut arguments), next(&mut arguments));
    let kept = if attribute.eq_ignore_ascii_case(b"lib-name") {
        &mut exchange.client.library_name
    } else if attribute.eq_ignore_ascii_case(b"lib-ver") {
        &mut exchange.client.library_version
    } else {
        return Err(Error::Word("ERR Unrecognized option '", attribute, "'").into());
    };
    *kept = Name::new(value).map_err(|why| match why {
        BadName::Character => {
            Error::Word("ERR ", attribute, " cannot contain spaces, newlines or special characters.")
        }
        BadName::TooLong => Error::Text(texts::CLIENT_NAME_TOO_LONG),
    })?;
    exchange.reply.ok();
    Ok(())
}

pub(super) fn no_evict<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let mode = next(&mut arguments);
    exchange.client.no_evict = if mode.eq_ignore_ascii_case(b"ON") {
        true
    } else if mode.eq_ignore_ascii_case(b"OFF") {
        false
    } else {
        return Err(texts::SYNTAX.into());
    };
    exchange.reply.ok();
    Ok(())
}

pub(super) fn info<'a>(exchange: &mut Exchange<'_>) -> Outcome<'a> {
    told(exchange, true)
}

/// `CLIENT LIST [TYPE type | ID id ...]`
pub(super) fn list<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let count = arguments.len();
    if count == 0 {
        return told(exchange, true);
    }
    let filter = next(&mut arguments);
    if count == 2 && filter.eq_ignore_ascii_case(b"TYPE") {
        let kind = next(&mut arguments);
        let is = |name: &str| kind.eq_ignore_ascii_case(name.as_bytes());
        if !["normal", "master", "replica", "slave", "pubsub"].into_iter().any(is) {
            return Err(Error::Word("ERR Unknown client type '", kind, "'").into());
        }
        return told(exchange, is("normal"));
    }
    if count < 2 || !filter.eq_ignore_ascii_case(b"ID") {
        return Err(texts::SYNTAX.into());
    }
    let mut named = false;
    for id in arguments {
        let id = parse_i64(id).ok_or(texts::CLIENT_ID)?;
        named |= u64::try_from(id) == Ok(exchange.client.id);
    }
    told(exchange, named)
}

/// Tells of the client, or of nobody.
fn told<'a>(exchange: &mut Exchange<'_>, named: bool) -> Outcome<'a> {
    let mut text = Text::default();
    if named {
        line(&mut text, exchange.client, exchange.shard.now);
    }
    exchange.text(&text)
}

/// What is known of a client, on a line. The sizes of buffers are not this layer's to know.
fn line(text: &mut Text, client: &Client, now: Now) {
    let Client { id, peer, local, .. } = client;
    let age_s = now.unix_s().saturating_sub(client.since_unix_s.unwrap_or_default());
    let flags = if client.no_evict { "e" } else { "N" };
    let command = client.last_command.map_or("NULL", |spec| spec.name);
    let resp = client.version.number();
    // A text takes all that is written to it.
    let _ = write!(text, "id={id} addr={peer} laddr={local} fd=-1 name=");
    text.push(client.name.as_bytes());
    let _ = write!(
        text,
        " age={age_s} idle=0 flags={flags} db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 \
         multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={command} user=default redir=-1 \
         resp={resp} lib-name="
    );
    text.push(client.library_name.as_bytes());
    text.push(b" lib-ver=");
    text.push(client.library_version.as_bytes());
    text.push(b"\n");
}
