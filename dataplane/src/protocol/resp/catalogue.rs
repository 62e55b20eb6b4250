//! Every command there is, as `COMMAND` tells of it: what Redis 7.0 says of its own, and `CLIENT SETINFO` of 7.2.
//!
//! Sorted by name. `dataplane/tests/resp_differential.rs` holds each entry against a real Redis.

use super::spec::access::*;
use super::spec::flags::*;
use super::spec::{Command, Spec, categories, every, one, pairs};
use crate::metrics::OpKind;

/// Of `CLIENT`.
const CLIENT: [Spec; 8] = [
    Spec::new("client|getname", Command::ClientGetname, 2, OpKind::Other, NOSCRIPT | LOADING | STALE)
        .also(categories::CONNECTION)
        .docs("connection", "2.6.9", "Get the current connection name"),
    Spec::new("client|help", Command::ClientHelp, 2, OpKind::Other, LOADING | STALE)
        .also(categories::CONNECTION)
        .docs("connection", "5.0.0", "Show helpful text about the different subcommands"),
    Spec::new("client|id", Command::ClientId, 2, OpKind::Other, NOSCRIPT | LOADING | STALE)
        .also(categories::CONNECTION)
        .docs("connection", "5.0.0", "Returns the client ID for the current connection"),
    Spec::new("client|info", Command::ClientInfo, 2, OpKind::Other, NOSCRIPT | LOADING | STALE)
        .also(categories::CONNECTION)
        .tips(&["nondeterministic_output"])
        .docs("connection", "6.2.0", "Returns information about the current client connection."),
    Spec::new("client|list", Command::ClientList, -2, OpKind::Other, ADMIN | NOSCRIPT | LOADING | STALE)
        .also(categories::DANGEROUS | categories::CONNECTION)
        .tips(&["nondeterministic_output"])
        .docs("connection", "2.4.0", "Get the list of client connections"),
    Spec::new(
        "client|no-evict",
        Command::ClientNoEvict,
        3,
        OpKind::Other,
        ADMIN | NOSCRIPT | LOADING | STALE,
    )
    .also(categories::DANGEROUS | categories::CONNECTION)
    .docs("connection", "7.0.0", "Set client eviction mode for the current connection"),
    Spec::new("client|setinfo", Command::ClientSetinfo, 4, OpKind::Other, NOSCRIPT | LOADING | STALE)
        .also(categories::CONNECTION)
        .docs("connection", "7.2.0", "Sets information specific to the client or connection."),
    Spec::new("client|setname", Command::ClientSetname, 3, OpKind::Other, NOSCRIPT | LOADING | STALE)
        .also(categories::CONNECTION)
        .docs("connection", "2.6.9", "Set the current connection name"),
];

/// Of `COMMAND`.
const COMMAND: [Spec; 4] = [
    Spec::new("command|count", Command::CommandCount, 2, OpKind::Other, LOADING | STALE)
        .also(categories::CONNECTION)
        .docs("server", "2.8.13", "Get total number of Redis commands"),
    Spec::new("command|docs", Command::CommandDocs, -2, OpKind::Other, LOADING | STALE)
        .also(categories::CONNECTION)
        .tips(&["nondeterministic_output_order"])
        .docs("server", "7.0.0", "Get array of specific Redis command documentation"),
    Spec::new("command|help", Command::CommandHelp, 2, OpKind::Other, LOADING | STALE)
        .also(categories::CONNECTION)
        .docs("server", "5.0.0", "Show helpful text about the different subcommands"),
    Spec::new("command|info", Command::CommandInfo, -2, OpKind::Other, LOADING | STALE)
        .also(categories::CONNECTION)
        .tips(&["nondeterministic_output_order"])
        .docs(
            "server",
            "2.8.13",
            "Get array of specific Redis command details, or all when no argument is given.",
        ),
];

/// Of `CONFIG`.
const CONFIG: [Spec; 2] = [
    Spec::new("config|get", Command::ConfigGet, -3, OpKind::Other, ADMIN | NOSCRIPT | LOADING | STALE)
        .also(categories::DANGEROUS)
        .docs("server", "2.0.0", "Get the values of configuration parameters"),
    Spec::new("config|help", Command::ConfigHelp, 2, OpKind::Other, LOADING | STALE).docs(
        "server",
        "5.0.0",
        "Show helpful text about the different subcommands",
    ),
];

