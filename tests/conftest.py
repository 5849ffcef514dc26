"""What all tests share: cheap compilation.

The tests compile a dozen small programs each and run most of them once, so that compiling is three
quarters of their time. Code generation without its expensive passes halves that and changes
no mathematics; `JAX_DISABLE_MOST_OPTIMIZATIONS=0` runs them as a user's programs are compiled, and
so do those that are marked `simulates`, whose runs outweigh their compiling.
"""

import os

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest


@pytest.fixture(autouse=True)
def compiled_in_full(request, monkeypatch):
    if not request.node.get_closest_marker("simulates"):
        yield
        return
    name = "jax_disable_most_optimizations"
    before = jax.config.values[name]
    monkeypatch.setenv(name.upper(), "0")  # of the commands that a test starts
    jax.config.update(name, False)
    yield
    jax.config.update(name, before)
