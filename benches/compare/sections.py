"""What is measured, a table each."""

import contextlib
import dataclasses
import pathlib
import subprocess
import sys
import time
import urllib.error
import urllib.request

import log
import permissions
import servers
from measure import cpu_seconds, fdatasync_seconds, generate, median, phase, resident_kib


@dataclasses.dataclass
class Bench:
    cpus: tuple
    seconds: float
    runs: int
    binary: pathlib.Path
    without: set
    log_events: int = 1_000_000

    def repeat(self, measure):
        """The median of each figure that `measure` gives, over all runs."""
        results = [measure() for _ in range(self.runs)]
        return {key: median([result[key] for result in results]) for key in results[0]}

    def has(self, name):
        return name not in self.without

    def sidewire(self, **options):
        return servers.sidewire(self.cpus[0], self.binary, **options)

    def peers(self, sidewire_forms=("ws", "msgpack", "sse")):
        """All servers that fan out, by name."""
        cpu = self.cpus[0]
        peers = {}
        if self.has("sidewire"):
            names = {"ws": "Sidewire, WebSocket JSON", "msgpack": "Sidewire, WebSocket MessagePack", "sse": "Sidewire, SSE"}
            for form in sidewire_forms:
                peers[names[form]] = lambda form=form: self.sidewire(form=form)
        if self.has("nchan"):
            peers["Nchan, WebSocket"] = lambda: servers.nchan(cpu)
            peers["Nchan, SSE"] = lambda: servers.nchan(cpu, sse=True)
        return peers


