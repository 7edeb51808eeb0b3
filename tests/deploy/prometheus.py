#!/usr/bin/env python3
"""The dashboard and the alert rules, in a Prometheus that scrapes a node under load: every expression of both must
return data, and every metric must be in a panel. What promtool says of the metrics and the rules, and whether the runbook
names only what there is.

    tests/deploy/prometheus.py SIDEWIRE
"""

import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import urllib.parse

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import runbook  # noqa: E402
from node import PATIENCE, Node, Process, eventually, fetch, free_port  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/sidewire.rules.yml"
RULE_TESTS = ROOT / "deploy/prometheus/sidewire.rules.test.yml"
DASHBOARD = ROOT / "deploy/grafana/sidewire.json"
OPERATIONS = ROOT / "docs/operations.md"
KUBERNETES = ROOT / "docs/deploy/kubernetes.md"

NAME = re.compile(r"sidewire_\w+")

# What a node tells and no panel shows: the metric, and why.
NOT_SHOWN = {}

CONFIG = """
[bus]
probe_interval = "200ms"
[[client.routes]]
path = "/job/{id}"
channel = "job.{id}"
close_on = ["done"]
[[channels]]
pattern = "price.>"
rate = "1/s"
when_over = "latest"
redact = ["margin"]
"""

# What the load below must have counted: a panel may have data that is never more than 0.
COUNTED = [
    "sidewire_published_events_total",
    "sidewire_delivered_events_total",
    "sidewire_duplicates_total",
    "sidewire_errors_total",
    "sidewire_closes_total",
    "sidewire_resumes_total",
    "sidewire_conflated_events_total",
    "sidewire_redacted_fields_total",
    "sidewire_controls_total",
    "sidewire_publish_duration_seconds_count",
    "sidewire_delivery_duration_seconds_count",
    "sidewire_log_sync_duration_seconds_count",
    "sidewire_log_sync_events_count",
    "sidewire_bus_probe_duration_seconds_count",
]


def tool(*words, input=None):
    done = subprocess.run(words, input=input, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}:\n{done.stdout}{done.stderr}")


def alert_expressions():
    """The sides of each alert's comparison: a good day has data, and no alert."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            left, _, right = re.fullmatch(r"(.*) (==|>|<) (.*)", rule["expr"]).groups()
            for side in (left, right):
                if NAME.search(side):
                    yield f"alert {rule['alert']}", side


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


def panel_expressions():
    for panel in panels():
        for target in panel.get("targets", []):
            text = target["expr"].replace("$__rate_interval", "1m")
            yield f"panel {panel['title']}", re.sub(r"\$(job|instance)", ".*", text)


def check_layout():
    """The dashboard as it is seen: every line full from edge to edge, nothing on top of another, each panel with words."""
    taken = {}
    for panel in panels():
        title, place = panel["title"], panel["gridPos"]
        for y in range(place["y"], place["y"] + place["h"]):
            for x in range(place["x"], place["x"] + place["w"]):
                assert x < 24, f"{title} goes over the edge"
                assert (x, y) not in taken, f"{title} lies on {taken.get((x, y))}"
                taken[x, y] = title
        assert panel["type"] == "row" or (panel["targets"] and panel["description"]), title
        references = [target["refId"] for target in panel.get("targets", [])]
        named = [override["matcher"]["options"] for override in panel.get("fieldConfig", {}).get("overrides", [])]
        assert len(set(references)) == len(references) and set(named) <= set(references), title
    bottom = max(y for _, y in taken) + 1
    holes = [(x, y) for y in range(bottom) for x in range(24) if (x, y) not in taken]
    assert not holes, f"nothing is shown at {holes[0]} of the dashboard"
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids), "two panels have one id"


def check_shown(metrics):
    """Each metric that a node tells is in a panel and in the documentation, and the other way round."""
    told = set(re.findall(r"^# TYPE (\w+) ", metrics, re.M))
    histograms = set(re.findall(r"^# TYPE (\w+) histogram$", metrics, re.M))
    parts = {f"{name}_{part}": name for name in histograms for part in ("bucket", "count", "sum")}
    shown = {parts.get(name, name) for _, text in panel_expressions() for name in NAME.findall(text)}
    unseen = told - shown - set(NOT_SHOWN)
    assert not unseen, f"in no panel of {DASHBOARD.name}: {', '.join(sorted(unseen))}; show them, or say in NOT_SHOWN why not"
    assert shown <= told, f"no node tells {', '.join(sorted(shown - told))}"
    assert NOT_SHOWN.keys() <= told - shown, "NOT_SHOWN has what is shown, or what is gone"
    documented = set(re.findall(r"^\| `(sidewire_\w+)` \|", OPERATIONS.read_text(), re.M))
    assert documented == told, f"in {OPERATIONS.name} or in /metrics, and not in both: {', '.join(sorted(documented ^ told))}"
    return told


def adapter_expression():
    """What prometheus-adapter asks for the HPA, by the rule in the documentation; made to fit a Prometheus without pods."""
    block = re.search(r"```yaml\n(rules:\n.*?)```", KUBERNETES.read_text(), re.S)[1]
    (rule,) = yaml.safe_load(block)["rules"]
    series, _, _ = rule["seriesQuery"].partition("{")
    filled = {"<<.GroupBy>>": "instance", "<<.Series>>": series, "<<.LabelMatchers>>": 'job="sidewire"'}
    text = rule["metricsQuery"]
    for name, value in filled.items():
        assert name in text, text
        text = text.replace(name, value)
    return "the HPA's metric", text


def keys_of(config, prefix=""):
    """The keys of a configuration as a node shows it, such as `log.ttl`."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        yield name
        if isinstance(value, dict):
            yield from keys_of(value, f"{name}.")


