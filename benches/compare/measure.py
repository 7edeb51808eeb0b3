"""One measurement: the load generator against a server that runs, and what came of it."""

import json
import os
import statistics
import subprocess
import time

import servers


def generate(server, cpus, subscribers, phases, channels=1, connections=16, extra=()):
    """Runs the load generator; gives one dict for each reported phase, by the phase's first word."""
    command = [
        str(servers.LOADGEN / "loadgen"), "--pid", str(server.pid), "--server-cpus", str(cpus[0]),
        "--pin", str(cpus[1]), "--subs", str(subscribers), "--channels", str(channels), "--addr", server.address,
        "--pub-addr", server.publish, "--pub-conns", str(connections), "--phases", phases, "--max-seconds", "100",
        # Of an option that is there twice the first one counts.
        *extra, *server.arguments,
    ]
    if server.unix:
        command += ["--pub-unix", server.unix]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or len(lines) < 2:
        raise RuntimeError(f"the load generator failed ({done.returncode}): {done.stderr[-1500:]}")
    for line in lines:
        for bad in ("failed", "lost", "pub_errors", "undecodable"):
            if line.get(bad):
                raise RuntimeError(f"{line['phase']}: {bad} = {line[bad]}: {done.stderr[-500:]}")
    disturbed.extend(line["other_cpu_s"] / max(line["wall_s"], 0.1) for line in lines if "other_cpu_s" in line)
    return {line["phase"]: line for line in lines}


# What others used of the machine during each phase, in CPUs: a figure that was taken beside them is worth little.
disturbed = []


def phase(lines, start):
    """The phase whose name begins so."""
    return next(line for name, line in lines.items() if name.startswith(start))


def median(values):
    return statistics.median(values)


def fdatasync_seconds(folder, count=300):
    """The median time of one append of 300 bytes and its fdatasync, on the disk of the log."""
    path = folder / "sync"
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    times = []
    try:
        for _ in range(count):
            begin = time.perf_counter()
            os.write(handle, b"x" * 300)
            os.fdatasync(handle)
            times.append(time.perf_counter() - begin)
    finally:
        os.close(handle)
        path.unlink()
    return median(times)


def resident_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        text = stat.read()
    fields = text[text.rindex(")") + 2:].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
