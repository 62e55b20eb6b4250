"""pymemcache's ordinary calls. Arguments: host and port of the server."""

import sys
import threading

from answers import expect, expect_error, expect_within
from pymemcache import exceptions
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient

LARGE = bytes(range(256)) * 4000


def stores(client, name):
    """Every call that stores or reads, answered or (`noreply`) not."""
    for noreply in (False, True):
        label = f"{name} {'unanswered' if noreply else 'answered'}"
        quiet = {"noreply": noreply}
        client.flush_all(noreply=False)
        expect(f"{label} set", client.set("key", b"value", **quiet), True)
        expect(f"{label} get", client.get("key"), b"value")
        expect(f"{label} get of nothing", client.get("absent"), None)
        expect(f"{label} get with a default", client.get("absent", b"other"), b"other")
        # Unanswered, a client takes any of these for done; what there is afterwards tells.
        expect(f"{label} add of what is there", client.add("key", b"more", **quiet), noreply)
        expect(f"{label} get after add", client.get("key"), b"value")
        expect(f"{label} add", client.add("added", b"a", **quiet), True)
        expect(f"{label} get of the added", client.get("added"), b"a")
        expect(f"{label} replace of nothing", client.replace("absent", b"r", **quiet), noreply)
        expect(f"{label} get after replace of nothing", client.get("absent"), None)
        expect(f"{label} replace", client.replace("key", b"middle", **quiet), True)
        expect(f"{label} append", client.append("key", b">", **quiet), True)
        expect(f"{label} prepend", client.prepend("key", b"<", **quiet), True)
        expect(f"{label} get after all three", client.get("key"), b"<middle>")
        expect(f"{label} append to nothing", client.append("absent", b">", **quiet), noreply)

        many = {f"many-{number}": b"%d" % (number * number) for number in range(200)}
        expect(f"{label} set_many", client.set_many(many, **quiet), [])
        expect(f"{label} get_many", client.get_many(list(many) + ["absent"]), many)
        expect(f"{label} delete_many", client.delete_many(list(many)[:100], **quiet), True)
        left = dict(list(many.items())[100:])
        expect(f"{label} get_many of the rest", client.get_many(list(many)), left)

        client.set("number", b"5", noreply=False)
        client.incr("number", 4, noreply=noreply)
        expect(f"{label} number after incr", client.get("number"), b"9")
        client.decr("number", 20, noreply=noreply)
        expect(f"{label} number after decr", client.get("number"), b"0")

        expect(f"{label} touch", client.touch("key", 100, **quiet), True)
        expect(f"{label} touch of nothing", client.touch("absent", 100, **quiet), noreply)
        expect(f"{label} set that has expired", client.set("old", b"o", expire=-1, **quiet), True)
        expect(f"{label} get of the expired", client.get("old"), None)
        expect(f"{label} delete", client.delete("key", **quiet), True)
        expect(f"{label} delete of nothing", client.delete("key", **quiet), noreply)
        expect(f"{label} get of the deleted", client.get("key"), None)

        expect(f"{label} set of a large value", client.set("large", LARGE, **quiet), True)
        expect(f"{label} get of it", client.get("large") == LARGE, True)
        expect(f"{label} set of an empty value", client.set("empty", b"", **quiet), True)
        expect(f"{label} get of it", client.get("empty"), b"")
        expect(f"{label} flush_all", client.flush_all(**quiet), None if isinstance(client, HashClient) else True)
        expect(f"{label} get after flush_all", client.get("added"), None)


def versions(client, name):
    """Check and set."""
    client.set("key", b"first", noreply=False)
    value, token = client.gets("key")
    expect(f"{name} gets", value, b"first")
    expect(f"{name} cas", client.cas("key", b"second", token), True)
    expect(f"{name} cas again", client.cas("key", b"third", token), False)
    expect(f"{name} get after cas", client.get("key"), b"second")
    expect(f"{name} cas of nothing", client.cas("absent", b"x", token), None)
    found = client.gets_many(["key", "absent"])
    expect(f"{name} gets_many", {key: value for key, (value, _) in found.items()}, {"key": b"second"})


def only_answered(client):
    """What has no unanswered form, and what is refused."""
    client.set("number", b"41", noreply=False)
    expect("incr", client.incr("number", 1), 42)
    expect("decr", client.decr("number", 2), 40)
    expect("incr of nothing", client.incr("absent", 1), None)
    client.set("word", b"forty", noreply=False)
    expect_error("incr of a word", exceptions.MemcacheClientError, "b'cannot increment", lambda: client.incr("word", 1))
    expect("connection after an error", client.get("word"), b"forty")
    too_large = bytes(2 << 20)
    expect_error("set beyond the limit", exceptions.MemcacheServerError, "b'object too large",
                 lambda: client.set("huge", too_large, noreply=False))
    expect("connection after that", client.get("word"), b"forty")
    expect_error("a key with a space", exceptions.MemcacheIllegalInputError, "Key contains whitespace",
                 lambda: client.get("a b"))
    expect("version", client.version().startswith(b"1.6."), True)
    statistics = client.stats()
    expect("stats", {b"pid", b"uptime", b"curr_items", b"cmd_get", b"get_hits"} <= set(statistics), True)
    expect_within("stats curr_items", statistics[b"curr_items"], 2, 1_000)
    expect("stats settings", b"item_size_max" in client.stats("settings"), True)
    client["subscript"] = b"s"
    expect("subscript", client["subscript"], b"s")
    del client["subscript"]
    expect("subscript after del", client.get("subscript"), None)
    expect("flags", (client.set("flagged", b"f", flags=77, noreply=False), client.get("flagged")), (True, b"f"))


def shared(client):
    """One pool, several threads, each with keys of its own."""
    wrong = []

    def work(thread):
        for number in range(200):
            key, value = f"thread-{thread}-{number}", b"%d-%d" % (thread, number)
            client.set(key, value, noreply=False)
            if client.get(key) != value:
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect("wrong among threads", wrong, [])


def main():
    server = (sys.argv[1], int(sys.argv[2]))
    limits = {"connect_timeout": 10, "timeout": 10, "no_delay": True}
    plain = Client(server, **limits)
    stores(plain, "Client")
    versions(plain, "Client")
    only_answered(plain)
    plain.quit()
    pooled = PooledClient(server, max_pool_size=4, **limits)
    stores(pooled, "PooledClient")
    versions(pooled, "PooledClient")
    shared(pooled)
    pooled.close()
    hashed = HashClient([server], use_pooling=True, max_pool_size=4, **limits)
    stores(hashed, "HashClient")
    versions(hashed, "HashClient")
    shared(hashed)
    hashed.close()
    print("done")


main()
