#!/usr/bin/env bash
# The Debian package: built from a binary that is there, installed into a root of its own, run, removed.
#   tests/deploy/package.sh BINARY
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=$(realpath "${1:?"usage: package.sh BINARY"}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

rm -rf target/generated
"$binary" generate target/generated
cargo deb --quiet --locked --fast --no-build --no-strip --profile dev --output "$work/sidewire.deb"

root=$work/root
mkdir -p "$root/var/lib/dpkg"/{info,updates,triggers} "$root/var/log"
touch "$root/var/lib/dpkg/status"
in_root() {
    # Its libraries are those of this host.
    dpkg --root="$root" --force-script-chrootless --force-depends --log="$work/dpkg.log" "$@" >"$work/said" 2>&1 || {
        cat "$work/said" >&2
        exit 1
    }
}
in_root --install "$work/sidewire.deb"
"$root/usr/bin/sidewire" check-config "$root/etc/sidewire/sidewire.toml"
cmp "$root/usr/bin/sidewire" "$binary"
for page in "$root"/usr/share/man/man1/sidewire*.1.gz; do
    gzip --test "$page"
done
[[ -f $root/usr/share/man/man1/sidewire-run.1.gz ]]
bash -n "$root/usr/share/bash-completion/completions/sidewire"
[[ -f $root/usr/share/zsh/vendor-completions/_sidewire && -f $root/usr/share/fish/vendor_completions.d/sidewire.fish ]]
for unit in systemd/*.service systemd/*.socket; do
    cmp "$unit" "$root/usr/lib/systemd/system/$(basename "$unit")"
done
grep --quiet sidewire-app "$root/usr/lib/sysusers.d/sidewire.conf"
[[ $(dpkg-deb --field "$work/sidewire.deb" Version) == 0.1.0* ]]
dpkg-deb --field "$work/sidewire.deb" Depends | grep --quiet libc6

# The installed node runs, is ready and ends.
mkdir "$work/data"
"$root/usr/bin/sidewire" run --config "$root/etc/sidewire/sidewire.toml" --data-dir "$work/data" \
    --app "unix:$work/app" --client "unix:$work/client" --admin "unix:$work/admin" 2>"$work/log" &
node=$!
trap 'kill "$node" 2>/dev/null || true; rm -rf "$work"' EXIT
for attempt in $(seq 300); do
    if "$root/usr/bin/sidewire" health --admin "unix:$work/admin" 2>/dev/null; then
        break
    fi
    if [[ $attempt == 300 ]]; then
        cat "$work/log" >&2
        exit 1
    fi
    sleep 0.1
done
"$root/usr/bin/sidewire" doctor --round-trip --app "unix:$work/app" --client "unix:$work/client"
kill "$node"
wait "$node"

# A configuration that was changed stays when the package goes, and goes when it is purged; so do the logs.
echo "# changed" >>"$root/etc/sidewire/sidewire.toml"
mkdir -p "$root/var/lib/private/sidewire"
in_root --remove sidewire
[[ ! -e $root/usr/bin/sidewire && -e $root/etc/sidewire/sidewire.toml && -e $root/var/lib/private/sidewire ]]
in_root --purge sidewire
left=$(find "$root" -name '*sidewire*')
if [[ -n $left ]]; then
    echo "left after a purge: $left" >&2
    exit 1
fi
echo "package passed"
