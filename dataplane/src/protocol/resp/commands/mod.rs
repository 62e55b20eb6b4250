//! Carries out one command: finds it, asks the shard, writes the reply.

mod client;
mod configuration;
mod connection;
mod expiry;
mod information;
mod introspection;
mod keys;
mod many;
mod numbers;
mod options;
mod scan;
mod strings;

use super::Arguments;
use super::client::Client;
use super::connection::SHORT_REPLY_BYTES;
use super::encode::{BULK_FRAME_BYTES_MAX, Encoder};
use super::errors::{Error, texts};
use super::session::Worker;
use super::spec::{Command, Spec, find};
use super::text::{Measure, Text};
use crate::limits::KEY_BYTES_MAX;
use crate::metrics::WorkerMetrics;
use crate::request::{Item, Op, Origin, Reply, Request, Store};
use crate::service::{Context, Output};
use crate::table::{Submission, Table};
use crate::time::Now;

/// Why a command has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure<'a> {
    /// The reply has no room; nothing was done.
    Full {
        /// Bytes of room it needs.
        bytes: usize,
    },
    /// This is the reply.
    Error(Error<'a>),
}

impl<'a> From<Error<'a>> for Failure<'a> {
    fn from(error: Error<'a>) -> Self {
        Self::Error(error)
    }
}

impl From<&'static str> for Failure<'_> {
    fn from(text: &'static str) -> Self {
        Self::Error(Error::Text(text))
    }
}

/// What became of a command: its reply was written, or why not.
type Outcome<'a> = Result<(), Failure<'a>>;

/// The shard's table, at the time of this poll.
struct Shard<'e> {
    table: &'e mut (dyn Table + 'e),
    now: Now,
    origin: Origin,
    /// Largest item it takes.
    item_bytes_max: usize,
}

impl Shard<'_> {
    /// Hands over one request.
    #[inline]
    fn submit<'f>(&mut self, key: &[u8], op: Op<'_>) -> Result<Reply<'_>, Failure<'f>> {
        match self.table.submit(self.now, &Request { origin: self.origin, ..Request::new(key, op) }) {
            Submission::Done(reply) => Ok(reply),
            Submission::Pending => Err(texts::PENDING.into()),
        }
    }

    /// Hands over a store whose value is all of the item's. One that is too large leaves what is there alone; the table
    /// itself, as memcached does, would let that go.
    fn store<'f>(&mut self, key: &[u8], store: Store<'_>) -> Result<Reply<'_>, Failure<'f>> {
        if key.len() + store.value.len() > self.item_bytes_max {
            return Err(texts::STRING_TOO_LONG.into());
        }
        self.submit(key, Op::Store(store))
    }

    /// Looks at an item without using it.
    fn peek<'f>(&mut self, key: &[u8]) -> Result<Option<Item<'_>>, Failure<'f>> {
        let get = crate::request::Get { peek: true, ..crate::request::Get::default() };
        Ok(match self.submit(key, Op::Get(get))? {
            Reply::Value(item) => Some(item),
            _ => None,
        })
    }
}

/// What a command is carried out with.
struct Exchange<'e> {
    shard: Shard<'e>,
    metrics: &'e WorkerMetrics,
    worker: &'e mut Worker,
    client: &'e mut Client,
    spec: &'static Spec,
    reply: Encoder<'e, dyn Output + 'e>,
}

impl<'e> Exchange<'e> {
    #[inline]
    fn new(
        worker: &'e mut Worker,
        client: &'e mut Client,
        context: &'e mut Context<'_>,
        origin: Origin,
        spec: &'static Spec,
        output: &'e mut dyn Output,
    ) -> Self {
        // For no longer than the exchange.
        let output: &'e mut (dyn Output + 'e) = output;
        let reply = Encoder::new(output, client.version);
        let item_bytes_max = worker.item_bytes_max;
        let shard = Shard { table: &mut *context.table, now: context.now, origin, item_bytes_max };
        Self { shard, metrics: context.metrics, worker, client, spec, reply }
    }
}

