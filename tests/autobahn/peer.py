"""The client that the cases drive: over a plain socket, and able to break every rule."""

import asyncio
import base64
import os
import struct
import types
import urllib.parse

from suite import as_bytes, as_text

CLOSE, PING, PONG = 8, 9, 10


class Peer:
    """What the cases call their protocol. Its public names are Autobahn's."""

    CLOSE_STATUS_CODE_NORMAL = 1000
    CLOSE_STATUS_CODE_PROTOCOL_ERROR = 1002
    CLOSE_STATUS_CODE_INVALID_PAYLOAD = 1007
    STATE_CLOSED, STATE_CLOSING, STATE_OPEN = 0, 2, 3
    factory = types.SimpleNamespace(isServer=False)
    trafficStats = None

    def __init__(self):
        self.connectionWasOpen = self.wasClean = False
        self.closedByMe = self.failedByMe = self.droppedByMe = False
        self.createWirelog = True
        self.remoteCloseCode = self.localCloseReason = None
        self.state = self.STATE_OPEN
        self.autoFragmentSize = 0
        self.txFrameStats = {}
        self.timers = []
        self.outgoing = asyncio.Queue()
        self.case = None

    async def run(self, url, case_class):
        """Plays one case to the end of the connection and returns it, judged."""
        address = urllib.parse.urlparse(url)
        self.case = case_class(self)
        reader, self.writer = await asyncio.open_connection(address.hostname, address.port)
        key = base64.b64encode(os.urandom(16)).decode()
        self.writer.write(
            f"GET {address.path or '/'} HTTP/1.1\r\nHost: {address.netloc}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self.writing = asyncio.create_task(self.write())
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert b" 101 " in head.split(b"\r\n")[0], head
            self.connectionWasOpen = True
            self.case.onOpen()
            await asyncio.wait_for(self.read(reader), 120)
        except (asyncio.IncompleteReadError, OSError, asyncio.TimeoutError, RuntimeError):
            pass  # The end of the connection: the case knows whether it was the right one.
        self.state = self.STATE_CLOSED
        for timer in self.timers:
            timer.cancel()
        self.writing.cancel()
        self.writer.close()
        self.case.onConnectionLost(self.failedByMe)
        return self.case

    async def write(self):
        try:
            while True:
                data, chop = await self.outgoing.get()
                chop = chop or len(data) or 1
                for start in range(0, len(data), chop):
                    self.writer.write(data[start : start + chop])
                    await self.writer.drain()
                self.outgoing.task_done()
        except (OSError, RuntimeError):
            pass

    async def read(self, reader):
        opcode, fragments = None, []
        while True:
            first, second = await reader.readexactly(2)
            length = second & 127
            if length == 126:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await reader.readexactly(8))
            payload, frame_opcode = await reader.readexactly(length), first & 15
            if first & 0x70 or second & 128 or frame_opcode not in (0, 1, 2, CLOSE, PING, PONG):
                self.fail()
                return
            if frame_opcode == CLOSE:
                await self.take_close(payload)
                continue
            if self.state == self.STATE_CLOSED:
                return
            if frame_opcode == PING:
                self.case.onPing(as_text(payload))
                continue
            if frame_opcode == PONG:
                self.case.onPong(as_text(payload))
                continue
            opcode = frame_opcode or opcode
            fragments.append(payload)
            if first & 128:
                message, fragments = b"".join(fragments), []
                self.case.onMessage(as_text(message), opcode == 2)

    async def take_close(self, payload):
        self.remoteCloseCode = struct.unpack("!H", payload[:2])[0] if len(payload) > 1 else None
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(self.remoteCloseCode, isReply=True)
            # The reply is out, or nothing can be sent any more, before the case goes on.
            sent = asyncio.create_task(self.outgoing.join())
            await asyncio.wait([sent, self.writing], return_when=asyncio.FIRST_COMPLETED)
            sent.cancel()
        self.wasClean = True
        self.case.onClose(True, self.remoteCloseCode, as_text(payload[2:]))
        self.later(1.0, self.drop)

    # What the cases call.

    def enableWirelog(self, on):
        pass

    def continueLater(self, delay, action, tag=None):
        self.later(delay, action)

    def killAfter(self, delay):
        self.later(delay, self.fail)

    def closeAfter(self, delay):
        self.later(delay, self.sendClose)

    def later(self, delay, action):
        loop = asyncio.get_running_loop()
        self.timers.append(loop.call_later(delay, lambda: self.state != self.STATE_CLOSED and action()))

    def fail(self):
        self.failedByMe = True
        self.wasClean = False
        self.drop()

    def drop(self):
        self.droppedByMe = True
        self.state = self.STATE_CLOSED
        self.writer.transport.abort()

    def sendFrame(
        self, opcode, payload=b"", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False
    ):
        payload = as_bytes(payload)
        if payload_len is not None:
            payload = (payload * (payload_len // max(len(payload), 1) + 1))[:payload_len]
        self.txFrameStats[opcode] = self.txFrameStats.get(opcode, 0) + 1
        key = os.urandom(4)
        self.put(header(opcode, len(payload), fin, rsv, key) + xor(payload, key), chopsize)

    def sendMessage(self, payload, isBinary=False, **ignored):
        payload = as_bytes(payload)
        size = self.autoFragmentSize or max(len(payload), 1)
        fragments = [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]
        for index, fragment in enumerate(fragments):
            opcode = 0 if index else 2 if isBinary else 1
            self.sendFrame(opcode, fragment, index == len(fragments) - 1)

    def beginMessage(self, *ignored, **also_ignored):
        self.is_first_frame = True

    def beginMessageFrame(self, length):
        self.key, self.offset = os.urandom(4), 0
        self.put(header(1 if self.is_first_frame else 0, length, False, 0, self.key))
        self.is_first_frame = False

    def sendMessageFrameData(self, payload, sync=False):
        payload, turn = as_bytes(payload), self.offset % 4
        self.offset += len(payload)
        self.put(xor(payload, self.key[turn:] + self.key[:turn]))

    def endMessage(self):
        self.sendFrame(0, b"", True)

    def sendClose(self, code=None, reason=None):
        self.sendCloseFrame(code, reason)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        if self.state != self.STATE_OPEN:
            return
        payload = struct.pack("!H", code) if code is not None else b""
        self.sendFrame(CLOSE, payload + as_bytes(reasonUtf8 or b""))
        self.state = self.STATE_CLOSING
        self.closedByMe = not isReply
        if not isReply:
            self.later(2, self.drop)

    def put(self, data, chop=None):
        self.outgoing.put_nowait((data, chop))


def header(opcode, length, fin, reserved, key):
    first = (128 if fin else 0) | (reserved % 8) << 4 | opcode
    if length < 126:
        return bytes([first, 128 | length]) + key
    if length < 65536:
        return bytes([first, 254]) + struct.pack("!H", length) + key
    return bytes([first, 255]) + struct.pack("!Q", length) + key


def xor(payload, key):
    if not payload:
        return b""
    keys = (key * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")
    return masked.to_bytes(len(payload), "big")
