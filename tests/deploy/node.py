"""A node under test, and waiting for a condition with a deadline."""

import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

PATIENCE = 60


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def eventually(what, check, patience=PATIENCE):
    """The first value that `check` gives; an exception counts as none."""
    deadline = time.monotonic() + patience
    while True:
        try:
            value, error = check(), None
        except (OSError, ValueError, AssertionError) as raised:
            value, error = None, raised
        if value:
            return value
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {patience} s: {error or value!r}")
        time.sleep(0.05)


def fetch(url, body=None, headers={}):
    """Status and body of an answer."""
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Process:
    """A program that is ended with the block."""

    def __init__(self, *words, env=None):
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        self.child = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=env
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        return self.child.returncode

    def said(self):
        return pathlib.Path(self.log.name).read_text()


class Node(Process):
    """Sidewire on ports of its own, with a directory of its own. `listen` gives addresses for listeners."""

    def __init__(self, binary, config="", directory=None, **listen):
        self.directory = tempfile.TemporaryDirectory() if directory is None else None
        place = pathlib.Path(self.directory.name if self.directory else directory)
        (place / "sidewire.toml").write_text(config)
        words = [binary, "run", "--config", place / "sidewire.toml", "--data-dir", place / "data"]
        for listener in ("app", "client", "admin"):
            words += [f"--{listener}", listen.get(listener, "127.0.0.1:0")]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("SIDEWIRE_", "LISTEN_"))}
        super().__init__(*words, env=env | {"NO_COLOR": "1"})
        self.addresses = eventually("the node listens", self.listening)
        eventually("the node is ready", lambda: fetch(f"http://{self.admin}/readyz")[0] == 200)

    def listening(self):
        if self.child.poll() is not None:
            raise SystemExit(f"the node ended:\n{self.said()}")
        found = dict(re.findall(r'listening listener="(\w+)" address=(\S+)', self.said()))
        return found if len(found) == 3 else None

    app = property(lambda self: self.addresses["app"])
    client = property(lambda self: self.addresses["client"])
    admin = property(lambda self: self.addresses["admin"])

    def publish(self, channel, data, **more):
        body = json.dumps({"channel": channel, "data": data, **more}).encode()
        status, answer = fetch(f"http://{self.app}/v1/publish", body, {"Content-Type": "application/json"})
        assert status == 200, answer
        return json.loads(answer)
