#!/usr/bin/env python3
"""The configurations in deploy/proxies, each in the real proxy. With a node behind it: TLS, every transport, the client's
address, and a restart of the node under which a client misses nothing. With three nodes on Redis: one after the other is
restarted, and no client on any transport misses an event or gets one twice.

    tests/deploy/proxies.py SIDEWIRE
"""

import collections
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
from follower import TRANSPORTS, Follower, read_until, unchunked, upgrade  # noqa: E402
from node import PATIENCE, Node, Process, eventually, fetch, free_port  # noqa: E402

PROXIES = pathlib.Path(__file__).resolve().parents[2] / "deploy/proxies"
NAME = "events.example.com"
# nginx and HAProxy live where only root looks.
os.environ["PATH"] += ":/usr/sbin:/usr/local/sbin"
# Far below what a proxy that buffers would take, far above what one that does not takes.
AT_ONCE = 5


def configured(file, upstreams, changes):
    """A shipped configuration with the test's addresses; each of them must have been there. `upstreams` are client
    listeners; lines of nodes that the test does not have go."""
    text = (PROXIES / file).read_text()
    for number in (1, 2, 3):
        place = f"10.0.0.{number}:7080"
        assert place in text, f"{file} has no {place}"
        if number <= len(upstreams):
            text = text.replace(place, upstreams[number - 1])
        else:
            text = "".join(line for line in text.splitlines(keepends=True) if place not in line)
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


def nginx(directory, port, upstreams, _admin):
    changes = {"listen 443 ssl": f"listen 127.0.0.1:{port} ssl", "/etc/sidewire": directory}
    (directory / "sidewire.conf").write_text(configured("nginx.conf", upstreams, changes))
    paths = "".join(f"{kind}_temp_path {directory}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (directory / "nginx.conf").write_text(
        f"daemon off; pid {directory}/nginx.pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {paths} include {directory}/sidewire.conf; }}\n"
    )
    words = ["nginx", "-p", directory, "-e", "stderr", "-c", directory / "nginx.conf"]
    return [*words, "-t"], words, None


def haproxy(directory, port, upstreams, admin):
    changes = {"bind :443": f"bind 127.0.0.1:{port}", "port 7090": f"port {admin}", "/etc/sidewire": directory}
    # As many connections as the limit of open files of the test machine has room for.
    changes["maxconn 100000"] = "maxconn 200"
    (directory / "haproxy.cfg").write_text(configured("haproxy.cfg", upstreams, changes))
    words = ["haproxy", "-db", "-f", directory / "haproxy.cfg"]
    return [*words, "-c"], words, None


def caddy(directory, port, upstreams, _admin):
    changes = {f"\n{NAME} {{": f"\n{NAME}:{port} {{\n\tbind 127.0.0.1", "/etc/sidewire": directory}
    changes["grace_period 10s"] = "grace_period 1s\n\tadmin off\n\tauto_https disable_redirects"
    (directory / "Caddyfile").write_text(configured("Caddyfile", upstreams, changes))
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

    def post(self, path, body):
        """All of the answer, which may be nothing."""
        with self.connect() as stream:
            head = [f"POST {path} HTTP/1.1", f"Host: {NAME}:{self.port}", "Content-Type: application/json"]
            head += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
            stream.sendall("\r\n".join(head).encode() + body)
            try:
                return read_all(stream)
            except OSError:
                return b""


def read_all(stream):
    seen = b""
    while piece := stream.recv(65536):
        seen += piece
    return seen


def check_transports(edge, node):
    # A channel each: a proxy may notice late that a client has gone.
    for transport, headers in [("sse", ()), ("stream", ()), ("ws", upgrade())]:
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
    with Follower(edge, "sse", "n") as client:
        eventually("a subscriber", lambda: b'"n"' in fetch_channels(node))
        for number in range(100):
            node.publish("n", number)
            if number in (30, 60):
                node = restart()
        client.sees(100)
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
        with start(directory, [f"127.0.0.1:{upstream.server_port}"]) as edge:
            status, _ = edge.get("/v1/poll", "X-Forwarded-For: 203.0.113.9", "Origin: https://app.example.com")
    finally:
        upstream.shutdown()
    assert status == 204 and told, status
    assert told[0]["x-forwarded-for"] == "127.0.0.1", told[0]
    assert told[0]["x-forwarded-proto"] == "https" and told[0]["host"].startswith(NAME), told[0]
    assert told[0]["origin"] == "https://app.example.com", told[0]


class Closing:
    """A node that is just stopping: it closes each connection when the request has come, as if the two had crossed."""

    def __init__(self):
        # By method.
        self.met = collections.Counter()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            with stream:
                request = b""
                while b"\r\n\r\n" not in request and (piece := stream.recv(65536)):
                    request += piece
                self.met[request.split(b" ")[0].decode()] += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Wakes who waits in `accept`, which closing alone does not.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def check_crossed_request(start, directory, client):
    """A request that met a closing connection goes to the next node, unless it is one that may not be sent twice."""
    with Closing() as closing, start(directory, [closing.address, client]) as edge:

        def poll():
            polled.append(edge.get("/v1/poll?channel=a&timeout=0"))
            return closing.met["GET"] >= 2

        def publish():
            published.append(edge.post("/v1/publish", b'{"channel":"a","data":1}'))
            return closing.met["POST"] >= 1

        polled, published = [], []
        eventually("a GET meets the closing node", poll)
        assert all(status == 200 for status, _ in polled), polled
        eventually("a POST meets the closing node", publish)
        # The other node is one on which clients do not publish.
        answered = [answer for answer in published if answer]
        assert all(answer.split()[1] == b"403" for answer in answered), answered
        assert len(published) - len(answered) == closing.met["POST"], f"sent again: {published}"


