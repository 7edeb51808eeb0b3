#!/usr/bin/env bash
# The systemd units: without a mistake, and with little left that the services could reach.
#   tests/deploy/units.sh BINARY
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=$(realpath "${1:?"usage: units.sh BINARY"}")

# systemd looks for the programs that the units name: in a root of their own.
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,usr/bin,usr/lib/systemd/system}
cp systemd/*.service systemd/*.socket "$root/usr/lib/systemd/system/"
cp /usr/lib/systemd/system/{*.target,*.slice} "$root/usr/lib/systemd/system/"
install -m 755 /bin/kill "$root/bin/kill"
install -m 755 "$binary" "$root/usr/bin/sidewire"

units=(sidewire.service sidewire.socket sidewire@shop.service sidewire@shop.socket)
said=$(systemd-analyze verify --man=no --root="$root" "${units[@]}" 2>&1) || { echo "$said" >&2; exit 1; }
# It warns of unknown settings and still succeeds.
if [[ -n $said ]]; then
    echo "$said" >&2
    exit 1
fi
for service in sidewire.service sidewire@shop.service; do
    # The threshold is in tenths.
    systemd-analyze security --no-pager --offline=yes --root="$root" --threshold=15 "$service" | tail -1
done

# What an instance has for itself must not be found in the single service, and nothing else may differ.
instance() {
    sed -E 's/ for %i$//; s/, for %i$//; s/@%i//; s|/etc/sidewire/%i\.toml|/etc/sidewire/sidewire.toml|; s|sidewire/%i\.secrets|sidewire/secrets|; s/sidewire-%i/sidewire/' systemd/sidewire@.service
}
diff <(instance) systemd/sidewire.service
echo "units passed"
