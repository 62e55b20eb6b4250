"""What redis-py can ask and is not served. Arguments: host and port of the server."""

import sys

import redis
from answers import expect, expect_error


def main():
    client = redis.Redis(host=sys.argv[1], port=int(sys.argv[2]), socket_timeout=10)
    client.set("key", "value")

    def refused(name, call):
        expect_error(name, redis.ResponseError, f"unknown command '{name}', with args beginning with:", call)
        expect(f"connection after {name}", client.get("key"), b"value")

    refused("LPUSH", lambda: client.lpush("list", "a", "b"))
    refused("LRANGE", lambda: client.lrange("list", 0, -1))
    refused("HSET", lambda: client.hset("hash", "field", "value"))
    refused("HGETALL", lambda: client.hgetall("hash"))
    refused("SADD", lambda: client.sadd("set", "member"))
    refused("ZADD", lambda: client.zadd("sorted", {"member": 1}))
    refused("XADD", lambda: client.xadd("stream", {"field": "value"}))
    refused("PUBLISH", lambda: client.publish("channel", "message"))
    refused("WATCH", lambda: client.pipeline().watch("key"))
    refused("EVAL", lambda: client.eval("return 1", 0))
    refused("SETBIT", lambda: client.setbit("key", 7, 1))

    pipeline = client.pipeline(transaction=True)
    pipeline.set("inside", "a transaction").get("inside")
    expect_error("a transaction", redis.ResponseError, "", pipeline.execute)
    expect("connection after it", client.get("key"), b"value")
    print("done")


main()
