#!/usr/bin/env bash
# The units in a real systemd, booted in namespaces of its own over a copy-on-write view of this machine: that the
# sandbox lets the node do its work, that a restart refuses nothing, that the watchdog bites. As root, on a machine with
# cgroup 2; `make systemd-boot`, apart from `make test`, as not every machine that builds may do this.
#   tests/deploy/boot.sh BINARY
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?"usage: boot.sh BINARY"}")
work=$(mktemp -d)
group=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)/sidewire-boot-$$
# With its systemd gone the groups below are empty.
trap 'find "$group" -depth -type d -exec rmdir {} \; ; rm -rf "$work"' EXIT
mkdir -p "$work"/{root,layers,share} "$group"
cp "$binary" "$here"/../../systemd/* "$here/boot_inside.sh" "$work/share/"

# A group of control groups of its own is all of them that this systemd sees.
(
    echo "$BASHPID" >"$group/cgroup.procs"
    exec timeout 180 unshare --mount --pid --fork --cgroup --uts --ipc --net bash -euc '
        work=$1 root=$1/root
        mount --make-rprivate /
        mount -t tmpfs tmpfs "$work/layers"
        mkdir "$work"/layers/{upper,work}
        mount -t overlay overlay -o "lowerdir=/,upperdir=$work/layers/upper,workdir=$work/layers/work" "$root"
        mount -t proc proc "$root/proc"
        mount -t sysfs -o ro sysfs "$root/sys"
        mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
        mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
        for place in run tmp dev; do mount -t tmpfs tmpfs "$root/$place"; done
        for device in null zero full random urandom tty; do
            touch "$root/dev/$device"
            mount --bind "/dev/$device" "$root/dev/$device"
        done
        mkdir "$root"/dev/{shm,pts}
        mount -t devpts devpts "$root/dev/pts" -o newinstance,ptmxmode=0666
        ln -s pts/ptmx "$root/dev/ptmx"
        mkdir -p "$root/opt/share" "$root/old"
        mount --bind "$work/share" "$root/opt/share"
        ip link set lo up

        rm -rf "$root"/etc/systemd/system/*
        install -m 755 "$root/opt/share/sidewire" "$root/usr/bin/sidewire"
        cp "$root"/opt/share/*.service "$root"/opt/share/*.socket "$root/etc/systemd/system/"
        cp "$root/opt/share/sidewire.sysusers" "$root/usr/lib/sysusers.d/sidewire.conf"
        mkdir -p "$root/etc/sidewire"
        : >"$root/etc/sidewire/sidewire.toml"
        printf "[client]\nlisten = \"127.0.0.1:7180\"\n[admin]\nlisten = \"127.0.0.1:7190\"\n" >"$root/etc/sidewire/shop.toml"
        printf "[Unit]\nAfter=basic.target\n[Service]\nType=oneshot\nExecStart=/bin/bash /opt/share/boot_inside.sh\nStandardOutput=file:/opt/share/said\nStandardError=inherit\n" >"$root/etc/systemd/system/inside.service"
        printf "[Unit]\nRequires=basic.target inside.service\nAllowIsolate=yes\n" >"$root/etc/systemd/system/inside.target"
        : >"$root/etc/machine-id"
        cd "$root"
        pivot_root . old
        cd /
        umount -l /old
        mount --make-rshared /
        exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test /lib/systemd/systemd --system --unit=inside.target
    ' boot "$work"
) >"$work/console" 2>&1 || true
cat "$work/share/said" 2>/dev/null || cat "$work/console"
grep --quiet '^boot passed$' "$work/share/said"
