"""redis-py's ordinary calls. Arguments: host and port of the server."""

import sys
import threading
import time

import redis
from answers import expect, expect_error, expect_within

LARGE = bytes(range(256)) * 4000
EVERY_BYTE = bytes(range(256))
DAY_S = 86_400


def connection(client):
    expect("ping", client.ping(), True)
    expect("echo", client.echo("said"), b"said")
    expect("client_setname", client.client_setname("tester"), True)
    expect("client_getname", client.client_getname(), "tester")
    expect_within("client_id", client.client_id(), 1, 1 << 62)
    expect("client_list", "tester" in [one["name"] for one in client.client_list()], True)
    expect("info", client.info()["redis_version"].startswith("7.0."), True)
    expect("config_get", client.config_get("databases"), {"databases": "1"})
    expect("flushdb", client.flushdb(), True)
    expect("dbsize of nothing", client.dbsize(), 0)


def strings(client):
    expect("set", client.set("key", "value"), True)
    expect("get", client.get("key"), b"value")
    expect("get of nothing", client.get("absent"), None)
    expect("set nx of what is there", client.set("key", "x", nx=True), None)
    expect("set xx of nothing", client.set("absent", "x", xx=True), None)
    expect("set xx", client.set("key", "second", xx=True), True)
    expect("set get", client.set("key", "third", get=True), b"second")
    expect("setnx", client.setnx("key", "x"), False)
    expect("setnx of nothing", client.setnx("fresh", "x"), True)
    expect("getset", client.getset("key", "fourth"), b"third")
    expect("append", client.append("key", "!"), 7)
    expect("strlen", client.strlen("key"), 7)
    expect("getrange", client.getrange("key", 1, -2), b"ourth")
    expect("setrange", client.setrange("key", 10, "far"), 13)
    expect("get of what setrange left", client.get("key"), b"fourth!\x00\x00\x00far")
    expect("getdel", client.getdel("fresh"), b"x")
    expect("getdel of nothing", client.getdel("fresh"), None)
    expect("bytes", (client.set(EVERY_BYTE[:250], EVERY_BYTE), client.get(EVERY_BYTE[:250])), (True, EVERY_BYTE))
    expect("empty value", (client.set("empty", b""), client.get("empty")), (True, b""))
    expect("large value", (client.set("large", LARGE), client.get("large") == LARGE), (True, True))
    expect("mset", client.mset({f"m{number}": number for number in range(300)}), True)
    expect("mget", client.mget([f"m{number}" for number in range(300)] + ["absent"]),
           [b"%d" % number for number in range(300)] + [None])
    expect("msetnx", client.msetnx({"m1": 0, "unheard": 0}), False)
    expect("exists after msetnx", client.exists("unheard"), 0)
    client["subscript"] = "s"
    expect("subscript", (client["subscript"], "subscript" in client), (b"s", True))
    del client["subscript"]
    expect("subscript after del", "subscript" in client, False)


def numbers(client):
    expect("incr", client.incr("counter"), 1)
    expect("incrby", client.incrby("counter", 41), 42)
    expect("decr", client.decr("counter"), 41)
    expect("decrby", client.decrby("counter", 50), -9)
    expect("incrbyfloat", client.incrbyfloat("counter", 0.5), -8.5)
    client.set("word", "forty")
    expect_error("incr of a word", redis.ResponseError, "value is not an integer or out of range",
                 lambda: client.incr("word"))
    client.set("edge", (1 << 63) - 1)
    expect_error("incr beyond", redis.ResponseError, "increment or decrement would overflow", lambda: client.incr("edge"))


def keys(client):
    expect("delete", client.delete("m1", "m2", "absent"), 2)
    expect("unlink", client.unlink("m3", "absent"), 1)
    expect("exists", client.exists("m4", "m5", "m4", "absent"), 3)
    expect("touch", client.touch("m4", "absent"), 1)
    expect("type", (client.type("m4"), client.type("absent")), (b"string", b"none"))
    expect("rename", (client.rename("m4", "moved"), client.get("moved")), (True, b"4"))
    expect("renamenx", client.renamenx("moved", "m5"), False)
    expect_error("rename of nothing", redis.ResponseError, "no such key", lambda: client.rename("absent", "x"))
    expect("randomkey", client.exists(client.randomkey()), 1)
    client.flushdb()
    client.mset({f"item:{number}": number for number in range(1_000)})
    client.mset({f"other:{number}": number for number in range(100)})
    wanted = sorted(b"item:%d" % number for number in range(1_000))
    expect("scan_iter", sorted(set(client.scan_iter(match="item:*", count=50))), wanted)
    expect("scan_iter of all", len(set(client.scan_iter())), 1_100)
    expect("keys", sorted(client.keys("other:?")), sorted(b"other:%d" % number for number in range(10)))
    expect("dbsize", client.dbsize(), 1_100)
    expect("flushall", (client.flushall(), client.dbsize(), list(client.scan_iter()), client.keys()), (True, 0, [], []))