/// All of them.
pub static COMMANDS: [Spec; 52] = [
    Spec::new("append", Command::Append, 3, OpKind::Store, WRITE | DENYOOM | FAST)
        .keys(&[one(1, RW | INSERT)])
        .docs("string", "2.0.0", "Append a value to a key"),
    Spec::new(
        "auth",
        Command::Auth,
        -2,
        OpKind::Other,
        NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY,
    )
    .also(categories::CONNECTION)
    .docs("connection", "1.0.0", "Authenticate to the server"),
    Spec::new("client", Command::Client, -2, OpKind::Other, 0).subcommands(&CLIENT).docs(
        "connection",
        "2.4.0",
        "A container for client connection commands",
    ),
    Spec::new("command", Command::Command, -1, OpKind::Other, LOADING | STALE)
        .also(categories::CONNECTION)
        .tips(&["nondeterministic_output_order"])
        .subcommands(&COMMAND)
        .docs("server", "2.8.13", "Get array of Redis command details"),
    Spec::new("config", Command::Config, -2, OpKind::Other, 0).subcommands(&CONFIG).docs(
        "server",
        "2.0.0",
        "A container for server configuration commands",
    ),
    Spec::new("dbsize", Command::Dbsize, 1, OpKind::Other, READONLY | FAST)
        .also(categories::KEYSPACE)
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .docs("server", "1.0.0", "Return the number of keys in the selected database"),
    Spec::new("decr", Command::Decr, 2, OpKind::Arithmetic, WRITE | DENYOOM | FAST)
        .keys(&[one(1, RW | ACCESS | UPDATE)])
        .docs("string", "1.0.0", "Decrement the integer value of a key by one"),
    Spec::new("decrby", Command::Decrby, 3, OpKind::Arithmetic, WRITE | DENYOOM | FAST)
        .keys(&[one(1, RW | ACCESS | UPDATE)])
        .docs("string", "1.0.0", "Decrement the integer value of a key by the given number"),
    Spec::new("del", Command::Del, -2, OpKind::Delete, WRITE)
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .keys(&[every(1, RM | DELETE)])
        .docs("generic", "1.0.0", "Delete a key"),
    Spec::new("echo", Command::Echo, 2, OpKind::Other, LOADING | STALE | FAST)
        .also(categories::CONNECTION)
        .docs("connection", "1.0.0", "Echo the given string"),
    Spec::new("exists", Command::Exists, -2, OpKind::Get, READONLY | FAST)
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .keys(&[every(1, RO)])
        .docs("generic", "1.0.0", "Determine if a key exists"),
    Spec::new("expire", Command::Expire, -3, OpKind::Touch, WRITE | FAST).keys(&[one(1, RW | UPDATE)]).docs(
        "generic",
        "1.0.0",
        "Set a key's time to live in seconds",
    ),
    Spec::new("expireat", Command::Expireat, -3, OpKind::Touch, WRITE | FAST)
        .keys(&[one(1, RW | UPDATE)])
        .docs("generic", "1.2.0", "Set the expiration for a key as a UNIX timestamp"),
    Spec::new("expiretime", Command::Expiretime, 2, OpKind::Get, READONLY | FAST)
        .keys(&[one(1, RO | ACCESS)])
        .docs("generic", "7.0.0", "Get the expiration Unix timestamp for a key"),
    Spec::new("flushall", Command::Flushall, -1, OpKind::Flush, WRITE)
        .also(categories::KEYSPACE | categories::DANGEROUS)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .docs("server", "1.0.0", "Remove all keys from all databases"),
    Spec::new("flushdb", Command::Flushdb, -1, OpKind::Flush, WRITE)
        .also(categories::KEYSPACE | categories::DANGEROUS)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .docs("server", "1.0.0", "Remove all keys from the current database"),
    Spec::new("get", Command::Get, 2, OpKind::Get, READONLY | FAST).keys(&[one(1, RO | ACCESS)]).docs(
        "string",
        "1.0.0",
        "Get the value of a key",
    ),
    Spec::new("getdel", Command::Getdel, 2, OpKind::Delete, WRITE | FAST)
        .keys(&[one(1, RW | ACCESS | DELETE)])
        .docs("string", "6.2.0", "Get the value of a key and delete the key"),
    Spec::new("getex", Command::Getex, -2, OpKind::Get, WRITE | FAST)
        .keys(&[one(1, RW | ACCESS | UPDATE).notes("RW and UPDATE because it changes the TTL")])
        .docs("string", "6.2.0", "Get the value of a key and optionally set its expiration"),
    Spec::new("getrange", Command::Getrange, 4, OpKind::Get, READONLY).keys(&[one(1, RO | ACCESS)]).docs(
        "string",
        "2.4.0",
        "Get a substring of the string stored at a key",
    ),
    Spec::new("getset", Command::Getset, 3, OpKind::Store, WRITE | DENYOOM | FAST)
        .keys(&[one(1, RW | ACCESS | UPDATE)])
        .docs("string", "1.0.0", "Set the string value of a key and return its old value"),
    Spec::new(
        "hello",
        Command::Hello,
        -1,
        OpKind::Other,
        NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY,
    )
    .also(categories::CONNECTION)
    .docs("connection", "6.0.0", "Handshake with Redis"),
    Spec::new("incr", Command::Incr, 2, OpKind::Arithmetic, WRITE | DENYOOM | FAST)
        .keys(&[one(1, RW | ACCESS | UPDATE)])
        .docs("string", "1.0.0", "Increment the integer value of a key by one"),
    Spec::new("incrby", Command::Incrby, 3, OpKind::Arithmetic, WRITE | DENYOOM | FAST)
        .keys(&[one(1, RW | ACCESS | UPDATE)])
        .docs("string", "1.0.0", "Increment the integer value of a key by the given amount"),
    Spec::new("incrbyfloat", Command::Incrbyfloat, 3, OpKind::Arithmetic, WRITE | DENYOOM | FAST)
        .keys(&[one(1, RW | ACCESS | UPDATE)])
        .docs("string", "2.6.0", "Increment the float value of a key by the given amount"),
    Spec::new("info", Command::Info, -1, OpKind::Other, LOADING | STALE)
        .also(categories::DANGEROUS)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .docs("server", "1.0.0", "Get information and statistics about the server"),
    Spec::new("keys", Command::Keys, 2, OpKind::Other, READONLY)
        .also(categories::DANGEROUS)
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"])
        .docs("generic", "1.0.0", "Find all keys matching the given pattern"),
    Spec::new("mget", Command::Mget, -2, OpKind::Get, READONLY | FAST)
        .tips(&["request_policy:multi_shard"])
        .keys(&[every(1, RO | ACCESS)])
        .docs("string", "1.0.0", "Get the values of all the given keys"),
    Spec::new("mset", Command::Mset, -3, OpKind::Store, WRITE | DENYOOM)
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .keys(&[pairs(1, OW | UPDATE)])
        .docs("string", "1.0.1", "Set multiple keys to multiple values"),
    Spec::new("msetnx", Command::Msetnx, -3, OpKind::Store, WRITE | DENYOOM)
        .tips(&["request_policy:multi_shard", "response_policy:agg_min"])
        .keys(&[pairs(1, OW | INSERT)])
        .docs("string", "1.0.1", "Set multiple keys to multiple values, only if none of the keys exist"),
    Spec::new("persist", Command::Persist, 2, OpKind::Touch, WRITE | FAST).keys(&[one(1, RW | UPDATE)]).docs(
        "generic",
        "2.2.0",
        "Remove the expiration from a key",
    ),
    Spec::new("pexpire", Command::Pexpire, -3, OpKind::Touch, WRITE | FAST)
        .keys(&[one(1, RW | UPDATE)])
        .docs("generic", "2.6.0", "Set a key's time to live in milliseconds"),
    Spec::new("pexpireat", Command::Pexpireat, -3, OpKind::Touch, WRITE | FAST)
        .keys(&[one(1, RW | UPDATE)])
        .docs(
            "generic",
            "2.6.0",
            "Set the expiration for a key as a UNIX timestamp specified in milliseconds",
        ),
    Spec::new("pexpiretime", Command::Pexpiretime, 2, OpKind::Get, READONLY | FAST)
        .keys(&[one(1, RO | ACCESS)])
        .docs("generic", "7.0.0", "Get the expiration Unix timestamp for a key in milliseconds"),
    Spec::new("ping", Command::Ping, -1, OpKind::Other, FAST)
        .also(categories::CONNECTION)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .docs("connection", "1.0.0", "Ping the server"),
    Spec::new("psetex", Command::Psetex, 4, OpKind::Store, WRITE | DENYOOM)
        .keys(&[one(1, OW | UPDATE)])
        .docs("string", "2.6.0", "Set the value and expiration in milliseconds of a key"),
    Spec::new("pttl", Command::Pttl, 2, OpKind::Get, READONLY | FAST)
        .tips(&["nondeterministic_output"])
        .keys(&[one(1, RO | ACCESS)])
        .docs("generic", "2.6.0", "Get the time to live for a key in milliseconds"),
    Spec::new(
        "quit",
        Command::Quit,
        -1,
        OpKind::Other,
        NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY,
    )
    .also(categories::CONNECTION)
    .docs("connection", "1.0.0", "Close the connection"),
    Spec::new("randomkey", Command::Randomkey, 1, OpKind::Other, READONLY)
        .tips(&["request_policy:all_shards", "nondeterministic_output"])
        .docs("generic", "1.0.0", "Return a random key from the keyspace"),
    Spec::new("rename", Command::Rename, 3, OpKind::Store, WRITE)
        .keys(&[one(1, RW | ACCESS | DELETE), one(2, OW | UPDATE)])
        .docs("generic", "1.0.0", "Rename a key"),
    Spec::new("renamenx", Command::Renamenx, 3, OpKind::Store, WRITE | FAST)
        .keys(&[one(1, RW | ACCESS | DELETE), one(2, OW | INSERT)])
        .docs("generic", "1.0.0", "Rename a key, only if the new key does not exist"),
    Spec::new("scan", Command::Scan, -2, OpKind::Other, READONLY)
        .tips(&["nondeterministic_output", "request_policy:special"])
        .docs("generic", "2.8.0", "Incrementally iterate the keys space"),
    Spec::new("select", Command::Select, 2, OpKind::Other, LOADING | STALE | FAST)
        .also(categories::CONNECTION)
        .docs("connection", "1.0.0", "Change the selected database for the current connection"),
    Spec::new("set", Command::Set, -3, OpKind::Store, WRITE | DENYOOM)
        .keys(&[one(1, RW | ACCESS | UPDATE | VARIABLE_FLAGS)
            .notes("RW and ACCESS due to the optional `GET` argument")])
        .docs("string", "1.0.0", "Set the string value of a key"),
    Spec::new("setex", Command::Setex, 4, OpKind::Store, WRITE | DENYOOM).keys(&[one(1, OW | UPDATE)]).docs(
        "string",
        "2.0.0",
        "Set the value and expiration of a key",
    ),
    Spec::new("setnx", Command::Setnx, 3, OpKind::Store, WRITE | DENYOOM | FAST)
        .keys(&[one(1, OW | INSERT)])
        .docs("string", "1.0.0", "Set the value of a key, only if the key does not exist"),
    Spec::new("setrange", Command::Setrange, 4, OpKind::Store, WRITE | DENYOOM)
        .keys(&[one(1, RW | UPDATE)])
        .docs("string", "2.2.0", "Overwrite part of a string at key starting at the specified offset"),
    Spec::new("strlen", Command::Strlen, 2, OpKind::Get, READONLY | FAST).keys(&[one(1, RO)]).docs(
        "string",
        "2.2.0",
        "Get the length of the value stored in a key",
    ),
    Spec::new("touch", Command::Touch, -2, OpKind::Get, READONLY | FAST)
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .keys(&[every(1, RO)])
        .docs(
            "generic",
            "3.2.1",
            "Alters the last access time of a key(s). Returns the number of existing keys specified.",
        ),
    Spec::new("ttl", Command::Ttl, 2, OpKind::Get, READONLY | FAST)
        .tips(&["nondeterministic_output"])
        .keys(&[one(1, RO | ACCESS)])
        .docs("generic", "1.0.0", "Get the time to live for a key in seconds"),
    Spec::new("type", Command::Type, 2, OpKind::Get, READONLY | FAST).keys(&[one(1, RO)]).docs(
        "generic",
        "1.0.0",
        "Determine the type stored at key",
    ),
    Spec::new("unlink", Command::Unlink, -2, OpKind::Delete, WRITE | FAST)
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .keys(&[every(1, RM | DELETE)])
        .docs(
            "generic",
            "4.0.0",
            "Delete a key asynchronously in another thread. Otherwise it is just as DEL, but non blocking.",
        ),
];