def check_rolling_restart(start, directory, sidewire):
    """Three nodes on one bus: each is stopped and started again once the one before is ready, twice, while events are
    published at all of them and clients on every transport follow."""
    redis_port, client, app, admin = (free_port() for _ in range(4))
    config = f"""
[client]
drain = "500ms"
[bus]
url = "redis://127.0.0.1:{redis_port}"
# What is published at two nodes in turn has one order only while the bus answers, and on a busy machine it takes its time.
probe_interval = "5s"
hedge = "20s"
publish_timeout = "20s"
"""
    words = ["redis-server", "--port", redis_port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory]
    with Process(*words) as redis:
        eventually("Redis listens", lambda: "Ready to accept connections" in redis.said())

        def run(number):
            home = directory / f"node{number}"
            home.mkdir(exist_ok=True)
            at = f"127.0.0.{number + 1}"
            return Node(sidewire, config, directory=home, client=f"{at}:{client}", app=f"{at}:{app}", admin=f"{at}:{admin}")

        nodes = [run(number) for number in range(3)]
        followers = []
        published, stopped, failed = 0, threading.Event(), []

        def publish():
            nonlocal published
            try:
                while not stopped.is_set():
                    # Any node that takes it; the id makes one event of what is tried again.
                    eventually("a publish", lambda: publish_once(nodes[published % 3], published))
                    published += 1
            except SystemExit as error:
                failed.append(error)

        publisher = threading.Thread(target=publish)
        try:
            with start(directory, [node.client for node in nodes], admin=admin) as edge:
                followers = [Follower(edge, transport, "rolling") for transport in TRANSPORTS for _ in range(3)]
                eventually("all are connected", lambda: all(follower.connected for follower in followers))
                publisher.start()
                for number in [0, 1, 2, 0, 1, 2]:
                    assert nodes[number].end() == 0, nodes[number].said()
                    # It is back only when it is ready.
                    nodes[number] = run(number)
                stopped.set()
                publisher.join()
                assert not failed, failed
                for follower in followers:
                    follower.sees(published)
                for follower in followers:
                    if follower.transport != "poll":
                        assert follower.connections > 1, f"{follower.transport} was never at a node that was restarted"
                # Without a bus no node is ready, and clients are served all the same, also once every check has failed.
                redis.end()
                eventually("no node is ready", lambda: all(fetch(f"http://{node.admin}/readyz")[0] == 503 for node in nodes))
                # The proxies' own clocks are what passes here: one checks every 500 ms, the others forget a failure after 1 s.
                until = time.monotonic() + 2
                while time.monotonic() < until:
                    status, body = edge.get("/v1/poll?channel=rolling&timeout=0")
                    assert status == 200, f"without a bus: {status} {body}"
                    time.sleep(0.1)
        finally:
            stopped.set()
            if publisher.is_alive():
                publisher.join()
            for follower in followers:
                follower.end()
            for node in nodes:
                node.end()
    assert published > 100, f"{published} events are too few to tell"
    print(f"rolling restart: {published} events to {len(followers)} clients through six restarts")


def publish_once(node, number):
    body = json.dumps({"channel": "rolling", "data": number, "id": f"rolling-{number}"}).encode()
    status, answer = fetch(f"http://{node.app}/v1/publish", body, {"Content-Type": "application/json"})
    if status == 202:
        raise SystemExit(f"the bus was too slow for this test: {answer}")
    assert status == 200, answer
    return True


class Started:
    """A proxy that runs while the block lasts."""

    def __init__(self, proxy, directory, upstreams, admin):
        port = free_port()
        check, words, env = proxy(directory, port, upstreams, admin)
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

            admin = free_port()

            def start(directory, upstreams, proxy=proxy, admin=admin):
                return Started(proxy, directory, upstreams, admin)

            check_address(start, directory)
            home = directory / "node"
            home.mkdir()
            client = f"127.0.0.1:{free_port()}"
            app = f"127.0.0.1:{free_port()}"
            config = '[client]\ndrain = "200ms"\n[bus]\nprobe_interval = "100ms"\n'

            def run():
                return Node(sidewire, config, directory=home, client=client, app=app, admin=f"127.0.0.1:{admin}")

            nodes = [run()]

            def restart():
                assert nodes[-1].end() == 0, nodes[-1].said()
                nodes.append(run())
                return nodes[-1]

            try:
                with start(directory, [client]) as edge:
                    check_transports(edge, nodes[-1])
                    check_restart(edge, nodes[-1], restart)
                check_crossed_request(start, directory, client)
                with start(directory, [client]) as edge:
                    nodes[-1].end()
                    check_nobody(edge)
            finally:
                nodes[-1].end()
            check_rolling_restart(start, directory, sidewire)
        print(f"proxy {proxy.__name__}: TLS, WebSocket, SSE, stream, long-poll, addresses, restarts, crossed requests, three nodes, no node")
    print("proxies passed: 3")


if __name__ == "__main__":
    main()
