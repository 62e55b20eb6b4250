//! What a client says before and between its requests.

use super::super::Arguments;
use super::super::client::{BadName, Name};
use super::super::encode::{BULK_FRAME_BYTES_MAX, Version};
use super::super::errors::{Error, texts};
use super::super::number::parse_i64;
use super::super::{VERSION, client};
use super::{Exchange, Failure, Outcome, integer, next};

/// The one user there is.
const USER: &[u8] = b"default";

pub(super) fn ping<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    match arguments.len() {
        0 => exchange.reply.simple("PONG"),
        1 => return bulk(exchange, next(&mut arguments)),
        _ => return Err(Error::WrongArity(exchange.spec.name).into()),
    }
    Ok(())
}

pub(super) fn echo<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    bulk(exchange, next(&mut arguments))
}

fn bulk<'a>(exchange: &mut Exchange<'_>, message: &[u8]) -> Outcome<'a> {
    let bytes = message.len() + BULK_FRAME_BYTES_MAX;
    if exchange.reply.room() < bytes {
        return Err(Failure::Full { bytes });
    }
    exchange.reply.bulk(message);
    Ok(())
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`
pub(super) fn hello<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    let version = match arguments.next() {
        None => exchange.client.version,
        Some(version) => match parse_i64(version).ok_or(texts::PROTOCOL_VERSION)? {
            2 => Version::Two,
            3 => Version::Three,
            _ => return Err(texts::NO_PROTOCOL.into()),
        },
    };
    while let Some(option) = arguments.next() {
        if option.eq_ignore_ascii_case(b"AUTH") && arguments.len() >= 2 {
            authenticate(next(&mut arguments))?;
            next(&mut arguments);
        } else if option.eq_ignore_ascii_case(b"SETNAME") && arguments.len() >= 1 {
            exchange.client.name = name(next(&mut arguments))?;
        } else {
            return Err(Error::Word("ERR Syntax error in HELLO option '", option, "'").into());
        }
    }
    exchange.client.version = version;
    let reply = &mut exchange.reply;
    reply.switch(version);
    reply.map(7);
    for (key, value) in [("server", "redis"), ("version", VERSION)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(version.number());
    reply.bulk(b"id");
    reply.integer(exchange.client.id as i64);
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

/// The one user needs no password, so that any will do.
fn authenticate<'f>(user: &[u8]) -> Result<(), Failure<'f>> {
    if user == USER { Ok(()) } else { Err(texts::WRONG_PASSWORD.into()) }
}

pub(super) fn auth<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    match arguments.len() {
        1 => return Err(texts::NO_PASSWORD.into()),
        2 => authenticate(next(&mut arguments))?,
        _ => return Err(texts::SYNTAX.into()),
    }
    exchange.reply.ok();
    Ok(())
}

/// A client's name, or why it is none.
pub(super) fn name<'f>(name: &[u8]) -> Result<client::Name, Failure<'f>> {
    Name::new(name).map_err(|why| {
        match why {
            BadName::Character => texts::CLIENT_NAME,
            BadName::TooLong => texts::CLIENT_NAME_TOO_LONG,
        }
        .into()
    })
}

/// There is one database.
pub(super) fn select<'a>(exchange: &mut Exchange<'_>, mut arguments: Arguments<'a>) -> Outcome<'a> {
    match integer(next(&mut arguments))? {
        0 => exchange.reply.ok(),
        index if i32::try_from(index).is_err() => return Err(texts::NOT_AN_INT.into()),
        _ => return Err(texts::DATABASE_INDEX.into()),
    }
    Ok(())
}

pub(super) fn quit<'a>(exchange: &mut Exchange<'_>) -> Outcome<'a> {
    exchange.client.quits = true;
    exchange.reply.ok();
    Ok(())
}
