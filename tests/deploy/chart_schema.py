#!/usr/bin/env python3
"""The part of the chart's schema that mirrors the configuration, made of `config.toml.example`.

    tests/deploy/chart_schema.py            fails if helm/sidewire/values.schema.json is not what it should be
    tests/deploy/chart_schema.py --write    makes it so
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "helm/sidewire/values.schema.json"
EXAMPLE = ROOT / "config.toml.example"

DURATION = re.compile(r"^\d+(ms|s|m|h|d)$")
SIZES = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+ ?([KMGT]i?)?B$"}]}
# A key that holds a secret itself is given by reference (`secrets`), never in the values.
SECRET = re.compile(r"(^|_)(secret|password|token|key)$")
# A listener may have several addresses; what else may be a list has one as its default.
LISTS = {"listen"}


def kind(name, value):
    """The schema of values of the same kind as the default of a key."""
    if "bytes" in name:
        return SIZES
    if value in ("true", "false"):
        return {"type": "boolean"}
    if re.fullmatch(r"-?\d+", value):
        return {"type": "integer", "minimum": 0}
    if value.startswith("["):
        return {"type": "array"}
    if value.startswith("{"):
        return {"type": "object"}
    text = value.strip('"')
    if DURATION.match(text):
        return {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d) ?)+$"}
    return {"type": "string"}


def table(keys):
    return {"type": "object", "additionalProperties": False, "properties": keys}


def configuration():
    """The schema of the whole configuration."""
    sections, section, sample = {}, None, None
    for line in EXAMPLE.read_text().splitlines():
        if found := re.fullmatch(r"\[([a-z_.]+)\]", line):
            section, sample = sections, None
            for name in found[1].split("."):
                section = section.setdefault(name, table({}))["properties"]
        elif found := re.fullmatch(r"#   \[\[([a-z_.]+)\]\].*", line):
            # A sample of a list of tables.
            *path, name = found[1].split(".")
            place = sections
            for step in path:
                place = place[step]["properties"]
            sample = place.setdefault(name, {"type": "array", "items": table({})})["items"]["properties"]
        elif sample is not None and (found := re.fullmatch(r"#   ([a-z_]+) = (\S.*?)( +#.*)?", line)):
            sample.setdefault(found[1], kind(found[1], found[2]))
        elif (found := re.fullmatch(r"# ([a-z_]+) = (\S.*)", line)) and section is not None:
            name, sample = found[1], None
            if name in LISTS:
                section[name] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
            elif SECRET.search(name):
                continue
            else:
                section.setdefault(name, kind(name, found[2]))
        elif not line.startswith("#"):
            sample = None
    url = sections["bus"]["properties"]["url"]
    url["not"] = {"pattern": "://[^/@]*:[^/@]*@"}
    url["description"] = "Without a password: an URL with one belongs into a secret (`secrets`)."
    return {"description": "Key by key as in config.toml.example."} | table(sections)


def main():
    schema = json.loads(SCHEMA.read_text())
    wanted = json.loads(json.dumps(schema))
    wanted["properties"]["config"] = configuration()
    if "--write" in sys.argv:
        SCHEMA.write_text(json.dumps(wanted, indent=2) + "\n")
    elif schema != wanted:
        sys.exit(f"{SCHEMA} does not mirror {EXAMPLE}: run tests/deploy/chart_schema.py --write")


if __name__ == "__main__":
    main()
