"""The event log when it is large: what it takes on disk, how fast it is asked, how soon it serves after a kill."""

import http.client
import json
import random
import signal
import time
import urllib.parse

import servers
from measure import resident_kib

CHANNELS = 10_000
BATCH = 500
CONFIG = '[log]\nmax_bytes = "8GiB"\ncompress = {compress}\n'


def event(number):
    """One of the kinds of events that apps publish, with fresh ids, numbers and times."""
    channel = number % CHANNELS
    stamp = 1_767_052_800 + number // 50
    kind = number % 4
    if kind == 0:
        return {"channel": f"cron.execution.{channel}", "event": "execution-update", "tags": {"host": f"web-{number % 7}"},
                "data": {"job_id": channel, "execution_id": number, "status": "running", "progress": number % 100,
                         "duration_ms": random.randrange(60_000), "memory_mb": round(random.uniform(5, 90), 1),
                         "timestamp": stamp}}
    if kind == 1:
        return {"channel": f"cron.execution.{channel}", "event": "execution-completed",
                "data": {"job_id": channel, "execution_id": number, "status": "success", "exit_code": 0,
                         "duration_ms": random.randrange(60_000),
                         "output": f"sent {random.randrange(5000)} mails, {number % 9} bounced", "timestamp": stamp}}
    if kind == 2:
        return {"channel": f"cron.worker.{channel}", "event": "worker-heartbeat",
                "data": {"worker_id": channel, "pid": random.randrange(65_536), "host": f"web-{number % 7}",
                         "jobs_running": number % 5, "load": [round(random.random(), 2) for _ in range(3)],
                         "memory_mb": round(random.uniform(5, 90), 1), "timestamp": stamp}}
    return {"channel": f"editor.function.{channel}", "event": "cursor-move",
            "data": {"user_id": random.randrange(10_000), "user_name": "Ada", "timestamp": stamp,
                     "position": {"line": random.randrange(900), "column": random.randrange(120)}}}


class Node:
    """A node whose log stays when it is killed."""

    def __init__(self, bench, folder, compress):
        self.bench, self.folder, self.compress = bench, folder, compress
        self.app, self.admin = servers.free_port(), servers.free_port()
        (folder / "config.toml").write_text(CONFIG.format(compress=str(compress).lower()))

    def running(self):
        command = [self.bench.binary, "run", "--config", self.folder / "config.toml", "--data-dir", self.folder / "data",
                   "--app", f"127.0.0.1:{self.app}", "--client", "127.0.0.1:0", "--admin", f"127.0.0.1:{self.admin}"]
        return servers.running(command, [self.app, self.admin], self.bench.cpus[0], self.folder)

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.app, timeout=30)


def fill(node, count):
    """Publishes so many events; gives how many bytes of JSON they were."""
    connection, size = node.connect(), 0
    for begin in range(0, count, BATCH):
        numbers = range(begin, min(begin + BATCH, count))
        body = json.dumps([event(number) for number in numbers], separators=(",", ":"))
        size += len(body)
        for _ in range(200):
            connection.request("POST", "/v1/publish", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status == 200 and b'"code"' not in text:
                break
            # The log is behind with packing: a publisher waits and tries again.
            time.sleep(0.05)
        else:
            raise RuntimeError(f"publish: {answer.status} {text[:300]}")
    return size


def disk_bytes(path):
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


def ask(node, queries):
    """Median and 99th percentile, in ms, of a page of 100 for each of the queries."""
    connection, times = node.connect(), []
    for query in queries:
        begin = time.perf_counter()
        connection.request("GET", "/v1/events?" + query)
        answer = connection.getresponse()
        body = answer.read()
        times.append((time.perf_counter() - begin) * 1000)
        if answer.status != 200:
            raise RuntimeError(f"{query}: {answer.status} {body[:300]}")
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100]


def queries(node, count):
    """The ways in which history is asked, each many times with other values."""
    pick = lambda: random.randrange(CHANNELS)
    connection = node.connect()
    connection.request("GET", "/v1/events?order=asc&limit=1")
    first = json.loads(connection.getresponse().read())["events"][0]
    connection.request("GET", "/v1/events?order=desc&limit=1")
    last = json.loads(connection.getresponse().read())["events"][0]
    moment = lambda: random.randrange(first["time"], last["time"] + 1)
    cursors = []
    for _ in range(20):
        connection.request("GET", f"/v1/events?since={moment()}&limit=1")
        cursors.append(json.loads(connection.getresponse().read())["cursor"])
    quote = urllib.parse.quote
    return {
        "one channel, newest first": [f"channel=cron.execution.{pick() // 4 * 4}&order=desc&limit=100" for _ in range(count)],
        "one channel, oldest first": [f"channel=cron.worker.{pick() // 4 * 4 + 2}&limit=100" for _ in range(count)],
        "ten channels": ["channel=" + ",".join(f"cron.execution.{pick() // 4 * 4}" for _ in range(10)) +
                         "&order=desc&limit=100" for _ in range(count)],
        "a pattern": ["channel=cron.execution.*&order=desc&limit=100" for _ in range(count)],
        "a pattern and a name": [f"channel={quote('cron.>')}&event=worker-heartbeat&order=desc&limit=100"
                                 for _ in range(count)],
        "a tag": [f"channel=cron.execution.*&tag.host=web-{pick() % 7}&limit=100" for _ in range(count)],
        "a time": [f"since={moment()}&limit=100" for _ in range(count)],
        "one channel within a time": [f"channel=cron.execution.{pick() // 4 * 4}&since={moment()}&limit=100"
                                      for _ in range(count)],
        "after a cursor": [f"after={random.choice(cursors)}&limit=100" for _ in range(count)],
    }


def measure(bench, events):
    """Everything about a log of so many events."""
    from sections import progress, ready, table

    sizes = {}
    for compress in (False, True):
        progress(f"log: {events:,} events, {'compressed' if compress else 'plain'}")
        with servers.folder() as folder:
            node = Node(bench, folder, compress)
            with node.running() as process:
                begin = time.perf_counter()
                sizes["json"] = fill(node, events)
                took = time.perf_counter() - begin
                servers.wait_for(lambda node=node: waiting(node) == 0)
                sizes[compress] = disk_bytes(folder / "data")
                if compress:
                    rows = [[name, *(f"{value:.1f}" for value in ask(node, some))]
                            for name, some in queries(node, 300).items()]
                    memory = resident_kib(process.pid) / 1024
                    process.send_signal(signal.SIGKILL)
                    process.wait()
            if compress:
                begin = time.perf_counter()
                with node.running():
                    servers.wait_for(lambda node=node: ready(node.admin))
                    restart = time.perf_counter() - begin

    table(f"A page of 100 from a log of {events:,} events in {CHANNELS:,} channels", "Milliseconds, seen by a client in Python.",
          ["asked by", "p50", "p99"], rows)
    table("That log", f"Filled in {took:.0f} s by one publisher in Python, in batches of {BATCH}.",
          ["JSON published, MiB", "on disk, plain", "on disk, compressed", "smaller by", "RSS, MiB", "ready after kill -9, s"],
          [[f"{sizes['json'] / 2**20:.0f}", f"{sizes[False] / 2**20:.0f}", f"{sizes[True] / 2**20:.0f}",
            f"{100 - 100 * sizes[True] / sizes[False]:.0f} %", f"{memory:.0f}", f"{restart:.2f}"]])


def waiting(node):
    """How many journals wait to be packed."""
    server = servers.Server(None, None, admin=f"127.0.0.1:{node.admin}")
    return servers.metric(server, "sidewire_log_waiting_journals")