def expiry(client):
    now = int(time.time())
    client.set("key", "value")
    expect("ttl of no expiry", (client.ttl("key"), client.ttl("absent"), client.pttl("key")), (-1, -2, -1))
    expect("expire", (client.expire("key", DAY_S), client.expire("absent", DAY_S)), (True, False))
    expect_within("ttl", client.ttl("key"), DAY_S - 20, DAY_S)
    expect("pexpire", client.pexpire("key", 60_000), True)
    expect_within("pttl", client.pttl("key"), 40_000, 60_000)
    expect("expireat", client.expireat("key", now + DAY_S), True)
    expect_within("ttl after expireat", client.ttl("key"), DAY_S - 20, DAY_S)
    expect("pexpireat", client.pexpireat("key", (now + DAY_S) * 1000), True)
    expect("persist", (client.persist("key"), client.persist("key"), client.ttl("key")), (True, False, -1))
    expect("setex", client.setex("short", DAY_S, "s"), True)
    expect("psetex", client.psetex("shorter", 60_000, "p"), True)
    expect_within("ttl after setex", client.ttl("short"), DAY_S - 20, DAY_S)
    expect("set keepttl", client.set("short", "kept", keepttl=True), True)
    expect_within("ttl kept", client.ttl("short"), DAY_S - 20, DAY_S)
    expect("set without", (client.set("short", "s"), client.ttl("short")), (True, -1))
    expect("getex ex", client.getex("short", ex=DAY_S), b"s")
    expect_within("ttl after getex", client.ttl("short"), DAY_S - 20, DAY_S)
    expect("getex persist", (client.getex("short", persist=True), client.ttl("short")), (b"s", -1))
    expect("set ex, px", (client.set("a", "1", ex=DAY_S), client.set("b", "2", px=60_000)), (True, True))
    expect("set exat, pxat",
           (client.set("c", "3", exat=now + DAY_S), client.set("d", "4", pxat=(now + DAY_S) * 1000)), (True, True))
    expect_within("ttl after exat", client.ttl("c"), DAY_S - 20, DAY_S)
    expect("set px of a moment", client.set("gone", "g", px=1), True)
    deadline = time.monotonic() + 10
    while client.exists("gone") and time.monotonic() < deadline:
        pass
    expect("get of what has expired", client.get("gone"), None)
    expect_error("expiry of 0", redis.ResponseError, "invalid expire time in 'set' command",
                 lambda: client.set("key", "v", ex=0))


def pipelines(client):
    pipeline = client.pipeline(transaction=False)
    for number in range(2_000):
        pipeline.set(f"p{number}", number).get(f"p{number}")
    answers = pipeline.execute()
    expect("pipeline of 4000", answers == [one for n in range(2_000) for one in (True, b"%d" % n)], True)
    pipeline.set("word", "w").incr("word").get("word")
    answers = pipeline.execute(raise_on_error=False)
    expect("pipeline with an error", (answers[0], str(answers[1]), answers[2]),
           (True, "value is not an integer or out of range", b"w"))
    # More than any buffer on the way holds, both ways.
    for number in range(40):
        pipeline.set(f"large{number}", LARGE)
    expect("pipeline of large values", pipeline.execute(), [True] * 40)
    for number in range(16):
        pipeline.get(f"large{number + 24}")
    expect("pipeline of large replies", pipeline.execute() == [LARGE] * 16, True)


def pools(host, port):
    """One pool, several threads; and replies as text."""
    pool = redis.ConnectionPool(host=host, port=port, max_connections=8, socket_timeout=10, client_name="pooled")
    client = redis.Redis(connection_pool=pool)
    wrong = []

    def work(thread):
        for number in range(200):
            key, value = f"thread-{thread}-{number}", b"%d-%d" % (thread, number)
            client.set(key, value)
            if client.get(key) != value:
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect("wrong among threads", wrong, [])
    expect("name that a pool gives", client.client_getname(), "pooled")
    pool.disconnect()
    text = redis.Redis(host=host, port=port, decode_responses=True, socket_timeout=10)
    expect("text", (text.set("text", "gr\u00fc\u00df"), text.get("text"), text.mget("text", "absent")),
           (True, "gr\u00fc\u00df", ["gr\u00fc\u00df", None]))
    with text.client() as single:
        expect("one connection of its own", single.get("text"), "gr\u00fc\u00df")
    url = redis.from_url(f"redis://{host}:{port}/0", socket_timeout=10)
    expect("by URL", url.get("text"), "gr\u00fc\u00df".encode())


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    client = redis.Redis(host=host, port=port, socket_timeout=10)
    for part in (connection, strings, numbers, keys, expiry, pipelines):
        part(client)
    client.close()
    pools(host, port)
    print("done")


main()
