#!/usr/bin/env python3
"""The configurations in deploy/proxies, each in the real proxy with a node behind it: TLS, every transport, the client's
address, and a restart of the node under which a client misses nothing.

    tests/deploy/proxies.py SIDEWIRE
"""

import http.server
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from node import PATIENCE, Node, Process, eventually, free_port  # noqa: E402

PROXIES = pathlib.Path(__file__).resolve().parents[2] / "deploy/proxies"
NAME = "events.example.com"
# nginx and HAProxy live where only root looks.
os.environ["PATH"] += ":/usr/sbin:/usr/local/sbin"
# Far below what a proxy that buffers would take, far above what one that does not takes.
AT_ONCE = 5


def configured(file, changes):
    """A shipped configuration with the test's addresses; each of them must have been there."""
    text = (PROXIES / file).read_text()
    for wanted, ours in changes.items():
        assert wanted in text, f"{file} has no {wanted!r}"
        text = text.replace(wanted, str(ours))
    return text


def certificate(directory):
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    words += ["-keyout", directory / "tls.key", "-out", directory / "tls.crt"]
    subprocess.run(words, check=True, capture_output=True)
    (directory / "tls.pem").write_text((directory / "tls.crt").read_text() + (directory / "tls.key").read_text())


def nginx(directory, port, upstream):
    changes = {"listen 443 ssl": f"listen 127.0.0.1:{port} ssl", "127.0.0.1:7080": upstream, "/etc/sidewire": directory}
    (directory / "sidewire.conf").write_text(configured("nginx.conf", changes))
    paths = "".join(f"{kind}_temp_path {directory}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (directory / "nginx.conf").write_text(
        f"daemon off; pid {directory}/nginx.pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {paths} include {directory}/sidewire.conf; }}\n"
    )
    words = ["nginx", "-p", directory, "-e", "stderr", "-c", directory / "nginx.conf"]
    return [*words, "-t"], words, None


def haproxy(directory, port, upstream):
    changes = {"bind :443": f"bind 127.0.0.1:{port}", "127.0.0.1:7080": upstream, "/etc/sidewire": directory}
    # As many connections as the limit of open files of the test machine has room for.
    changes["maxconn 100000"] = "maxconn 200"
    (directory / "haproxy.cfg").write_text(configured("haproxy.cfg", changes))
    words = ["haproxy", "-db", "-f", directory / "haproxy.cfg"]
    return [*words, "-c"], words, None


