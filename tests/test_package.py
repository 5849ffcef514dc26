"""What the package says of itself is said once, and its files agree."""

import configparser
import importlib
import re
from pathlib import Path

import gmjax

ROOT = Path(__file__).parents[1]


def test_one_version():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert settings["metadata"]["version"] == "attr: gmjax.__version__"
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    changes = re.findall(r"^## (\d.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert cited is not None and cited[1] == changes[0] == gmjax.__version__


def test_one_licence():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0" in text
    for file, line in (
        ("setup.cfg", "license = Apache-2.0"),
        ("CITATION.cff", "license: Apache-2.0"),
    ):
        assert line in (ROOT / file).read_text().splitlines()


def test_what_a_guide_names_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name in re.findall(r"`((?:gmjax|docs|configs|experiments|tests)/[\w/.]*)`", text):
        assert (ROOT / name).exists(), name
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / path).exists(), path


def test_nothing_hides_a_module():
    """`from gmjax.room import name` is the module of that name, where there is one."""
    for file in sorted(Path(gmjax.__file__).parent.rglob("*.py")):
        parts = ("gmjax", *file.relative_to(Path(gmjax.__file__).parent).with_suffix("").parts)
        if parts[-1] not in ("__init__", "__main__"):
            module = importlib.import_module(".".join(parts))
            found = getattr(importlib.import_module(".".join(parts[:-1])), parts[-1])
            assert found is module, ".".join(parts)
