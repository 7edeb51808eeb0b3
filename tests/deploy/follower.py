"""Clients that do what docs/protocol.md asks of clients: they remember their cursor, come back when their connection ends, and
resume."""

import json
import re
import struct
import threading
import time

from node import PATIENCE, eventually

# How soon a client comes back.
PAUSE = 0.05
TRANSPORTS = ("ws", "sse", "stream", "poll")


def upgrade():
    return (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )


def read_until(stream, wanted, seconds=PATIENCE):
    """All that came up to a match of `wanted`."""
    seen = b""
    deadline = time.monotonic() + seconds
    while not re.search(wanted, seen):
        stream.settimeout(max(0.01, deadline - time.monotonic()))
        piece = stream.recv(65536)
        assert piece, f"closed after {seen!r}"
        seen += piece
    return seen


def unchunked(head, body):
    return Body(head).add(body)


class Body:
    """The body of an answer that is read while it comes."""

    def __init__(self, head):
        self.chunked = b"transfer-encoding: chunked" in head.lower()
        self.seen = b""

    def add(self, piece):
        """What the piece adds to the content."""
        if not self.chunked:
            return piece
        self.seen += piece
        content = b""
        while (end := self.seen.find(b"\r\n")) >= 0:
            size = int(self.seen[:end], 16)
            if len(self.seen) < end + 2 + size + 2:
                break
            content += self.seen[end + 2 : end + 2 + size]
            self.seen = self.seen[end + 2 + size + 2 :]
        return content


class Follower:
    """A client of one channel on one transport, which notes the numbers that it is shown."""

    def __init__(self, edge, transport, channel):
        self.edge, self.transport, self.channel = edge, transport, channel
        self.numbers, self.cursor, self.connections = [], "", 0
        # What a client must not come back from, or may not be told here.
        self.refused = []
        self.connected = False
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        self.ended.set()
        self.thread.join()

    def sees(self, count):
        """Everything, once and in order."""
        eventually(f"all events on {self.transport}", lambda: len(self.numbers) >= count or self.refused)
        assert not self.refused, f"{self.transport}: {self.refused}"
        wrong = next((at for at, number in enumerate(self.numbers) if number != at), len(self.numbers))
        assert wrong == count, f"{self.transport} missed or doubled: {self.numbers[max(0, wrong - 5) : wrong + 5]}"

    def run(self):
        while not self.ended.is_set() and not self.refused:
            try:
                self.poll() if self.transport == "poll" else self.stream()
            except (OSError, AssertionError, ValueError, IndexError):
                # A connection that is broken, or closed without an answer or in the middle of one.
                pass
            self.ended.wait(PAUSE)

    def path(self, **more):
        query = {"channel": self.channel} | more
        if self.cursor and self.transport != "sse":
            query["cursor"] = self.cursor
        return f"/v1/{self.transport}?" + "&".join(f"{name}={value}" for name, value in query.items())

    def poll(self):
        # The first asks for the place to begin at.
        status, body = self.edge.get(self.path(timeout=2 if self.cursor else 0))
        if status == 503:
            # The node is going away.
            return
        if status != 200:
            self.refused.append((status, body))
            return
        answer = json.loads(body)
        self.resumed(answer.get("resume"))
        for event in answer["events"]:
            self.numbers.append(event["data"])
        self.cursor = answer["cursor"]
        self.connected = True

    def stream(self):
        if self.transport == "stream" and not self.cursor:
            # It tells no cursor before the first event or heartbeat: a poll that does not wait gives one.
            status, body = self.edge.get(f"/v1/poll?channel={self.channel}&timeout=0")
            assert status == 200, body
            self.cursor = json.loads(body)["cursor"]
        headers = upgrade() if self.transport == "ws" else ["Connection: close"]
        if self.transport == "sse" and self.cursor:
            headers.append(f"Last-Event-ID: {self.cursor}")
        with self.edge.request(self.path(), *headers) as stream:
            seen = read_until(stream, rb"\r\n\r\n")
            head, _, rest = seen.partition(b"\r\n\r\n")
            if head.split()[1] not in (b"200", b"101"):
                # An EventSource would give up here.
                self.refused.append(seen)
                return
            self.connections += 1
            self.connected |= self.transport == "stream"
            body = Body(head)
            take = self.frames if self.transport == "ws" else self.items
            left = take(body.add(rest))
            while not self.ended.is_set():
                stream.settimeout(0.2)
                try:
                    piece = stream.recv(65536)
                except TimeoutError:
                    continue
                if not piece:
                    return
                left = take(left + body.add(piece))

    def frames(self, seen):
        """Takes whole frames of a WebSocket; gives what is left."""
        while len(seen) >= 2:
            length, begin = seen[1] & 0x7F, 2
            if length == 126:
                length, begin = struct.unpack(">H", seen[2:4])[0] if len(seen) >= 4 else 1 << 40, 4
            elif length == 127:
                length, begin = struct.unpack(">Q", seen[2:10])[0] if len(seen) >= 10 else 1 << 40, 10
            if len(seen) < begin + length:
                return seen
            if seen[0] & 0x0F == 1:
                self.message(json.loads(seen[begin : begin + length]))
            seen = seen[begin + length :]
        return seen

    def items(self, seen):
        """Takes whole messages of SSE, or whole lines; gives what is left."""
        end = b"\n\n" if self.transport == "sse" else b"\n"
        *whole, seen = seen.split(end)
        for item in whole:
            found = re.search(rb"^data: ?(\{.*)$" if self.transport == "sse" else rb"^(\{.*)$", item, re.M)
            if found:
                self.message(json.loads(found[1]))
            if self.transport == "sse" and (last := re.search(rb"^id: ?(.*)$", item, re.M)):
                self.cursor, self.connected = last[1].decode(), True
        return seen

    def message(self, message):
        kind = message.get("type")
        if kind == "event":
            self.numbers.append(message["data"])
        elif kind == "subscribed":
            self.connected = True
        if "resume" in message:
            self.resumed(message["resume"])
        if self.transport != "sse" and message.get("cursor"):
            self.cursor = message["cursor"]

    def resumed(self, word):
        if word not in (None, "none", "ok"):
            self.refused.append(f"resume is {word}")
