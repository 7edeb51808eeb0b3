#!/usr/bin/env python3
"""Keeps what a released version leaves behind, for the versions after it to read: its data directory, a configuration with
all its keys, and what a client could read there.

    tests/deploy/make_fixture.py SIDEWIRE

writes tests/fixtures/VERSION, which is then never changed again.
"""

import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from node import Node, fetch  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]

# So that nothing is too old in a hundred years, and journals are packed after little.
KEPT = {"log.ttl": '"36500d"', "log.max_bytes": '"4MiB"', "bus.probe_interval": '"100ms"'}
SAMPLES = """
[[client.routes]]
path = "/ws/job/{id}"
channel = "job.{id}"
close_on = ["job_completed"]

[[channels]]
pattern = "trimmed.>"
max_events = 3
"""


def every_key():
    """The example with all keys in force."""
    lines, section = [], ""
    for line in (ROOT / "config.toml.example").read_text().splitlines():
        if re.fullmatch(r"\[[a-z_.]+\]", line):
            section = line[1:-1]
            lines.append(line)
        elif found := re.fullmatch(r"# ([a-z_]+) = (.*)", line):
            lines.append(f"{found[1]} = {KEPT.get(f'{section}.{found[1]}', found[2])}")
    return "\n".join(lines) + "\n" + SAMPLES


def events(node, **query):
    """All events, page by page."""
    found = []
    while True:
        after = {"after": found[-1]["cursor"]} if found else {}
        status, body = fetch(f"http://{node.app}/v1/events?{urllib.parse.urlencode(query | after | {'limit': 1000})}")
        assert status == 200, body
        page = json.loads(body)
        found += page["events"]
        if not page["more"]:
            return found


def fill(node):
    """Events of every kind."""
    for number in range(200):
        # Enough for a journal to be packed, and little when compressed.
        node.publish("numbered", {"n": number, "padding": "x" * 4096}, id=f"numbered-{number}")
    node.publish("kinds", None)
    node.publish("kinds", "Grüße, \u2028 und \U0001f600")
    node.publish("kinds", [1.5, -0.0, 1e300, 12345678901234567890, True, {}])
    node.publish("kinds", {"a": 1}, event="named", tags={"tenant": "7", "kind": "ä"})
    fetch(f"http://{node.app}/v1/channels/kinds?event=bytes", bytes(range(256)), {"Content-Type": "application/octet-stream"})
    for number in range(10):
        node.publish("trimmed.a", number)
    node.publish("deleted", 1)
    request = ["curl", "--silent", "--fail", "--request", "DELETE", f"http://{node.app}/v1/events?channel=deleted"]
    subprocess.run(request, check=True, capture_output=True)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sidewire = sys.argv[1]
    version = subprocess.run([sidewire, "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
    place = ROOT / "tests/fixtures" / version
    if place.exists():
        sys.exit(f"{place} is there: what a version left behind does not change")
    with tempfile.TemporaryDirectory() as directory:
        config = every_key()
        with Node(sidewire, config, directory=directory) as node:
            fill(node)
        # Started again, and then killed: packed generations, a journal, and an end without a close.
        node = Node(sidewire, config, directory=directory)
        for number in range(5):
            node.publish("last", number)
        kept = events(node, channel=">")
        node.child.kill()
        node.child.wait()
        names = {path.name.split("-")[0] for path in (pathlib.Path(directory) / "data").iterdir()}
        assert {"journal", "generation", "meta", "head"} <= names, names
        place.mkdir(parents=True)
        (place / "sidewire.toml").write_text(config)
        (pathlib.Path(directory) / "events.ndjson").write_text("".join(json.dumps(event) + "\n" for event in kept))
        # Room that is kept back for a full disk: zeros, made again at the start.
        (pathlib.Path(directory) / "data/reserve").unlink(missing_ok=True)
        with tarfile.open(place / "left.tar.gz", "w:gz") as archive:
            for name in ("data", "events.ndjson"):
                archive.add(pathlib.Path(directory) / name, name)
    print(f"{place}: {len(kept)} events")


if __name__ == "__main__":
    main()