def load(node, sidewire):
    """Everything that a counter counts, for as long as the block lasts."""
    url = f"http://{node.client}"
    return [
        Process(sidewire, "bench", "--app", node.app, "--client", node.client, "--clients", "5", "--rate", "50", "--seconds", "600"),
        Process("curl", "--silent", "--no-buffer", f"{url}/v1/sse?channel=bench.*&channel=job.*"),
        Process("curl", "--silent", "--no-buffer", f"{url}/v1/stream?channel=bench.*"),
    ]


def websocket(address, path):
    """An open WebSocket, of which nothing is read."""
    host, _, port = address.rpartition(":")
    stream = socket.create_connection((host, int(port)), timeout=PATIENCE)
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
    head = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\r\n\r\n"
    stream.sendall(head.encode())
    assert stream.recv(12) == b"HTTP/1.1 101", "no WebSocket"
    return stream


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sidewire = sys.argv[1]
    tool("promtool", "check", "rules", str(RULES))
    tool("promtool", "test", "rules", str(RULE_TESTS))
    tested = {test["alert_rule_test"][0]["alertname"] for test in yaml.safe_load(RULE_TESTS.read_text())["tests"]}
    alerts = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    assert tested == alerts, f"without a test: {alerts - tested}"
    check_layout()

    with tempfile.TemporaryDirectory() as directory, Node(sidewire, CONFIG) as node:
        port = free_port()
        scrape = {"job_name": "sidewire", "static_configs": [{"targets": [node.admin]}]}
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [scrape],
        }
        file = pathlib.Path(directory) / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        tool("promtool", "check", "config", str(file))
        words = [
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        loads = load(node, sidewire)
        try:
            with Process(*words) as prometheus:
                api = f"http://127.0.0.1:{port}/api/v1"

                def query(expression):
                    status, body = fetch(f"{api}/query?{urllib.parse.urlencode({'query': expression})}")
                    answer = json.loads(body)
                    assert status == 200, f"{expression}: {answer.get('error')}"
                    return [float(series["value"][1]) for series in answer["data"]["result"]]

                eventually("Prometheus scrapes", lambda: query("sidewire_build_info"))
                first = node.publish("bench.x", {"n": 1}, id="twice")
                node.publish("bench.x", {"n": 1}, id="twice")
                fetch(f"http://{node.app}/v1/publish", b'{"channel": "not a channel"}')
                fetch(f"http://{node.client}/v1/poll?channel=bench.*&timeout=5")
                is_json = {"Content-Type": "application/json"}
                for margin in range(5):
                    price = {"channel": "price.eur", "data": {"price": 1, "margin": margin}}
                    # Nobody waits until it is time for this one.
                    fetch(f"http://{node.app}/v1/publish?ack=none", json.dumps(price).encode(), is_json)
                fetch(f"http://{node.app}/v1/disconnect", b'{"user": "nobody"}', is_json)
                # Closed by the node once the job is done.
                job = websocket(node.client, "/job/1")
                eventually("the job has a client", lambda: b"job.1" in fetch(f"http://{node.app}/v1/channels")[1])
                node.publish("job.1", 1, event="done")

                # What is a few seconds old has left memory: a client that comes back then reads it from the log.
                def comes_back():
                    missed = f"http://{node.client}/v1/stream?channel=bench.*&cursor={first['cursor']}"
                    subprocess.run(["curl", "--silent", "--max-time", "1", missed], stdout=subprocess.DEVNULL)
                    return sum(query("sidewire_replayed_events_total")) > 0

                eventually("a client reads from the log", comes_back)
                for name in COUNTED:
                    eventually(f"the load moves {name}", lambda: sum(query(name)) > 0)
                expressions = [*panel_expressions(), *alert_expressions(), adapter_expression()]
                for what, expression in expressions:
                    eventually(
                        f"{what}: {expression}",
                        # A quantile of nothing is no number.
                        lambda: [value for value in query(expression) if value == value],
                    )
                job.close()
                firing = json.loads(fetch(f"{api}/alerts")[1])["data"]["alerts"]
                assert not firing, f"alerts on a good day: {firing}"
                metrics = fetch(f"http://{node.admin}/metrics")[1].decode()
                told = check_shown(metrics)
                keys = set(keys_of(json.loads(fetch(f"http://{node.admin}/v1/config")[1])))
                commands = runbook.check(RULES, sidewire, keys, told)
                for asked in runbook.queries():
                    query(asked)
                tool("promtool", "check", "metrics", input=metrics)
                series = sum(1 for line in metrics.splitlines() if line and not line.startswith("#"))
                assert series < 500, f"{series} series: something has a label that callers fill"
                assert prometheus.child.poll() is None, prometheus.said()
        finally:
            for process in loads:
                process.end()
        print(f"prometheus passed: {len(alerts)} alerts, {len(expressions)} expressions with data, {series} series, {commands} commands of the runbook")


if __name__ == "__main__":
    main()
