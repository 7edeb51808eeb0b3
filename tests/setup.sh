#!/usr/bin/env bash
# Installs what the tests need on a bare Debian or Ubuntu that has Rust, and only what is missing.
#   tests/setup.sh [--bench | --deploy]     --bench: also what the benchmarks compare with
#                                           --deploy: also what the checks of the deployment run
set -euo pipefail

# A command that shows that a package is there, and the package.
needs=(cc:build-essential pkg-config:pkg-config curl:curl python3:python3 chromium:chromium)
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
if [[ ${#packages[@]} -eq 0 ]]; then
    exit 0
fi

as_root=()
if [[ $EUID -ne 0 ]]; then
    as_root=(sudo)
fi
echo "installing: ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
