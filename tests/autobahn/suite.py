"""Downloads the cases of the Autobahn test suite and makes Python 3 of them. No case is kept here."""

import glob
import importlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import types
import warnings

VERSION = "25.10.1"
SHA256 = "b083d6e15330fc16f3e5f0975cce2b15f21bfa0c6db09547316b1852c6dbd6df"
# Compression.
LEFT_OUT = ("case12", "case13")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        from lib2to3 import refactor

        FIXERS = "lib2to3.fixes"
    except ImportError:
        from fissix import refactor

        FIXERS = "fissix.fixes"


def load(peer_class):
    """All cases, as (name, class). They believe that `peer_class` is Autobahn's client."""
    with tempfile.TemporaryDirectory(prefix="autobahn-") as folder:
        source = download(folder)
        convert(f"{source}/autobahntestsuite/case", f"{folder}/autobahn_cases")
        pretend_modules(peer_class)
        sys.path.insert(0, folder)
        # The cases are of the time when "\\." in a string was no reason to complain.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            package = importlib.import_module("autobahn_cases")
            base = importlib.import_module("autobahn_cases.case").Case
        sys.path.remove(folder)
    base.compare = lambda self, expected, actual: comparable(expected) == comparable(actual)
    return [(case.__name__[len("Case") :].replace("_", "."), case) for case in package.Cases]


def download(folder):
    """Unpacks the suite's source. pip checks its hash first, as all of it is going to be run."""
    wanted = f"{folder}/requirements.txt"
    with open(wanted, "w", encoding="ascii") as file:
        file.write(f"autobahntestsuite=={VERSION} --hash=sha256:{SHA256}\n")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
    subprocess.run([*pip, "--require-hashes", "--no-deps", "--dest", folder, "-r", wanted], check=True)
    with tarfile.open(f"{folder}/autobahntestsuite-{VERSION}.tar.gz") as archive:
        archive.extractall(folder)
    return f"{folder}/autobahntestsuite-{VERSION}"


def convert(source, target):
    tool = refactor.RefactoringTool(refactor.get_fixers_from_package(FIXERS), {})
    os.makedirs(target)
    for path in glob.glob(f"{source}/*.py"):
        name = os.path.basename(path)
        if name.startswith(LEFT_OUT):
            continue
        with open(path, encoding="latin-1") as file:
            code = file.read()
        if name == "__init__.py":
            code = "\n".join(line for line in code.split("\n") if not re.search("[cC]ase1[23]", line))
        code = str(tool.refactor_string(code + "\n", name))
        # What the converter cannot know: text that meant bytes, and division that meant whole numbers.
        code = code.replace("import binascii", "import latin_hex as binascii")
        code = code.replace('.encode("utf-8")', '.encode("utf-8", "surrogatepass")')
        code = code.replace("(object, Case, )", "(Case,)").replace("(object, Case)", "(Case,)")
        code = code.replace(" / self.p.autoFragmentSize", " // self.p.autoFragmentSize")
        code = re.sub(r"^(\s*)from (case\w*) import", r"\1from .\2 import", code, flags=re.MULTILINE)
        with open(f"{target}/{name}", "w", encoding="utf-8") as file:
            file.write(code)


def pretend_modules(peer_class):
    """The little that the cases use of libraries which exist for Python 2 alone."""

    def pretend(name, **contents):
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(contents)

    pretend("latin_hex", b2a_hex=lambda text: as_bytes(text).hex())
    pretend("autobahn")
    pretend("autobahn.websocket")
    pretend("autobahn.websocket.utf8validator", Utf8Validator=Utf8Validator)
    pretend("autobahn.websocket.protocol", WebSocketProtocol=peer_class)
    pretend("zope")
    pretend("zope.interface", implements=lambda *interfaces: None)
    pretend("twisted")
    pretend("twisted.internet", reactor=None, interfaces=types.SimpleNamespace(IPushProducer=None))


class Utf8Validator:
    def reset(self):
        pass

    def validate(self, text):
        encoded = as_bytes(text)
        try:
            encoded.decode()
            return True, True, len(encoded), len(encoded)
        except UnicodeDecodeError as error:
            return error.reason == "unexpected end of data", False, error.start, error.start


def as_bytes(text):
    """The cases keep bytes in text, one in each character, and text too."""
    if isinstance(text, bytes):
        return text
    if all(ord(character) < 256 for character in text):
        return text.encode("latin-1")
    return text.encode("utf-8", "surrogatepass")


def as_text(encoded):
    return encoded if isinstance(encoded, str) else encoded.decode("latin-1")


def comparable(value):
    if isinstance(value, (list, tuple)):
        return [comparable(item) for item in value]
    return as_bytes(value) if isinstance(value, (str, bytes)) else value
