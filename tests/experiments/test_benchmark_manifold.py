"""The sphere's benchmark runs where the peer is installed, and says so where it is not."""

import pytest

from experiments.benchmarks import manifold, peers, timing


@pytest.mark.skipif(not peers.have_flow_matching(), reason="flow_matching is not installed")
def test_a_smoke_run_covers_every_target(tmp_path):
    found = manifold.main(["--smoke", "--repeats", "2", "--out", str(tmp_path)])
    assert {row.target for row in found} == {*manifold.LOSSES, *manifold.STEPPERS}
    assert all(row.ratio > 0 for row in found)
    assert {row.goal for row in found if row.target != "network"} == {">= 5"}
    assert (tmp_path / "manifold.csv").exists()


@pytest.mark.slow
def test_our_side_compiles_and_trains(monkeypatch):
    """With a peer that does nothing, the rows are there and judged by their ratio."""
    monkeypatch.setattr(peers, "sphere_training", lambda *args: lambda: None)
    monkeypatch.setattr(peers, "sphere_sampling", lambda *args: lambda: None)
    monkeypatch.setattr(
        timing,
        "interleaved",
        lambda runs, n: {name: float(i + 1) * manifold.np.ones(n) for i, name in enumerate(runs)},
    )
    found = list(manifold.run(True, 2))
    assert [row.target for row in found] == [*manifold.LOSSES, *manifold.STEPPERS]
    assert all(row.ratio == 0.5 for row in found)
    assert all(row.met == ("" if row.target == "network" else "no") for row in found)


def test_without_the_peer_nothing_is_compared(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(peers, "have_flow_matching", lambda: False)
    assert manifold.main(["--out", str(tmp_path)]) == []
    assert "not installed" in capsys.readouterr().out
