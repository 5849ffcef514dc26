"""The benchmark compares the same functions, and runs."""

import importlib.util

import jax
import numpy as np
import pytest

from experiments.benchmarks import euclidean, peers

HAVE_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAVE_TORCH, reason="torch is not installed")


@needs_torch
@pytest.mark.parametrize("case", euclidean.smoke(), ids=lambda case: case.name)
def test_the_peer_is_the_same_function(case):
    """Weights are copied, so outputs agree up to rounding and parameters in number."""
    import torch

    params, (x, t) = euclidean.parameters(case), euclidean.example(case, 3)
    ours = np.asarray(jax.jit(case.network.apply)(params, x, t))
    twin = case.twin(params)
    with torch.no_grad():
        theirs = twin(torch.from_numpy(np.array(x)), torch.from_numpy(np.array(t))).numpy()
    assert np.abs(ours).max() > 1e-3
    np.testing.assert_allclose(theirs, ours, atol=2e-5 * np.abs(ours).max())
    assert sum(p.numel() for p in twin.parameters()) == sum(p.size for p in jax.tree.leaves(params))


@needs_torch
def test_two_levels_agree_too():
    """Strides and their padding, and the order of the skips."""
    test_the_peer_is_the_same_function(euclidean.unet((4, 8), 4, 2, 2))


def test_utilisation_is_operations_over_time_over_peak():
    case = euclidean.perceptron(64, 16)
    flops = 2 * 16 * (3 * 64 + 3 * 64**2 + 64 * 2)  # and a few for every activation
    used = euclidean.utilisation(case, "training", 1e-6, "NVIDIA H100 80GB HBM3")
    assert used == pytest.approx(3 * flops / 1e-6 / 989e12, rel=0.1)
    assert used < euclidean.utilisation(case, "training", 1e-6, "NVIDIA A100-SXM4-40GB")
    assert euclidean.utilisation(case, "training", 1e-6, "NVIDIA H100 PCIe") > used
    assert euclidean.utilisation(case, "training", 1e-6, "cpu") is None


def test_a_run_without_torch_measures_the_share(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(peers, "have_torch", lambda: False)
    found = euclidean.main(["--smoke", "--only", "mlp", "--repeats", "2", "--out", str(tmp_path)])
    assert "not installed" in capsys.readouterr().out
    assert [row.target for row in found] == ["outside, training", "outside, sampling"]
    assert all(row.low <= row.ratio <= row.high < 1 for row in found)


@needs_torch
@pytest.mark.slow
def test_a_smoke_run_covers_every_case_and_target(tmp_path):
    found = euclidean.main(["--smoke", "--repeats", "2", "--out", str(tmp_path)])
    assert {(row.chain, row.target) for row in found} == {
        (case, target + part)
        for case in ("mlp", "unet", "dit")
        for target in ("", "outside, ")
        for part in ("training", "sampling")
    }
    against = {row.against for row in found if row.chain == "mlp"}
    assert against - {"flow_matching"} == {"torch eager", "network"}
    assert (tmp_path / "euclidean.csv").exists()
