"""The benchmark of the classical models covers every target, and both sides compute the same."""

import re

import pytest

from experiments.benchmarks import latent


@pytest.mark.slow
def test_a_smoke_run_covers_every_target(tmp_path, monkeypatch):
    monkeypatch.delenv("GMJAX_DATA_DIR", raising=False)
    found = latent.main(["--smoke", "--repeats", "1", "--out", str(tmp_path)])
    assert [row.target for row in found] == ["pca", "pca", "ppca", "kmeans", *4 * ["gmm"]]
    assert all(row.ratio > 0 and row.chain == "synthetic" for row in found)
    # float32 on both sides; the randomised solvers draw different directions.
    for row in found:
        off = float(re.search(r"differs (.*)", row.what)[1])
        assert off < (0.05 if "randomised" in row.what else 1e-3), row.what
    assert (tmp_path / "latent.csv").exists()


def test_synthetic_images_look_like_images(monkeypatch):
    monkeypatch.delenv("GMJAX_DATA_DIR", raising=False)
    x, name = latent.images(50)
    assert x.shape == (50, 784) and name == "synthetic"
    assert x.min() >= 0 and x.max() <= 1
