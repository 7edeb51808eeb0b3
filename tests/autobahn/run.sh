#!/usr/bin/env bash
# Runs the Autobahn cases against a freshly started echo server:
#
#     tests/autobahn/run.sh target/release/sidewire [case prefix ..]
#
# The last line is `N passed, M failed`. Fails, and never skips, if a case fails or the suite cannot be run.
# PYTHON names another interpreter than python3; what it lacks is installed below target/.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
binary=${1:?"usage: run.sh BINARY [case prefix ..]"}
shift
python=${PYTHON:-python3}

# The suite is Python 2 code. Python 3.13 no longer has the converter, and some systems split pip off.
if ! "$python" -W ignore -c 'import lib2to3.refactor, pip' 2>/dev/null; then
    tools=$here/../../target/autobahn-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if ! "$tools/bin/python" -c 'import fissix.refactor, pip' 2>/dev/null; then
        "$python" -m venv --clear "$tools"
        "$tools/bin/python" -m pip --quiet --disable-pip-version-check install fissix==24.4.24
    fi
    python=$tools/bin/python
fi

port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$binary" echo --listen "127.0.0.1:$port" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT

for attempt in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        break
    fi
    if ! kill -0 "$server" 2>/dev/null || [ "$attempt" = 100 ]; then
        echo "the echo server does not accept connections on port $port" >&2
        exit 1
    fi
    sleep 0.1
done

PYTHONDONTWRITEBYTECODE=1 "$python" "$here/run.py" "ws://127.0.0.1:$port/" "$@"
