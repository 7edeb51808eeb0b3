#!/usr/bin/env bash
# Builds what a release consists of, from what is committed: `make release`.
#
# Two builds of one commit on one machine are the same, byte by byte, whatever the directory, the user, the umask and the
# locale: dependencies are locked, paths are mapped away, and every time stamp is that of the commit.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! git diff --quiet HEAD --; then
    echo "there are changes that are not committed: a release would have a part of them" >&2
    exit 1
fi
export LC_ALL=C TZ=UTC
umask 022

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
machine=$(uname -m)
target=$machine-unknown-linux-musl
name=sidewire-$version-$machine-linux
dist=target/dist
rm -rf "$dist"
mkdir -p "$dist/$name"

SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
# What somebody's shell may say of builds is not for this one.
unset RUSTFLAGS CARGO_TARGET_DIR CARGO_BUILD_TARGET CARGO_BUILD_TARGET_DIR
export CARGO_INCREMENTAL=0
# The sources of the standard library are named as if they were not installed here. A path may have spaces.
commit=$(rustc --version --verbose | sed -n 's/^commit-hash: //p')
flags=(
    "--remap-path-prefix=$PWD=/sidewire"
    "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    "--remap-path-prefix=$(rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$commit"
)
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS

# The archive: a static binary that runs on any distribution, or none.
if [[ $machine == aarch64 ]]; then
    # Kernels for ARM have pages of up to 64 KiB; the allocator must be built for the largest that it will meet.
    export JEMALLOC_SYS_WITH_LG_PAGE=16
fi
rustup target add "$target"
cargo build --release --locked --target "$target"
install -m 755 "target/$target/release/sidewire" "$dist/$name/"
git archive HEAD config.toml.example README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT systemd deploy |
    tar --extract --directory "$dist/$name"
"$dist/$name/sidewire" generate "$dist/$name/generated"
tar --create --directory "$dist" --format=gnu --sort=name --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX --mtime="@$SOURCE_DATE_EPOCH" "$name" |
    gzip --no-name --best >"$dist/$name.tar.gz"

# The package: linked with the libraries of the distribution it is built on.
cargo build --release --locked
rm -rf target/generated
cp -r "$dist/$name/generated" target/generated
cargo deb --locked --no-build --output "$dist/"
rm -rf "${dist:?}/$name"

cargo sbom --output-format=cyclone_dx_json_1_6 | packaging/sbom.py >"$dist/sidewire-$version.cdx.json"

cd "$dist"
sha256sum -- * >SHA256SUMS
cat SHA256SUMS
