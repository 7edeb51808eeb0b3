#!/usr/bin/env python3
"""Measures Sidewire beside the floor, bare hyper and nginx + Nchan, all in one run on this machine, and prints
every figure with its ratio to its reference, as Markdown.

    run.py [--quick] [--only fan_out,publish,..] [--without sidewire] [--binary target/release/sidewire] [--runs N]

The server is pinned to one CPU and the generator to another. Figures of two runs do not compare: ratios do.
"""

import argparse
import os
import pathlib
import platform
import resource
import sys
import time

import measure
import sections
import servers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short run of each figure")
    parser.add_argument("--only", default="", help="sections, separated by commas: " + ", ".join(sections.ALL))
    parser.add_argument("--without", default="", help="servers to leave out: sidewire, nchan")
    parser.add_argument("--binary", type=pathlib.Path, default=servers.ROOT / "target/release/sidewire")
    parser.add_argument("--runs", type=int, default=0, help="runs of each figure, of which the median counts")
    parser.add_argument("--cpus", default="0,1", help="the server's and the generator's")
    arguments = parser.parse_args()

    without = set(filter(None, arguments.without.split(",")))
    if "sidewire" not in without and not arguments.binary.exists():
        sys.exit(f"{arguments.binary} is missing: cargo build --release")
    if "nchan" not in without and not servers.NCHAN_MODULE.exists():
        sys.exit(f"{servers.NCHAN_MODULE} is missing: tests/setup.sh --bench")
    raise_file_limit(16_000)

    bench = sections.Bench(
        cpus=tuple(int(cpu) for cpu in arguments.cpus.split(",")),
        seconds=1.5 if arguments.quick else 4,
        runs=arguments.runs or (1 if arguments.quick else 3),
        binary=arguments.binary.resolve(),
        without=without,
        log_events=100_000 if arguments.quick else 1_000_000,
    )
    begin = time.monotonic()
    print(f"# {'Quick run' if arguments.quick else 'Run'} of {time.strftime('%Y-%m-%d %H:%M')}\n")
    print(f"{cpu_model()}, {os.cpu_count()} CPUs, Linux {platform.release()}; server on CPU {bench.cpus[0]}, "
          f"generator on CPU {bench.cpus[1]}; medians of {bench.runs}.", flush=True)
    names = [name for name in arguments.only.split(",") if name] or list(sections.ALL)
    for name in names:
        sections.ALL[name](bench)
    print(f"\nTook {time.monotonic() - begin:.0f} s.")
    loud = sum(share > 0.05 for share in measure.disturbed)
    if loud:
        print(f"In {loud} of {len(measure.disturbed)} phases others used more than 5 % of a CPU: measure again on a "
              "machine that has nothing else to do.")


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        return next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())


def raise_file_limit(least):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < least:
        if hard != resource.RLIM_INFINITY and hard < least:
            sys.exit(f"ulimit -n is {hard}; the runs with 10,000 and 15,000 connections need {least}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))


if __name__ == "__main__":
    main()
