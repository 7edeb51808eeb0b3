#!/usr/bin/env python3
"""What `make release` has made: whole, static, described, and what the image would be made of runs alone in an empty root.

    tests/deploy/release.py DIRECTORY [SHA256SUMS]

With the checksums of another build of the same commit, in another place: the same, byte by byte. Wants the package
cyclonedx-python-lib with its JSON validation.
"""

import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What an operator finds in the archive, besides the binary.
WANTED = {
    "README.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "config.toml.example",
    "systemd/sidewire.service",
    "deploy/grafana/sidewire.json",
    "deploy/proxies/nginx.conf",
    "generated/sidewire.1",
}


def one(directory, pattern):
    (found,) = directory.glob(pattern)
    return found


def check_archive(path, place):
    """Unpacks it, and gives the path of the binary."""
    epoch = int(subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True).stdout)
    with tarfile.open(path) as archive:
        for member in archive:
            assert member.mtime == epoch, f"{member.name}: {member.mtime} is not the time of the commit, {epoch}"
            assert (member.uid, member.gid) == (0, 0), f"{member.name} belongs to somebody"
    subprocess.run(["tar", "--extract", "--file", path, "--directory", place, "--no-same-owner"], check=True)
    (top,) = place.iterdir()
    missing = [name for name in WANTED if not (top / name).exists()]
    assert not missing, f"{missing} missing among {sorted(path.name for path in top.rglob('*'))}"
    binary = top / "sidewire"
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True)
    said = listed.stdout + listed.stderr
    assert "not a dynamic executable" in said or "statically linked" in said, said
    version = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
    assert f"-{version}-" in path.name, (version, path.name)
    # It brings its own allocator, set as .cargo/config.toml says.
    asked = {"_RJEM_MALLOC_CONF": "stats_print:true"}
    allocator = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True, env=asked).stderr
    assert "opt.narenas: 2\n" in allocator, allocator[:2000]
    for paths in (str(ROOT), str(pathlib.Path.home())):
        assert paths.encode() not in binary.read_bytes(), f"{paths} of this machine is in the binary"
    return binary


def check_components(path):
    """The SBOM is one, and names exactly crates that are locked."""
    text = path.read_text()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error
    described = {(component["name"], component["version"]) for component in json.loads(text)["components"]}
    locked = {(package["name"], package["version"]) for package in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    assert described <= locked, f"not in Cargo.lock: {described - locked}"
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    wanted = set(manifest["dependencies"]).union(*(target["dependencies"] for target in manifest["target"].values()))
    missing = wanted - {name for name, _ in described}
    assert not missing, f"not in the SBOM: {missing}"
    return len(described)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    dist = pathlib.Path(sys.argv[1]).resolve()
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=dist, check=True)
    sums = dict(line.split()[::-1] for line in (dist / "SHA256SUMS").read_text().splitlines())
    files = {path.name for path in dist.iterdir()} - {"SHA256SUMS"}
    assert files == set(sums), (files, set(sums))
    components = check_components(one(dist, "*.cdx.json"))
    with tempfile.TemporaryDirectory() as place:
        binary = check_archive(one(dist, "*.tar.gz"), pathlib.Path(place))
        subprocess.run([sys.executable, ROOT / "tests/deploy/image.py", binary], check=True)
    if len(sys.argv) == 3:
        others = dict(line.split()[::-1] for line in pathlib.Path(sys.argv[2]).read_text().splitlines())
        common = sums.keys() & others.keys()
        different = {name for name in common if sums[name] != others[name]}
        assert common and not different, f"not the same in two builds: {different or 'nothing in common'}"
        print(f"the same in two builds: {', '.join(sorted(common))}")
    print(f"release passed: {len(files)} files, {components} components")


if __name__ == "__main__":
    main()
