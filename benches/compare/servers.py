"""The servers that are compared: each is started fresh, pinned to its CPU, in a folder of its own, and ended by pid."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LOADGEN = ROOT / "benches/loadgen/target/release"
NCHAN_MODULE = pathlib.Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

# So that a limit made for one careless client does not end a run of ten thousand from one address.
SIDEWIRE_LIMITS = """
[limits]
connections = 100000
connections_per_ip = 100000
handshakes_per_ip = 100000
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A running server: `address` is where subscribers go, `publish` where publishers go, `arguments` how the load
    generator speaks to it."""

    def __init__(self, process, address, publish=None, arguments=(), admin=None, folder=None, unix=None):
        self.process, self.address, self.publish = process, address, publish or address
        self.arguments, self.admin, self.folder, self.unix = list(arguments), admin, folder, unix

    @property
    def pid(self):
        return self.process.pid


@contextlib.contextmanager
def running(command, ports, cpu, folder):
    """Starts a command, waits until it listens on every port, and ends it afterwards."""
    # Kept in the folder of the run: what a server says is wanted only when it fails.
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(
            [str(word) for word in command], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
        )
    try:
        deadline = time.monotonic() + 20
        for port in ports:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        said = (folder / "log").read_text(errors="replace")[-2000:]
                        raise RuntimeError(f"{command[0]} does not listen on {port}:\n{said}") from None
                    time.sleep(0.002)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def folder():
    """A folder on the disk that the project is on: not in memory, where a sync costs nothing."""
    parent = ROOT / "target/compare"
    parent.mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(tempfile.mkdtemp(dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def floor(cpu, coalesce=False, sse=False):
    port = free_port()
    with folder() as path:
        command = [LOADGEN / "floor", "--port", port] + (["--coalesce"] if coalesce else [])
        with running(command, [port], cpu, path) as process:
            yield Server(process, f"127.0.0.1:{port}", arguments=["--mode", "sse"] if sse else [])


@contextlib.contextmanager
def bare_hyper(cpu, unix=False):
    with folder() as path:
        if unix:
            target = path / "s"
            with running([LOADGEN / "bare_hyper", "--unix", target], [], cpu, path) as process:
                wait_for(target.exists)
                yield Server(process, "127.0.0.1:1", unix=str(target))
        else:
            port = free_port()
            with running([LOADGEN / "bare_hyper", "--port", port], [port], cpu, path) as process:
                yield Server(process, f"127.0.0.1:{port}")


@contextlib.contextmanager
def nchan(cpu, sse=False):
    port = free_port()
    with folder() as path:
        user = "user root;" if os.geteuid() == 0 else ""
        text = (HERE / "nginx-nchan.conf").read_text().replace("PORT", str(port)).replace("USER", user)
        (path / "nginx.conf").write_text(text)
        nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        command = [nginx, "-p", path, "-c", path / "nginx.conf"]
        with running(command, [port], cpu, path) as process:
            arguments = ["--mode", "sse", "--sub-path", "/sse?channel={ch}"] if sse else []
            yield Server(process, f"127.0.0.1:{port}", arguments=arguments)


# How subscribers speak to Sidewire.
FORMS = {
    "ws": ["--sub-path", "/v1/ws?channel={ch}", "--sub-header", "Sec-WebSocket-Protocol: sidewire.v1.json",
           "--sub-ready", "subscribed"],
    "msgpack": ["--sub-path", "/v1/ws?channel={ch}", "--sub-header", "Sec-WebSocket-Protocol: sidewire.v1.msgpack",
                "--sub-ready", "subscribed"],
    "sse": ["--mode", "sse", "--sub-path", "/v1/sse?channel={ch}"],
}
# How an event is published to Sidewire.
PUBLISH = ["--pub-path", "/v1/publish", "--pub-body", '{"channel":"{ch}","data":{payload}}']


@contextlib.contextmanager
def sidewire(cpu, binary, form="ws", unix=False, config=""):
    app, client, admin = free_port(), free_port(), free_port()
    with folder() as path:
        (path / "config.toml").write_text(SIDEWIRE_LIMITS + config)
        command = [binary, "run", "--config", path / "config.toml", "--data-dir", path / "data",
                   "--app", f"unix:{path}/s" if unix else f"127.0.0.1:{app}",
                   "--client", f"127.0.0.1:{client}", "--admin", f"127.0.0.1:{admin}"]
        ports = [client, admin] if unix else [app, client, admin]
        with running(command, ports, cpu, path) as process:
            if unix:
                wait_for((path / "s").exists)
            yield Server(process, f"127.0.0.1:{client}", f"127.0.0.1:{app}", FORMS[form] + PUBLISH,
                         f"127.0.0.1:{admin}", path, f"{path}/s" if unix else None)


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the server did not get ready")
        time.sleep(0.002)


def metric(server, name):
    """The sum of all samples of a metric of Sidewire."""
    with urllib.request.urlopen(f"http://{server.admin}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    values = [line.rsplit(" ", 1)[1] for line in lines if line.split("{")[0].split(" ")[0] == name]
    return sum(map(float, values))
