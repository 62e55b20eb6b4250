"""A client that is to be killed in the middle of a word.

Arguments: host, port, a number of connections, a file and a number of bytes. Connects so often, sends the file's bytes on
each connection as far as the server takes them at once, reads so many bytes, says that it is ready, and waits.
"""

import signal
import socket
import sys


def main():
    host, port, connections, file, to_read = sys.argv[1:]
    with open(file, "rb") as opened:
        message = opened.read()
    held = []
    for _ in range(int(connections)):
        connection = socket.create_connection((host, int(port)), timeout=10)
        connection.setblocking(False)
        sent = connection.send(message)
        assert sent > 0
        connection.settimeout(10)
        left = int(to_read)
        while left > 0:
            left -= len(connection.recv(left))
        held.append(connection)
    print("ready", flush=True)
    signal.pause()


main()
