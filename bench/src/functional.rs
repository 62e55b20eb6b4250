//! What any memcached has to do right, asked of a server through the client. memcached itself passes it, which is
//! what makes it a check of the daemon.

use anyhow::{Context, Result, ensure};

use crate::client::{Client, Store, Stored};

/// Bytes of the value that needs a reply of several datagrams.
const LARGE_BYTES: usize = 5_000;
/// Bytes appended at a time: with key and headers it fits any MTU.
const PIECE_BYTES: usize = 1_000;

/// A part of the check: what it is about, and what it does.
type Step = (&'static str, fn(&mut Client) -> Result<()>);

/// Stores, reads, changes and deletes items under keys of its own, and looks at every answer.
///
/// # Errors
/// The first thing that was wrong, in words.
pub fn check(client: &mut Client) -> Result<u64> {
    let mut checks = 0;
    let steps: [Step; 6] = [
        ("set, get, delete", set_get_delete),
        ("add, replace, append, prepend", conditional),
        ("cas", cas),
        ("incr, decr", counters),
        ("meta commands", meta),
        ("a reply of several datagrams", large),
    ];
    for (name, step) in steps {
        step(client).with_context(|| name.to_owned())?;
        checks += 1;
    }
    Ok(checks)
}

fn set_get_delete(client: &mut Client) -> Result<()> {
    let every_byte: Vec<u8> = (0..=255).collect();
    ensure!(client.store(Store::Set, "check:plain", 7, 0, &every_byte)? == Stored::Stored, "set");
    let item = client.get("check:plain")?.context("a stored item was not found")?;
    ensure!(item.value == every_byte, "the value came back changed");
    ensure!(item.flags == 7, "flags came back as {}", item.flags);
    client.set("check:plain", b"")?;
    let item = client.get("check:plain")?.context("an empty item was not found")?;
    ensure!(item.value.is_empty(), "an overwritten item kept its old value");
    ensure!(client.delete("check:plain")?, "delete did not find the item");
    ensure!(client.get("check:plain")?.is_none(), "a deleted item was still found");
    ensure!(!client.delete("check:plain")?, "a deleted item could be deleted again");
    Ok(())
}

fn conditional(client: &mut Client) -> Result<()> {
    let key = "check:conditional";
    client.delete(key)?;
    ensure!(client.store(Store::Replace, key, 0, 0, b"b")? == Stored::NotStored, "replace of nothing");
    ensure!(client.store(Store::Append, key, 0, 0, b"b")? == Stored::NotStored, "append to nothing");
    ensure!(client.store(Store::Add, key, 0, 0, b"b")? == Stored::Stored, "add");
    ensure!(client.store(Store::Add, key, 0, 0, b"x")? == Stored::NotStored, "add of what is there");
    ensure!(client.store(Store::Append, key, 0, 0, b"c")? == Stored::Stored, "append");
    ensure!(client.store(Store::Prepend, key, 0, 0, b"a")? == Stored::Stored, "prepend");
    let item = client.get(key)?.context("the item was not found")?;
    ensure!(item.value == b"abc", "append and prepend made {:?}", String::from_utf8_lossy(&item.value));
    ensure!(client.touch(key, 60)?, "touch did not find the item");
    Ok(())
}

fn cas(client: &mut Client) -> Result<()> {
    let key = "check:cas";
    client.delete(key)?;
    ensure!(client.store(Store::Cas(1), key, 0, 0, b"x")? == Stored::NotFound, "cas of nothing");
    client.set(key, b"first")?;
    let token = client.get(key)?.context("the item was not found")?.cas;
    ensure!(client.store(Store::Cas(token), key, 0, 0, b"second")? == Stored::Stored, "cas");
    ensure!(client.store(Store::Cas(token), key, 0, 0, b"third")? == Stored::Exists, "cas with an old token");
    let item = client.get(key)?.context("the item was not found")?;
    ensure!(item.value == b"second" && item.cas != token, "cas left {item:?}");
    Ok(())
}

fn counters(client: &mut Client) -> Result<()> {
    let key = "check:counter";
    client.delete(key)?;
    ensure!(client.incr(key, 1)?.is_none(), "incr of nothing");
    client.set(key, b"10")?;
    ensure!(client.incr(key, 5)? == Some(15), "10 + 5");
    ensure!(client.decr(key, 20)? == Some(0), "decr stops at 0");
    client.set(key, u64::MAX.to_string().as_bytes())?;
    ensure!(client.incr(key, 2)? == Some(1), "incr wraps at 2^64");
    Ok(())
}

fn meta(client: &mut Client) -> Result<()> {
    client.delete("check:meta")?;
    let mut expect = |request: &str, reply: &str| -> Result<()> {
        let answer = client.call(request.as_bytes())?;
        ensure!(
            answer == reply.as_bytes(),
            "{request:?} was answered {:?}",
            String::from_utf8_lossy(&answer)
        );
        Ok(())
    };
    expect("mn\r\n", "MN\r\n")?;
    expect("md check:meta\r\n", "NF\r\n")?;
    expect("mg check:meta v\r\n", "EN\r\n")?;
    expect("ms check:meta 5 F9\r\nhello\r\n", "HD\r\n")?;
    expect("mg check:meta s f v\r\n", "VA 5 s5 f9\r\nhello\r\n")?;
    expect("ms check:meta 2 MA\r\n!!\r\n", "HD\r\n")?;
    expect("mg check:meta k v Oopaque\r\n", "VA 7 kcheck:meta Oopaque\r\nhello!!\r\n")?;
    expect("md check:meta\r\n", "HD\r\n")?;
    expect("ma check:meta N0 J5 v\r\n", "VA 1\r\n5\r\n")?;
    expect("ma check:meta D10 v\r\n", "VA 2\r\n15\r\n")?;
    expect("md check:meta\r\n", "HD\r\n")
}

fn large(client: &mut Client) -> Result<()> {
    let key = "check:large";
    let value: Vec<u8> = (0..LARGE_BYTES).map(|index| (index % 251) as u8).collect();
    let mut pieces = value.chunks(PIECE_BYTES);
    client.set(key, pieces.next().unwrap_or_default())?;
    for piece in pieces {
        ensure!(client.store(Store::Append, key, 0, 0, piece)? == Stored::Stored, "append");
    }
    let item = client.get(key)?.context("the item was not found")?;
    ensure!(item.value == value, "a reply of several datagrams came back changed");
    ensure!(client.delete(key)?, "delete did not find the item");
    Ok(())
}