impl Exchange<'_> {
    /// Longest bulk string there is room for.
    #[inline]
    fn bulk_bytes_max(&self) -> usize {
        self.reply.room().saturating_sub(BULK_FRAME_BYTES_MAX)
    }

    /// Writes a reply whose length only writing it tells: once for its length, and then, if there is room, for good.
    fn whole<'a>(&mut self, write: impl Fn(&mut Encoder<'_, dyn Output + '_>)) -> Outcome<'a> {
        let version = self.client.version;
        let mut measure = Measure::default();
        write(&mut Encoder::new(&mut measure as &mut dyn Output, version));
        if measure.bytes > self.reply.room() {
            return Err(Failure::Full { bytes: measure.bytes });
        }
        write(&mut self.reply);
        Ok(())
    }

    /// Replies with a text for people.
    fn text<'a>(&mut self, text: &Text) -> Outcome<'a> {
        const MARK: &[u8] = b"txt:";
        let bytes = text.as_bytes().len() + BULK_FRAME_BYTES_MAX + MARK.len();
        if self.reply.room() < bytes {
            return Err(Failure::Full { bytes });
        }
        self.reply.text(text.as_bytes());
        Ok(())
    }

    /// Counts reads.
    #[inline]
    fn count_reads(&self, hits: usize, misses: usize) {
        self.metrics.hits.add(hits as u64);
        self.metrics.misses.add(misses as u64);
    }
}

/// The next argument, which the arity says is there.
#[inline]
fn next<'a>(arguments: &mut Arguments<'a>) -> &'a [u8] {
    arguments.next().unwrap_or_default()
}

/// The next argument, a key that the table takes.
#[inline]
fn next_key<'a>(arguments: &mut Arguments<'a>) -> Result<&'a [u8], Failure<'a>> {
    checked(next(arguments))
}

/// A key that the table takes.
#[inline]
fn checked<'a>(key: &'a [u8]) -> Result<&'a [u8], Failure<'a>> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Error::KeyLength { bytes: key.len() }.into());
    }
    Ok(key)
}

/// The next argument, a number.
fn next_integer<'a>(arguments: &mut Arguments<'a>) -> Result<i64, Failure<'a>> {
    integer(next(arguments))
}

/// A number.
fn integer<'a>(text: &[u8]) -> Result<i64, Failure<'a>> {
    super::number::parse_i64(text).ok_or(texts::NOT_AN_INTEGER.into())
}

/// What a table's refusal is to the client.
#[cold]
fn refusal<'f>(reply: &Reply<'_>) -> Failure<'f> {
    match reply {
        Reply::NoRoom { value_bytes } => Failure::Full { bytes: value_bytes + BULK_FRAME_BYTES_MAX },
        Reply::TooLarge => texts::STRING_TOO_LONG.into(),
        Reply::OutOfMemory => texts::OUT_OF_MEMORY.into(),
        Reply::NotANumber => texts::NOT_AN_INTEGER.into(),
        Reply::Overflow => texts::OVERFLOW.into(),
        _ => texts::UNHANDLED.into(),
    }
}

/// Finds a command, its subcommand if it has some, and what is left of the arguments.
#[inline]
fn command<'a>(arguments: &mut Arguments<'a>) -> Result<&'static Spec, Failure<'a>> {
    let count = arguments.len();
    let name = next(arguments);
    let Some(spec) = find(name) else { return Err(Error::UnknownCommand(name, *arguments).into()) };
    let spec = if !spec.subcommands.is_empty() && count > 1 {
        let name = next(arguments);
        spec.subcommand(name).ok_or(Error::UnknownSubcommand(name, capitals(spec.command)))?
    } else {
        spec
    };
    if spec.takes(count) { Ok(spec) } else { Err(Error::WrongArity(spec.name).into()) }
}

/// A container's name.
fn capitals(container: Command) -> &'static str {
    match container {
        Command::Client => "CLIENT",
        Command::Config => "CONFIG",
        _ => "COMMAND",
    }
}

/// Carries out one request, its name first, and writes its reply.
#[inline]
pub(super) fn execute<'a>(
    worker: &mut Worker,
    client: &mut Client,
    context: &mut Context<'_>,
    origin: Origin,
    mut arguments: Arguments<'a>,
    output: &mut dyn Output,
) -> Outcome<'a> {
    if output.room() < SHORT_REPLY_BYTES {
        return Err(Failure::Full { bytes: SHORT_REPLY_BYTES });
    }
    let spec = command(&mut arguments)?;
    client.last_command = Some(spec);
    client.since_unix_s.get_or_insert(context.now.unix_s());
    let keys = keys_of(spec, arguments);
    let mut exchange = Exchange::new(worker, client, context, origin, spec, output);
    dispatch(&mut exchange, arguments)?;
    exchange.worker.commands += 1;
    exchange.metrics.requested(spec.kind, keys);
    Ok(())
}

