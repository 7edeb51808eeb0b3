"""What the runbook tells somebody to type or to look at is there: commands and their flags, keys, metrics, log lines, links."""

import pathlib
import re
import shlex
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNBOOK = ROOT / "docs/runbook.md"


def spans():
    """Everything that is quoted as it is typed."""
    return re.findall(r"`([^`]+)`", RUNBOOK.read_text())


def queries():
    """What is asked of Prometheus."""
    return [span for span in spans() if "sidewire_" in span and re.search(r"[(/]", span)]


def anchors(document):
    """The anchors of a document: those of its headings, and those that it names."""
    text = document.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    of_headings = {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return of_headings | set(re.findall(r'<a id="([\w-]+)">', text))


def check(rules, sidewire, keys, metrics):
    """`keys` are those of a configuration, `metrics` those that a node tells."""
    entries = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.M)
    alerts = []
    for group in yaml.safe_load(rules.read_text())["groups"]:
        for rule in group["rules"]:
            alerts.append(rule["alert"])
            anchor = rule["annotations"]["runbook_url"].partition("docs/runbook.md#")[2]
            assert anchor == rule["alert"].lower(), rule["alert"]
    assert entries == alerts, "docs/runbook.md has other entries than there are alerts, or in another order"
    commands = check_commands(sidewire)
    sections = {key.partition(".")[0] for key in keys}
    for span in spans():
        if re.fullmatch(r"[a-z]+(\.[a-z_]+)+", span) and span.partition(".")[0] in sections:
            known = any(key == span or key.startswith(span + ".") for key in keys)
            assert known, f"the runbook names {span}, which is no key"
        for name in re.findall(r"sidewire_\w+", span):
            assert re.sub("_(bucket|count|sum)$", "", name) in metrics, f"the runbook names {name}, which no node tells"
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.rs"))
    for line in re.findall(r"log lines? `([^`]+)`", RUNBOOK.read_text()):
        assert line in sources, f"no node says {line!r}, as the runbook has it"
    for document, anchor in re.findall(r"\]\(([\w/.-]*)#([\w-]+)\)", RUNBOOK.read_text()):
        place = RUNBOOK.parent / document if document else RUNBOOK
        assert anchor in anchors(place), f"the runbook leads to #{anchor} of {place.name}, which is not there"
    return commands


def check_commands(sidewire):
    """Each command is one of ours, with flags that it takes. Gives how many there are."""
    helps = {}
    for span in spans():
        # What stands before is `sudo`, `kubectl exec` or a variable.
        _, name, arguments = span.rpartition("sidewire ")
        if not name or not re.match("[a-z]", arguments):
            continue
        words = shlex.split(arguments)
        names = []
        for word in words:
            # Words in capitals are to be filled in, and begin the arguments.
            if not re.fullmatch(r"[a-z-]+", word) or word.startswith("-"):
                break
            names.append(word)
        asked = subprocess.run([sidewire, *names, "--help"], capture_output=True, text=True)
        assert asked.returncode == 0, f"the runbook has `{span}`: {asked.stderr}"
        for flag in (word for word in words if word.startswith("--")):
            assert f"{flag} " in asked.stdout or f"{flag}\n" in asked.stdout, f"the runbook has `{span}`: no {flag}"
        helps[tuple(words)] = names
    assert helps, "the runbook has no commands"
    return len(helps)
