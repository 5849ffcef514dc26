"""The benchmark of the classical models covers every target, and both sides compute the same."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import latent, peers
from gmjax.types import Method


@pytest.mark.slow
def test_a_smoke_run_covers_every_target(tmp_path, monkeypatch):
    monkeypatch.delenv("GMJAX_DATA_DIR", raising=False)
    found = latent.main(["--smoke", "--repeats", "1", "--out", str(tmp_path)])
    classical = [row.target for row in found if row.target != "vae"]
    assert classical == ["pca", "pca", "ppca", "kmeans", *4 * ["gmm"]]
    assert any(row.target == "vae" for row in found) == peers.have_torch()
    assert all(row.ratio > 0 and row.chain == "synthetic" for row in found)
    # float32 on both sides; the randomised solvers draw different directions.
    for row in found:
        off = float(re.search(r"differs (.*)", row.what)[1])
        assert off < (0.05 if "randomised" in row.what else 1e-3), row.what
    assert (tmp_path / "latent.csv").exists()


def test_updates_are_timed_as_training_does_them(monkeypatch):
    """Batches follow each other from call to call, and the state is carried on."""
    monkeypatch.delenv("GMJAX_DATA_DIR", raising=False)
    source, name = latent.binary(30)
    assert name == "synthetic" and source.take(np.arange(3))["x"].shape == (3, 28, 28, 1)
    seen = []

    def batch(index):
        seen.append(index)
        return {"x": source.take(np.arange(5))["x"]}

    update = lambda state, key, batch: (state + 1, {"loss": state * 1.0})
    method = Method(lambda key: jnp.zeros(()), update, lambda *a: {}, lambda *a: None)
    program = latent._updates(method, jnp.zeros(()), batch, 3)
    assert program.run() == 2.0 and program.run() == 5.0
    assert seen == [0, *range(6)]


def test_synthetic_images_look_like_images(monkeypatch):
    monkeypatch.delenv("GMJAX_DATA_DIR", raising=False)
    x, name = latent.images(50)
    assert x.shape == (50, 784) and name == "synthetic"
    assert x.min() >= 0 and x.max() <= 1