def caddy(directory, port, upstream):
    changes = {f"\n{NAME} {{": f"\n{NAME}:{port} {{\n\tbind 127.0.0.1", "127.0.0.1:7080": upstream, "/etc/sidewire": directory}
    changes["grace_period 10s"] = "grace_period 1s\n\tadmin off\n\tauto_https disable_redirects"
    (directory / "Caddyfile").write_text(configured("Caddyfile", changes))
    env = os.environ | {"HOME": str(directory), "XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
    words = ["caddy", "run", "--adapter", "caddyfile", "--config", directory / "Caddyfile"]
    return ["caddy", "validate", *words[2:]], words, env


class Edge:
    """A proxy as clients see it."""

    def __init__(self, directory, port):
        self.port = port
        self.trust = ssl.create_default_context(cafile=directory / "tls.crt")

    def connect(self, timeout=PATIENCE):
        stream = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        return self.trust.wrap_socket(stream, server_hostname=NAME)

    def request(self, path, *headers, timeout=PATIENCE):
        """Sends a request over a connection of its own, which is given back."""
        stream = self.connect(timeout)
        lines = [f"GET {path} HTTP/1.1", f"Host: {NAME}:{self.port}", *headers]
        stream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return stream

    def get(self, path, *headers):
        """Status and body of an answer that ends."""
        stream = self.request(path, *headers, "Connection: close")
        with stream:
            head, _, body = read_all(stream).partition(b"\r\n\r\n")
        status = int(head.split()[1])
        return status, unchunked(head, body)


def read_all(stream):
    seen = b""
    while piece := stream.recv(65536):
        seen += piece
    return seen


def unchunked(head, body):
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        size = int(size, 16)
        whole, body = whole + body[:size], body[size + 2 :]
    return whole


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


def check_transports(edge, node):
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    # A channel each: a proxy may notice late that a client has gone.
    for transport, headers in [("sse", ()), ("stream", ()), ("ws", upgrade)]:
        with edge.request(f"/v1/{transport}?channel={transport}", *headers) as stream:
            status = read_until(stream, rb"\r\n\r\n").split()[1]
            assert status == (b"101" if headers else b"200"), f"{transport}: {status}"
            # Only then is it certain that the client is there.
            eventually("a subscriber", lambda: f'"{transport}"'.encode() in fetch_channels(node))
            for number in range(3):
                node.publish(transport, {"mark": f"{transport}#{number}"})
                # While the stream is open: a proxy that buffers would keep it.
                read_until(stream, f"{transport}#{number}".encode(), AT_ONCE)
    status, body = edge.get("/v1/poll?channel=a&timeout=0")
    cursor = json.loads(body)["cursor"]
    later = threading.Timer(1, node.publish, ("a", "polled"))
    later.start()
    status, body = edge.get(f"/v1/poll?channel=a&timeout=30&cursor={cursor}")
    later.join()
    assert status == 200 and json.loads(body)["events"][0]["data"] == "polled", body
    assert edge.get("/elsewhere")[0] == 404, "only the client's API is passed on"


def fetch_channels(node):
    with urllib.request.urlopen(f"http://{node.app}/v1/channels", timeout=PATIENCE) as answer:
        return answer.read()


def check_restart(edge, node, restart):
    """An EventSource goes on from where it was, through two restarts of the node, and misses nothing."""
    numbers, last, ended, refused = [], "", threading.Event(), []

    def follow():
        nonlocal last
        while not ended.is_set():
            try:
                resume = [f"Last-Event-ID: {last}"] if last else []
                # So that the end of the answer is the end of the connection.
                with edge.request("/v1/sse?channel=n", "Connection: close", *resume) as stream:
                    seen = read_until(stream, rb"\r\n\r\n")
                    if not seen.startswith(b"HTTP/1.1 200"):
                        # An EventSource would give up here.
                        refused.append(seen)
                        return
                    while not ended.is_set():
                        stream.settimeout(0.2)
                        try:
                            piece = stream.recv(65536)
                        except TimeoutError:
                            continue
                        if not piece:
                            break
                        seen += piece
                        *whole, seen = seen.split(b"\n\n")
                        for item in whole:
                            data = re.search(rb"^data: ?(.*)$", item, re.M)
                            if not data or b'"type":"event"' not in data[1]:
                                continue
                            numbers.append(json.loads(data[1])["data"])
                            last = re.search(rb"^id: ?(.*)$", item, re.M)[1].decode()
            except (OSError, AssertionError):
                # A connection that is broken or closed without an answer: it comes back.
                time.sleep(0.05)

    reader = threading.Thread(target=follow)
    reader.start()
    try:
        eventually("a subscriber", lambda: b'"n"' in fetch_channels(node))
        for number in range(100):
            node.publish("n", number)
            if number in (30, 60):
                node = restart()
        eventually("all events", lambda: len(numbers) >= 100 or refused)
    finally:
        ended.set()
        reader.join()
    assert not refused, refused
    assert numbers == list(range(100)), f"missed or doubled: {numbers}"
    return node


def check_nobody(edge):
    """No node is there: no answer either, as an EventSource would take that for the last word."""
    try:
        with edge.request("/v1/sse?channel=n") as stream:
            answer = read_all(stream)
    except OSError:
        return
    assert answer == b"", answer


def check_address(start, directory):
    """What a node is told of the client's address: the true one, whatever the client says."""
    told = []

    class Upstream(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            told.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    try:
        with start(directory, f"127.0.0.1:{upstream.server_port}") as edge:
            status, _ = edge.get("/v1/poll", "X-Forwarded-For: 203.0.113.9", "Origin: https://app.example.com")
    finally:
        upstream.shutdown()
    assert status == 204 and told, status
    assert told[0]["x-forwarded-for"] == "127.0.0.1", told[0]
    assert told[0]["x-forwarded-proto"] == "https" and told[0]["host"].startswith(NAME), told[0]
    assert told[0]["origin"] == "https://app.example.com", told[0]


class Started:
    """A proxy that runs while the block lasts."""

    def __init__(self, proxy, directory, upstream):
        port = free_port()
        check, words, env = proxy(directory, port, upstream)
        done = subprocess.run([str(word) for word in check], capture_output=True, text=True, env=env)
        assert done.returncode == 0, f"{check}: {done.stdout}{done.stderr}"
        self.process = Process(*words, env=env)
        self.edge = Edge(directory, port)

    def __enter__(self):
        def up():
            assert self.process.child.poll() is None, self.process.said()
            self.edge.connect().close()
            return True

        eventually("the proxy listens", up)
        return self.edge

    def __exit__(self, *_):
        self.process.end()


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sidewire = sys.argv[1]
    for proxy in (nginx, haproxy, caddy):
        # The workers of a proxy may be another user.
        with tempfile.TemporaryDirectory() as directory:
            directory = pathlib.Path(directory)
            directory.chmod(0o755)
            certificate(directory)

            def start(directory, upstream, proxy=proxy):
                return Started(proxy, directory, upstream)

            check_address(start, directory)
            home = directory / "node"
            home.mkdir()
            client = f"127.0.0.1:{free_port()}"
            app = f"127.0.0.1:{free_port()}"
            config = '[client]\ndrain = "200ms"\n[bus]\nprobe_interval = "100ms"\n'

            def run():
                return Node(sidewire, config, directory=home, client=client, app=app)

            nodes = [run()]

            def restart():
                assert nodes[-1].end() == 0, nodes[-1].said()
                nodes.append(run())
                return nodes[-1]

            try:
                with start(directory, client) as edge:
                    check_transports(edge, nodes[-1])
                    check_restart(edge, nodes[-1], restart)
                    nodes[-1].end()
                    check_nobody(edge)
            finally:
                nodes[-1].end()
        print(f"proxy {proxy.__name__}: TLS, WebSocket, SSE, stream, long-poll, addresses, two restarts, no node")
    print("proxies passed: 3")


if __name__ == "__main__":
    main()
