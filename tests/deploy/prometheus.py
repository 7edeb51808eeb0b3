#!/usr/bin/env python3
"""The dashboard and the alert rules, in a Prometheus that scrapes a node under load: every expression of both must
return data. And what promtool says of the metrics and the rules.

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
from node import PATIENCE, Node, Process, eventually, fetch, free_port  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/sidewire.rules.yml"
RULE_TESTS = ROOT / "deploy/prometheus/sidewire.rules.test.yml"
DASHBOARD = ROOT / "deploy/grafana/sidewire.json"
RUNBOOK = ROOT / "docs/runbook.md"
KUBERNETES = ROOT / "docs/deploy/kubernetes.md"

# What only a node with a bus elsewhere has; the rule tests hold these to made-up series.
REMOTE = re.compile(r"sidewire_(outbox_\w+|bus_(connected|breaker_open|reconnects_total|lag_seconds|gaps_total|duplicates_dropped_total))")
NAME = re.compile(r"sidewire_\w+")

CONFIG = """
[bus]
probe_interval = "200ms"
[[client.routes]]
path = "/job/{id}"
channel = "job.{id}"
close_on = ["done"]
"""


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


def panel_expressions():
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            text = target["expr"].replace("$__rate_interval", "1m")
            yield f"panel {panel['title']}", re.sub(r"\$(job|instance)", ".*", text)
    assert all(panel["type"] == "row" or panel["targets"] for panel in dashboard["panels"])


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


def check_runbook():
    """Each alert leads to an entry that is there."""
    headings = {line[3:].strip().lower() for line in RUNBOOK.read_text().splitlines() if line.startswith("## ")}
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            anchor = rule["annotations"]["runbook_url"].partition("docs/runbook.md#")[2]
            assert anchor == rule["alert"].lower(), rule["alert"]
            assert anchor in headings, f"docs/runbook.md has no entry for {rule['alert']}"


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
    check_runbook()

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
                node.publish("bench.x", {"n": 1}, id="twice")
                node.publish("bench.x", {"n": 1}, id="twice")
                fetch(f"http://{node.app}/v1/publish", b'{"channel": "not a channel"}')
                fetch(f"http://{node.client}/v1/poll?channel=bench.*&timeout=5")
                # Closed by the node once the job is done.
                job = websocket(node.client, "/job/1")
                eventually("the job has a client", lambda: b"job.1" in fetch(f"http://{node.app}/v1/channels")[1])
                node.publish("job.1", 1, event="done")

                exposed = {name for name in NAME.findall(fetch(f"http://{node.admin}/metrics")[1].decode())}
                remote = any(REMOTE.fullmatch(name) for name in exposed)
                seen = 0
                for what, expression in [*panel_expressions(), *alert_expressions(), adapter_expression()]:
                    if not remote and REMOTE.search(expression):
                        query(expression)
                        continue
                    eventually(
                        f"{what}: {expression}",
                        # A quantile of nothing is no number.
                        lambda: [value for value in query(expression) if value == value],
                    )
                    seen += 1
                job.close()
                firing = json.loads(fetch(f"{api}/alerts")[1])["data"]["alerts"]
                assert not firing, f"alerts on a good day: {firing}"
                metrics = fetch(f"http://{node.admin}/metrics")[1].decode()
                tool("promtool", "check", "metrics", input=metrics)
                series = sum(1 for line in metrics.splitlines() if line and not line.startswith("#"))
                assert series < 500, f"{series} series: something has a label that callers fill"
                assert prometheus.child.poll() is None, prometheus.said()
        finally:
            for process in loads:
                process.end()
        print(f"prometheus passed: {len(alerts)} alerts, {seen} expressions with data, {series} series")


if __name__ == "__main__":
    main()
