//! What RESP is asked.

use dataplane::port::sim::Random;
use dataplane::protocol::resp::conversation::{Conversation, roomy_setup};
use dataplane::table::memory::MemoryTable;
use dataplane::time::Now;

use crate::record::{Exchange, Protocol};
use crate::resp_support::generate::command;
use crate::resp_support::request;
use crate::simulated::table;

/// Generated requests, for each version of the protocol.
const GENERATED: usize = 2_000;

/// What the generator leaves out. `~` stands for a space.
const WRITTEN: &[&str] = &[
    "PING",
    "PING hello",
    "ECHO hello",
    "HELLO",
    "HELLO 3 AUTH default x SETNAME me",
    "HELLO 2",
    "HELLO 4",
    "AUTH x",
    "AUTH default x",
    "AUTH nobody x",
    "SELECT 0",
    "SELECT 1",
    "CLIENT ID",
    "CLIENT GETNAME",
    "CLIENT SETNAME parity",
    "CLIENT SETINFO lib-name parity",
    "CLIENT NO-EVICT on",
    "CLIENT LIST TYPE master",
    "CLIENT LIST ID 99",
    "CLIENT HELP",
    "COMMAND",
    "COMMAND COUNT",
    "COMMAND INFO get set nonsense",
    "COMMAND DOCS set client",
    "COMMAND HELP",
    "CONFIG GET *",
    "CONFIG HELP",
    "CONFIG SET save x",
    "INFO persistence",
    "INFO replication",
    "INFO cluster",
    "INFO keyspace",
    "DBSIZE",
    "RANDOMKEY",
    "SET only x",
    "RANDOMKEY",
    "DBSIZE",
    "INFO keyspace",
    "KEYS *",
    "SCAN 0 MATCH o* COUNT 1000 TYPE string",
    "SET a~b 1 EX 100 GET",
    "SET t x EXAT 4000000000",
    "EXPIRETIME t",
    "GETEX t PERSIST",
    "TTL t",
    "MSET a 1 b 2",
    "MSETNX c 1 a 2",
    "MGET a b c",
    "RENAME a c",
    "RENAMENX b c",
    "INCRBYFLOAT c 0.5",
    "GETDEL c",
    "SETRANGE zeros 5 x",
    "GETRANGE zeros 0 -1",
    "EXPIRE zeros 100 GT",
    "EXPIRE zeros 100 NX",
    "FLUSHDB ASYNC",
    "FLUSHALL",
    "nonsense with words",
    "GET",
    "SET a 1 NX XX",
];

/// Requests that are not arrays of bulk strings.
const RAW: [&[u8]; 6] =
    [b"PING\r\n", b"SET inline \"a \\x41\\n\"\n", b"get 'inline'\r\n", b"\r\n", b"*0\r\n", b"*-1\r\n"];

struct Recorder {
    server: Conversation<MemoryTable>,
    exchanges: Vec<Exchange>,
}

impl Recorder {
    fn say(&mut self, name: &str, request: Vec<u8>) {
        let reply = self.server.say(Now::read(), &request);
        let name = name.to_uppercase();
        self.exchanges.push(Exchange { protocol: Protocol::Resp, name, request, reply });
    }

    fn words(&mut self, words: &[impl AsRef<[u8]>]) {
        self.say(&String::from_utf8_lossy(words[0].as_ref()), request(words));
    }
}

/// All of it.
pub(crate) fn record() -> Vec<Exchange> {
    let mut recorder = Recorder { server: Conversation::new(table(), &roomy_setup()), exchanges: Vec::new() };
    for line in WRITTEN {
        let words: Vec<_> = line.split(' ').map(|word| word.replace('~', " ")).collect();
        recorder.words(&words);
    }
    for bytes in RAW {
        recorder.say("", bytes.to_vec());
    }
    // Values of many segments, and a reply of several of them.
    for (key, length) in [("large", 200_000), ("larger", 1 << 20)] {
        let value: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8).collect();
        recorder.words(&[b"SET", key.as_bytes(), &value[..]]);
        recorder.words(&["GET", key]);
        recorder.words(&["STRLEN", key]);
    }
    recorder.words(&["MGET", "large", "missing", "large"]);
    recorder.words(&[&b"SET"[..], b"larger", &vec![b'x'; (1 << 20) + 1]]);
    recorder.words(&["DEL", "large", "larger"]);
    let mut random = Random::new(7);
    for version in ["2", "3"] {
        recorder.words(&["HELLO", version]);
        for line in ["INFO cluster", "COMMAND INFO get client", "COMMAND DOCS get", "CONFIG GET *"] {
            recorder.words(&line.split(' ').collect::<Vec<_>>());
        }
        for number in 0..GENERATED {
            if number % 200 == 0 {
                recorder.words(&["FLUSHALL"]);
            }
            recorder.words(&command(&mut random));
        }
    }
    recorder.words(&["QUIT"]);
    for mark in ["+", "-ERR ", "-NOPROTO ", "-WRONGPASS ", ":", "$", "$-1", "*", "%", "_", "="] {
        let has = |exchange: &Exchange| exchange.reply.starts_with(mark.as_bytes());
        assert!(recorder.exchanges.iter().any(has), "no reply that begins with {mark:?} is recorded");
    }
    recorder.exchanges
}