/// Goes on with the keys that are left of an `MGET`.
pub(super) fn go_on<'a>(
    worker: &mut Worker,
    client: &mut Client,
    context: &mut Context<'_>,
    origin: Origin,
    keys: Arguments<'a>,
    output: &mut dyn Output,
) -> Outcome<'a> {
    let Some(spec) = find(b"mget") else { return Ok(()) };
    let mut exchange = Exchange::new(worker, client, context, origin, spec, output);
    many::values(&mut exchange, keys)?;
    exchange.worker.commands += 1;
    Ok(())
}

/// Requests that a command is counted as: each key is one. `MGET` counts its own.
#[inline]
fn keys_of(spec: &Spec, arguments: Arguments<'_>) -> u64 {
    match spec.keys {
        _ if spec.command == Command::Mget => 0,
        [keys] if keys.last < 0 => (arguments.len() / keys.step) as u64,
        _ => 1,
    }
}

#[inline]
fn dispatch<'a>(exchange: &mut Exchange<'_>, arguments: Arguments<'a>) -> Outcome<'a> {
    match exchange.spec.command {
        Command::Get => strings::get(exchange, arguments),
        Command::Set => strings::set(exchange, arguments),
        Command::Setnx => strings::setnx(exchange, arguments),
        Command::Setex | Command::Psetex => strings::setex(exchange, arguments),
        Command::Getset => strings::getset(exchange, arguments),
        Command::Getdel => strings::getdel(exchange, arguments),
        Command::Getex => strings::getex(exchange, arguments),
        Command::Append => strings::append(exchange, arguments),
        Command::Strlen => strings::strlen(exchange, arguments),
        Command::Getrange => strings::getrange(exchange, arguments),
        Command::Setrange => strings::setrange(exchange, arguments),
        Command::Mget => many::mget(exchange, arguments),
        Command::Mset => many::mset(exchange, arguments),
        Command::Msetnx => many::msetnx(exchange, arguments),
        Command::Incr | Command::Decr | Command::Incrby | Command::Decrby => {
            numbers::increment(exchange, arguments)
        }
        Command::Incrbyfloat => numbers::incrbyfloat(exchange, arguments),
        Command::Del | Command::Unlink => keys::del(exchange, arguments),
        Command::Exists => keys::exists(exchange, arguments),
        Command::Touch => keys::touch(exchange, arguments),
        Command::Type => keys::type_of(exchange, arguments),
        Command::Rename | Command::Renamenx => keys::rename(exchange, arguments),
        Command::Randomkey => keys::randomkey(exchange),
        Command::Dbsize => keys::dbsize(exchange),
        Command::Flushdb | Command::Flushall => keys::flush(exchange, arguments),
        Command::Expire | Command::Pexpire | Command::Expireat | Command::Pexpireat => {
            expiry::expire(exchange, arguments)
        }
        Command::Ttl | Command::Pttl | Command::Expiretime | Command::Pexpiretime => {
            expiry::ttl(exchange, arguments)
        }
        Command::Persist => expiry::persist(exchange, arguments),
        Command::Scan => scan::scan(exchange, arguments),
        Command::Keys => scan::keys(exchange, arguments),
        Command::Ping => connection::ping(exchange, arguments),
        Command::Echo => connection::echo(exchange, arguments),
        Command::Hello => connection::hello(exchange, arguments),
        Command::Auth => connection::auth(exchange, arguments),
        Command::Select => connection::select(exchange, arguments),
        Command::Quit => connection::quit(exchange),
        Command::ClientId => client::id(exchange),
        Command::ClientGetname => client::getname(exchange),
        Command::ClientSetname => client::setname(exchange, arguments),
        Command::ClientSetinfo => client::setinfo(exchange, arguments),
        Command::ClientInfo => client::info(exchange),
        Command::ClientList => client::list(exchange, arguments),
        Command::ClientNoEvict => client::no_evict(exchange, arguments),
        Command::Info => information::info(exchange, arguments),
        Command::ConfigGet => configuration::get(exchange, arguments),
        Command::Command => introspection::all(exchange),
        Command::CommandCount => introspection::count(exchange),
        Command::CommandInfo => introspection::info(exchange, arguments),
        Command::CommandDocs => introspection::docs(exchange, arguments),
        Command::ClientHelp | Command::CommandHelp | Command::ConfigHelp => introspection::help(exchange),
        // Their arity leaves no way here without a subcommand.
        Command::Client | Command::Config => Err(Error::WrongArity(exchange.spec.name).into()),
    }
}
