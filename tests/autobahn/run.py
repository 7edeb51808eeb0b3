"""Runs the conformance cases of the Autobahn test suite against a WebSocket echo server.

    python3 run.py ws://127.0.0.1:PORT/ [case prefix ..]

Sections 1 to 7, 9 and 10: 301 cases, in about half a minute. 12 and 13 are about compression, which Sidewire does not
negotiate. The last line is `N passed, M failed`; the exit code is 0 only if every case passed.
Needs pip, and lib2to3 (Python up to 3.12) or fissix: `run.sh` sees to both.
"""

import asyncio
import sys

import suite
from peer import Peer

# NON-STRICT: right, but later than the suite would like. INFORMATIONAL: the RFC leaves it open.
GOOD_BEHAVIOUR = ("OK", "NON-STRICT", "INFORMATIONAL")
GOOD_CLOSE = ("OK", "INFORMATIONAL")


async def run_all(url, cases):
    """The names of the cases that failed, and of those that were right but late."""
    failed, late = [], []
    for name, case_class in cases:
        try:
            case = await Peer().run(url, case_class)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            failed.append(name)
            continue
        if case.behavior not in GOOD_BEHAVIOUR or case.behaviorClose not in GOOD_CLOSE:
            told = f"{getattr(case, 'result', '')} {getattr(case, 'resultClose', '')}"
            print(f"{name}: {case.behavior} / {case.behaviorClose}: {told}"[:300], flush=True)
            failed.append(name)
        elif case.behavior == "NON-STRICT":
            late.append(name)
    return failed, late


def main(url, prefixes):
    cases = suite.load(Peer)
    if prefixes:
        cases = [case for case in cases if any(f"{case[0]}.".startswith(f"{prefix}.") for prefix in prefixes)]
    failed, late = asyncio.run(run_all(url, cases))
    if late:
        print(f"passed, but late: {' '.join(late)}")
    if failed:
        print(f"failed: {' '.join(failed)}")
    print(f"{len(cases) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not cases else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
