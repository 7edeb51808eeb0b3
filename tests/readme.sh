#!/usr/bin/env bash
# Runs what README.md tells people to run, against a node of its own.
#   tests/readme.sh BINARY
#
# A code block counts if the line before it is `<!-- tested -->`: a `sh` block must end with exit code 0, a `toml`
# block is the node's configuration. `<!-- tested 124 -->` is for what runs until it is interrupted: it must still
# be running after some seconds. The ports of the README are replaced by those that the node really has.
set -euo pipefail

binary=$(realpath "${1:?usage: tests/readme.sh BINARY}")
root=$(realpath "$(dirname "$0")/..")
readme=$root/README.md
work=$(mktemp -d)
node=
finish() {
    if [[ -n "$node" ]]; then
        kill "$node" 2>/dev/null || true
        wait "$node" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT

mkdir "$work/bin" "$work/blocks"
ln -s "$binary" "$work/bin/sidewire"
ln -s "$root/examples" "$work/examples"
# The example apps must not take a port that somebody else has.
free_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# With `curl` as people type it, an error answer is an exit code as well.
printf 'fail-with-body\nsilent\nshow-error\n' > "$work/.curlrc"
awk -v out="$work/blocks" '
    /^```/ && file { close(file); file = ""; next }
    file { print > file; next }
    match($0, /^<!-- tested( [0-9]+)? -->$/) { expected = $3 == "-->" ? 0 : $3; marked = NR; next }
    /^```(sh|toml)$/ && marked == NR - 1 { file = sprintf("%s/%03d.%d.%s", out, NR, expected, substr($0, 4)) }
' "$readme"
cat "$work"/blocks/*.toml > "$work/sidewire.toml"

"$binary" run --config "$work/sidewire.toml" --data-dir "$work/data" \
    --app 127.0.0.1:0 --client 127.0.0.1:0 --admin 127.0.0.1:0 2> "$work/log" &
node=$!
for _ in $(seq 100); do
    grep -q ' started ' "$work/log" && break
    sleep 0.1
done
grep -q ' started ' "$work/log" || { cat "$work/log" >&2; exit 1; }
port() {
    sed -n "s/.*listening listener=\"$1\" address=127.0.0.1:\([0-9]*\).*/\1/p" "$work/log"
}
app=$(port app) client=$(port client) admin=$(port admin)
if [[ -z "$app" || -z "$client" || -z "$admin" ]]; then
    echo "the node did not start:" >&2
    cat "$work/log" >&2
    exit 1
fi

failed=0 count=0
for block in "$work"/blocks/*.sh; do
    name=$(basename "$block" .sh)
    expected=${name#*.}
    sed -i "s/127\.0\.0\.1:7070/127.0.0.1:$app/g; s/127\.0\.0\.1:7080/127.0.0.1:$client/g; s/127\.0\.0\.1:7090/127.0.0.1:$admin/g; s/\b8000\b/$free_port/g" "$block"
    limit=30
    [[ "$expected" == 124 ]] && limit=2
    code=0
    (
        cd "$work"
        export CURL_HOME="$work" PATH="$work/bin:$root/.cache/python/bin:$PATH" PYTHONDONTWRITEBYTECODE=1
        export SIDEWIRE_APP__LISTEN="127.0.0.1:$app" SIDEWIRE_CLIENT__LISTEN="127.0.0.1:$client" SIDEWIRE_ADMIN__LISTEN="127.0.0.1:$admin"
        timeout "$limit" bash -euo pipefail "$block"
    ) > "$work/output" 2>&1 < /dev/null || code=$?
    count=$((count + 1))
    if [[ "$code" != "$expected" ]]; then
        failed=1
        echo "README.md line $((10#${name%%.*})): exit code $code, not $expected" >&2
        cat "$block" "$work/output" >&2
    fi
done
if [[ "$count" == 0 ]]; then
    echo "README.md has no tested lines" >&2
    exit 1
fi
[[ "$failed" == 0 ]] && echo "README.md: $count blocks work"
exit "$failed"
