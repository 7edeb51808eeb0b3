#!/usr/bin/env python3
"""What the Dockerfile makes, without a container runtime: a root with nothing but what its build stage puts into the image, in
which a node runs as the image says (user, environment, command, health check), read-only but for its volume.

    tests/deploy/image.py SIDEWIRE

A binary that is not static gets the libraries of this host into the root besides. As root, or where users may make namespaces
of their own.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from node import Process, eventually, fetch  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHROOT = shutil.which("chroot", path="/usr/sbin:/usr/bin")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def instructions():
    """The instructions of each stage, as pairs of name and value."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    stages = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, value = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, value.strip()))
    return stages


def only(stage, name):
    (value,) = [value for found, value in stage if found == name]
    return value


def install(stage, binary, image):
    """Does what the build stage does with what it has built: its `install` commands, into `image`."""
    steps = [step.strip() for name, value in stage if name == "RUN" for step in value.split("&&")]
    done = 0
    for step in steps:
        words = shlex.split(step)
        if words[0] != "install":
            assert words[0] in ("apk", "if", "cargo"), f"an unknown step: {step}"
            continue
        if os.geteuid() != 0:
            # In a namespace with one user, that one owns everything.
            words = [word for at, word in enumerate(words) if word not in ("-o", "-g") and words[at - 1] not in ("-o", "-g")]
        places = {"target/release/sidewire": str(binary)}
        words = [places.get(word, re.sub("^/image", str(image), word)) for word in words]
        subprocess.run(words, check=True)
        done += 1
    assert done == 3, steps


def add_libraries(binary, image):
    """What a dynamic binary loads. None for a static one."""
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True)
    paths = re.findall(r"(/\S+) \(0x", listed.stdout)
    for path in paths:
        place = image / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return len(paths)


def inside(image):
    """In namespaces of its own, where the usual ports are free."""
    (stage,) = instructions()[1:]
    user, _, group = only(stage, "USER").partition(":")
    env = dict(word.split("=", 1) for word in shlex.split(only(stage, "ENV")))
    entry, command = json.loads(only(stage, "ENTRYPOINT")), json.loads(only(stage, "CMD"))
    health = json.loads(only(stage, "HEALTHCHECK").partition(" CMD ")[2])
    volume = image / only(stage, "VOLUME").lstrip("/")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # The volume is as the image has it; everything else may only be read.
    subprocess.run(["mount", "--bind", image, image], check=True)
    subprocess.run(["mount", "--bind", volume, volume], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", image], check=True)
    who = [f"--userspec={user}:{group}", "--groups="] if os.environ.get("REAL_ROOT") else []
    enter = ["env", "-i", *(f"{name}={value}" for name, value in env.items()), CHROOT, *who, image]

    def healthy():
        return subprocess.run([*enter, *health], capture_output=True).returncode == 0

    assert not healthy(), "healthy before it runs"
    with Process(*enter, *entry, *command) as node:
        def up():
            assert node.child.poll() is None, node.said()
            return healthy()

        eventually("the health check is good", up)
        status = pathlib.Path(f"/proc/{node.child.pid}/status").read_text()
        uid = re.search(r"^Uid:\t(\d+)", status, re.M)[1]
        assert uid == (user if who else "0"), status
        for number in range(3):
            body = json.dumps({"channel": "image", "data": number}).encode()
            code, answer = fetch("http://127.0.0.1:7070/v1/publish", body, {"Content-Type": "application/json"})
            assert code == 200, answer
        code, answer = fetch("http://127.0.0.1:7080/v1/poll?channel=image&history=10&timeout=0")
        assert [event["data"] for event in json.loads(answer)["events"]] == [0, 1, 2], answer
        assert node.end() == 0, node.said()
    written = {path.relative_to(image).parts[:3] for path in image.rglob("*") if path.is_file()}
    assert ("var", "lib", "sidewire") in written, written
    assert not healthy(), "healthy after it ended"


def main():
    if len(sys.argv) == 3:
        return inside(pathlib.Path(sys.argv[2]))
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    binary = pathlib.Path(sys.argv[1]).resolve()
    build, image_stage = instructions()
    assert only(image_stage, "FROM") == "scratch" and only(image_stage, "COPY") == "--from=build /image /"
    for name in ("COPY",):
        for words in (shlex.split(value) for found, value in build if found == name):
            for source in words[:-1]:
                assert (ROOT / source).exists(), f"the Dockerfile copies {source}, which is not there"
    with tempfile.TemporaryDirectory() as directory:
        image = pathlib.Path(directory)
        image.chmod(0o755)
        install(build, binary, image)
        whole = sorted(str(path.relative_to(image)) for path in image.rglob("*") if path.is_file())
        assert whole == [CERTIFICATES.lstrip("/"), "usr/bin/sidewire"], whole
        libraries = add_libraries(binary, image)
        words = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
        words += [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        env = os.environ | ({"REAL_ROOT": "1"} if os.geteuid() == 0 else {})
        subprocess.run([*words, sys.executable, __file__, binary, image], check=True, env=env)
    kind = f"{libraries} libraries besides" if libraries else "a static binary"
    print(f"image passed: {kind}, runs alone in its root")


if __name__ == "__main__":
    main()