def table(title, note, header, rows):
    print(f"\n## {title}\n\n{note}\n\n| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def progress(text):
    print(text, file=sys.stderr, flush=True)


def fan_out_of(bench, start, subscribers, depth, channels=1):
    """CPU-seconds of a server for a million deliveries, with one message in flight and with many waiting."""

    def measure():
        with start() as server:
            seconds = bench.seconds
            lines = generate(server, bench.cpus, subscribers, f"~closed:4:1,closed:1:{seconds},closed:{depth}:{seconds}",
                             channels=channels)
        one, many = phase(lines, "closed:1:"), phase(lines, f"closed:{depth}:")
        return {"one": one["cpu_s_per_m"], "many": many["cpu_s_per_m"], "rate": many["deliv_per_s"]}

    return bench.repeat(measure)


def fan_out_rows(bench, cases, subscribers, depth, channels, reference):
    """Rows of a fan-out table; `reference` has the figures of the floor and of the coalescing floor."""
    rows = []
    for name, start in cases.items():
        progress(f"fan-out to {subscribers}: {name}")
        figures = fan_out_of(bench, start, subscribers, depth, channels)
        rows.append([name, f"{figures['one']:.2f}", f"{figures['one'] / reference['one']:.2f}",
                     f"{figures['many']:.2f}", f"{figures['many'] / reference['many']:.2f}", f"{figures['rate']:,.0f}"])
    return rows


FAN_OUT_HEADER = ["server", "one in flight", "× floor", "many waiting", "× floor, coalesce", "deliveries/s"]


def floor_reference(bench, subscribers, depth, channels=1):
    """One message in flight is compared with the floor, many waiting with the floor that joins writes."""
    progress(f"fan-out to {subscribers}: floor")
    plain = fan_out_of(bench, lambda: servers.floor(bench.cpus[0]), subscribers, depth, channels)
    joined = fan_out_of(bench, lambda: servers.floor(bench.cpus[0], coalesce=True), subscribers, depth, channels)
    reference = {"one": plain["one"], "many": joined["many"]}
    rows = [[name, f"{figures['one']:.2f}", f"{figures['one'] / reference['one']:.2f}", f"{figures['many']:.2f}",
             f"{figures['many'] / reference['many']:.2f}", f"{figures['rate']:,.0f}"]
            for name, figures in (("floor", plain), ("floor, coalesce", joined))]
    return reference, rows


def fan_out(bench):
    for subscribers, depth in ((1_000, 64), (10_000, 16)):
        reference, rows = floor_reference(bench, subscribers, depth)
        rows += fan_out_rows(bench, bench.peers(), subscribers, depth, 1, reference)
        table(f"Fan-out to {subscribers:,} subscribers of one channel",
              f"CPU-seconds of the server per million deliveries of a 128-byte JSON message; {depth} messages wait.",
              FAN_OUT_HEADER, rows)


def channels(bench):
    floor = lambda: servers.floor(bench.cpus[0])
    progress("fan-out to 10: floor")
    # Messages that wait are of different channels: there is hardly a write to join, so the plain floor is the
    # reference of both columns.
    reference = fan_out_of(bench, floor, 10, 64)
    rows = [["floor, 1 channel of 10", f"{reference['one']:.2f}", "1.00", f"{reference['many']:.2f}", "1.00",
             f"{reference['rate']:,.0f}"]]
    rows += fan_out_rows(bench, {"floor": floor} | bench.peers(), 10_000, 64, 1_000, reference)
    table("1,000 channels of 10 subscribers each", "As above; the reference is the floor with one channel of 10.",
          [word.replace("floor, coalesce", "floor") for word in FAN_OUT_HEADER], rows)


def idle(bench):
    rows = []
    cases = {"floor": lambda: servers.floor(bench.cpus[0])} | bench.peers()
    for name, start in cases.items():
        progress(f"idle connections: {name}")

        def measure(start=start):
            with start() as server:
                lines = generate(server, bench.cpus, 10_000, "idle:2")
            connect, rest = lines["connect"], phase(lines, "idle")
            return {"bytes": rest["rss_bytes_per_conn"], "cpu": connect["srv_cpu_s"] * 1e6 / connect["open"]}

        figures = bench.repeat(measure)
        rows.append([name, f"{figures['bytes']:,.0f}", f"{figures['cpu']:.0f}"])
    table("10,000 idle connections", "Subscribed, nothing published.",
          ["server", "RSS bytes per connection", "server CPU µs per connect"], rows)
    if bench.has("sidewire"):
        crowd(bench)


def crowd(bench):
    """15,000 idle clients: what they take, and what they cost a publish to a channel of somebody else."""
    progress("15,000 idle clients beside a busy channel")

    def publish(server, seconds):
        other = servers.Server(server.process, server.address, server.publish,
                               ["--topic", "other", *server.arguments])
        lines = generate(other, bench.cpus, 10, f"~closed:1:1,closed:1:{seconds}", connections=1)
        return phase(lines, "closed:1:")["cpu_us_per_pub"]

    def measure():
        with bench.sidewire() as server:
            alone = publish(server, bench.seconds)
            seconds = bench.seconds * 2 + 14
            command = [str(servers.LOADGEN / "loadgen"), "--pin", str(bench.cpus[1]), "--subs", "15000", "--addr",
                       server.address, "--pub-addr", server.publish, "--topic", "crowd", "--phases", f"idle:{seconds}",
                       "--pub-conns", "1", "--max-seconds", "90", *server.arguments]
            begin = time.monotonic()
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as crowd_process:
                # It says when all are connected.
                crowd_process.stdout.readline()
                memory = resident_kib(server.pid) / 1024
                crowded = publish(server, bench.seconds)
                crowd_process.terminate()
            if time.monotonic() - begin > seconds + 60:
                raise RuntimeError("the crowd left too early")
        return {"alone": alone, "crowded": crowded, "memory": memory}

    figures = bench.repeat(measure)
    table("A publish to 10 subscribers, with 15,000 idle clients elsewhere", "One message in flight, one publisher.",
          ["", "CPU µs per publish", "× alone", "RSS of the node, MiB"],
          [["alone", f"{figures['alone']:.0f}", "1.00", ""],
           ["with 15,000 idle", f"{figures['crowded']:.0f}", f"{figures['crowded'] / figures['alone']:.2f}",
            f"{figures['memory']:.0f}"]])


def publishing(bench, server, connections, extra=()):
    """Figures of publishing to nobody."""
    lines = generate(server, bench.cpus, 0, f"~closed:1000000:1,closed:1000000:{bench.seconds}", connections=connections,
                     extra=extra)
    line = phase(lines, "closed:")
    return {"rate": line["pub_per_s"], "cpu": line["cpu_us_per_pub"], "p50": line["ack_p50_us"] / 1000,
            "p99": line["ack_p99_us"] / 1000}


BATCH = "[" + ",".join(['{"channel":"{ch}","data":{payload}}'] * 100) + "]"
FRESH = ["--pub-fresh", "--pub-header", "Connection: close"]


def publish(bench):
    cpu = bench.cpus[0]
    body = servers.PUBLISH
    none = ["--pub-path", "/v1/publish?ack=none", "--pub-body", body[3]]
    rows, syncs = [], {}

    def case(name, start, connections, extra, reference=None, events=1):
        progress(f"publish: {name}")

        def measure():
            with start() as server:
                counted = server.admin is not None
                before = servers.metric(server, "sidewire_log_sync_duration_seconds_count") if counted else 0
                published = servers.metric(server, "sidewire_published_events_total") if counted else 0
                figures = publishing(bench, server, connections, extra)
                if counted:
                    synced = servers.metric(server, "sidewire_log_sync_duration_seconds_count") - before
                    published = servers.metric(server, "sidewire_published_events_total") - published
                    figures["group"] = published / max(synced, 1)
            return figures

        figures = bench.repeat(measure)
        rate, cost = (f"{figures[key] / reference[key]:.2f}" if reference else "" for key in ("rate", "cpu"))
        rows.append([name, f"{figures['rate'] * events:,.0f}", rate, f"{figures['cpu'] / events:.1f}", cost,
                     f"{figures['p50']:.2f}", f"{figures['p99']:.2f}",
                     f"{figures['group']:.0f}" if "ack=log" in name else ""])
        return figures

    hyper = lambda: servers.bare_hyper(cpu)
    node = lambda: bench.sidewire()
    reference = case("bare hyper, 64 connections", hyper, 64, body)
    if bench.has("nchan"):
        case("Nchan (memory), 64 connections", lambda: servers.nchan(cpu), 64, (), reference)
    if bench.has("sidewire"):
        case("Sidewire, ack=none, 64 connections", node, 64, none, reference)
        case("Sidewire, ack=log, 64 connections", node, 64, (), reference)
        with servers.folder() as path:
            syncs["before"] = fdatasync_seconds(path)
            alone = case("Sidewire, ack=log, 1 connection", node, 1, ())
            syncs["after"] = fdatasync_seconds(path)
        case("Sidewire, ack=log, batches of 100, 16 connections (events)", node, 16,
             ["--pub-path", "/v1/publish", "--pub-body", BATCH], events=100)
    fresh = case("bare hyper, a new connection each", hyper, 16, body + FRESH)
    if bench.has("sidewire"):
        case("Sidewire, ack=none, a new connection each", node, 16, none + FRESH, fresh)
    unix = case("bare hyper, Unix socket, 64 connections", lambda: servers.bare_hyper(cpu, unix=True), 64, body)
    if bench.has("sidewire"):
        case("Sidewire, ack=none, Unix socket, 64 connections", lambda: bench.sidewire(unix=True), 64, none, unix)
    table("Publishing over HTTP, 128-byte JSON, no subscriber",
          "Ratios are to bare hyper under the same load; events per sync says how many share one group commit.",
          ["server", "publishes/s", "× bare hyper", "CPU µs per publish", "× bare hyper", "p50 ms", "p99 ms", "events per sync"], rows)
    if syncs:
        sync = median(syncs.values()) * 1000
        print(f"\nOne append and fdatasync on this disk takes {sync:.2f} ms; a single publisher waits {alone['p50']:.2f} ms "
              f"(1.5 × one sync + 0.2 ms = {1.5 * sync + 0.2:.2f} ms).")


def latency(bench):
    rows, reference = [], None
    cases = {"floor": lambda: servers.floor(bench.cpus[0])} | bench.peers()
    order = ["Nchan, WebSocket"] + [name for name in cases if name != "Nchan, WebSocket"]
    for name in filter(cases.__contains__, order):
        progress(f"latency: {name}")

        def measure(start=cases[name]):
            with start() as server:
                lines = generate(server, bench.cpus, 100, f"~rate:1000:1,rate:1000:{bench.seconds * 2}")
            line = phase(lines, "rate:")
            return {"p50": line["p50_us"], "p99": line["p99_us"], "p999": line["p999_us"], "cpu": line["cpu_s_per_m"]}

        figures = bench.repeat(measure)
        reference = reference or figures
        rows.append([name, f"{figures['p50']:.0f}", f"{figures['p50'] / reference['p50']:.2f}", f"{figures['p99']:.0f}",
                     f"{figures['p99'] / reference['p99']:.2f}", f"{figures['p999']:.0f}", f"{figures['cpu']:.2f}"])
    table("Publish-to-deliver, 1,000 messages/s to 100 subscribers", "Microseconds from the intended time of a publish; "
          f"the ratio is to {rows[0][0]}.",
          ["server", "p50", "× reference", "p99", "× reference", "p99.9", "CPU-s per million"], rows)


def footprint(bench):
    if not bench.has("sidewire"):
        return
    progress("footprint")

    def measure():
        with servers.folder() as path, contextlib.ExitStack() as stack:
            admin = servers.free_port()
            command = [bench.binary, "run", "--app", "127.0.0.1:0", "--client", "127.0.0.1:0", "--admin",
                       f"127.0.0.1:{admin}", "--data-dir", path / "data"]
            begin = time.perf_counter()
            process = stack.enter_context(servers.running(command, [], bench.cpus[0], path))
            servers.wait_for(lambda: ready(admin))
            started = time.perf_counter() - begin
            time.sleep(1)
            cpu = cpu_seconds(process.pid)
            time.sleep(10)
            used = (cpu_seconds(process.pid) - cpu) / 10
            return {"start": started * 1000, "memory": resident_kib(process.pid) / 1024, "cpu": used * 100}

    figures = bench.repeat(measure)
    size = bench.binary.stat().st_size / (1 << 20)
    table("An idle node", "Without any configuration, on an empty log.",
          ["RSS, MiB", "CPU, % of a core", "ready after, ms", "binary, MiB"],
          [[f"{figures['memory']:.1f}", f"{figures['cpu']:.2f}", f"{figures['start']:.0f}", f"{size:.1f}"]])


def ready(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def event_log(bench):
    if bench.has("sidewire"):
        log.measure(bench, bench.log_events)


def permitted(bench):
    if bench.has("sidewire"):
        table("Tokens and permissions against open to all", "CPU of the same binary in turns; the ratio is the median of "
              f"those of {permissions.ROUNDS} rounds. 1,000 subscribers, each let in by a JWT.",
              ["", "open", "permitted", "ratio", "of all rounds"], permissions.measure(bench, progress))


ALL = {
    "fan_out": fan_out,
    "channels": channels,
    "idle": idle,
    "publish": publish,
    "latency": latency,
    "permissions": permitted,
    "event_log": event_log,
    "footprint": footprint,
}
