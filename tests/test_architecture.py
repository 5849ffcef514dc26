"""Imports run downwards only, every file can be held in the head, TensorFlow stays out."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gmjax

ROOT = Path(gmjax.__file__).parent
BASE = {"types", "draws", "spaces", "generators", "processes"}
ALLOWED = {
    "types": set(),
    "draws": {"types"},
    "spaces": {"types", "draws", "spaces"},
    "generators": {"types", "draws", "spaces"},
    "processes": BASE,
    "paths": BASE | {"paths"},
    "targets": BASE | {"paths", "targets"},
    "classical": {"types", "classical"},
    "losses": BASE | {"paths", "losses"},
    "likelihoods": BASE | {"paths", "losses", "likelihoods"},
    "samplers": BASE | {"paths", "samplers"},
    "networks": {"types", "networks"},
    "data": {"types", "data"},
    "metrics": {"types", "metrics"},
    "training": {"types", "training"},
    "methods": BASE
    | {"paths", "classical", "losses", "likelihoods", "samplers", "networks", "methods"},
    "reporting": {"types", "data", "metrics", "training"},
    "main": {"types", "data", "methods", "reporting", "training"},
}


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """The rooms of ours that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            parts = node.module.split(".")
            if parts[0] == "gmjax":
                yield from parts[1:2] or [alias.name for alias in node.names]
            elif parts[0] in ("configs", "experiments", "tests"):
                yield parts[0]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] in ("gmjax", "configs", "experiments", "tests"):
                    yield parts[1] if parts[0] == "gmjax" and parts[1:] else parts[0]


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path.name != "__init__.py"]
FILES += sorted(ROOT.rglob("*/__init__.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path):
    assert set(imported(path)) <= ALLOWED[room(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 420


def test_tensorflow_stays_out_of_the_default_path():
    code = (
        "import sys, gmjax.main, gmjax.reporting, gmjax.methods, configs.discrete_diffusion;"
        "sys.exit('tensorflow' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent).returncode == 0
