"""The benchmark runs, and its report says what it should; nothing here is timed."""

import csv
import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import discrete, peers, timing


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A smoke run of the targets that need no peer: its rows, and the lines of its CSV.

    One loss and one sampler a chain: each is a program to compile.
    """
    few = pytest.MonkeyPatch()
    few.setattr(discrete, "TERMS", {k: v[:1] for k, v in discrete.TERMS.items()})
    few.setattr(discrete, "SAMPLERS", {k: v[:1] for k, v in discrete.SAMPLERS.items()})
    out = tmp_path_factory.mktemp("benchmark")
    chosen = ["--only", "training", "loss", "sampling"]
    rows = discrete.main(["--smoke", "--repeats", "2", "--out", str(out), *chosen])
    with (out / "discrete.csv").open() as file:
        yield rows, list(csv.DictReader(file))
    few.undo()


@pytest.mark.slow
def test_csv_has_every_column_and_row(report):
    rows, lines = report
    assert tuple(lines[0]) == timing.Row._fields
    assert len(lines) == len(rows)
    assert [line["what"] for line in lines] == [row.what for row in rows]
    for line in lines:
        assert float(line["low"]) <= float(line["ratio"]) <= float(line["high"])
        assert min(float(line[key]) for key in ("low", "ms", "against_ms", "compile_s")) > 0


@pytest.mark.slow
def test_every_target_covers_both_chains(report):
    found = {(row.target, row.chain, row.what) for row in report[0]}
    for chain, choices in discrete.TERMS.items():
        for terms in map(discrete.label, choices):
            assert ("training", chain, f"update, {terms}") in found
            assert ("loss", chain, f"loss, {terms}") in found
    for chain, samplers in discrete.SAMPLERS.items():
        assert {("sampling", chain, name) for name in samplers} <= found
    shapes = {row.shape for row in report[0] if row.target == "sampling"}
    assert shapes == {case.shape for case in discrete.smoke()[1]}


@pytest.mark.slow
def test_goals_are_judged(report):
    for row in report[0]:
        assert (row.goal == "") == (row.target == "loss")
        assert row.met == ("" if not row.goal else "yes" if row.ratio <= 1.15 else "no")


def test_full_run_has_the_shapes_of_the_goals():
    update, others = discrete.full()
    assert update.shape == "64 x 784 x 256"
    shapes = [case.shape for case in others]
    assert shapes == ["4096 x 2 x 128", "64 x 256 x 129", "16 x 3072 x 256"]


def test_missing_peer_is_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(peers, "have_flow_matching", lambda: False)
    rows = discrete.main(["--smoke", "--only", "step", "--out", str(tmp_path)])
    assert rows == []
    assert "not installed" in capsys.readouterr().out
    assert (tmp_path / "discrete.csv").read_text().startswith("target,shape,chain")


@pytest.mark.slow
def test_step_compares_with_the_peer(monkeypatch):
    """A stand-in for the peer, so that the rows are made where it is missing too."""
    calls = []
    made = lambda posterior, x, steps: calls.append((posterior, x, steps)) or (lambda: None)
    monkeypatch.setattr(peers, "flow_matching", made)
    samplers = {k: v[:1] for k, v in discrete.SAMPLERS.items()}
    monkeypatch.setattr(discrete, "SAMPLERS", samplers)
    case = discrete.smoke()[1][0]
    rows = list(discrete.step(case, 2))
    found = {(row.chain, row.what.split(",")[0]) for row in rows}
    assert found == {(chain, name) for chain, names in samplers.items() for name in names}
    posterior, x, _ = calls[0]
    np.testing.assert_allclose(jnp.sum(posterior, -1), 1, rtol=1e-5)
    assert posterior.shape[:-1] == x.shape


@pytest.mark.skipif(importlib.util.find_spec("flow_matching") is None, reason="the peer is missing")
def test_peer_moves_states_towards_the_posterior():
    """Five steps of 0.01 from 0.5, the last of which draws from the posterior."""
    posterior = jnp.broadcast_to(jnp.eye(4)[2], (8, 3, 4))
    x = peers.flow_matching(posterior, jnp.zeros((8, 3), jnp.int32), 5)()
    assert np.all(np.asarray(x) == 2)


def test_ratios_are_those_of_the_rounds():
    """The median of the ratios, not the ratio of the medians; a slow round hits both sides."""
    below = np.array([1.0, 1.0, 10.0, 1.0, 1.0])
    above = np.array([2.0, 2.0, 20.0, 3.0, 1.0])
    assert timing.compare(above, below) == (2.0, 2.0, 2.0)


def test_rounds_take_turns():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = timing.interleaved(runs, 3, shortest=0)
    assert "".join(order)[-9:] == "abcbcacab"
    assert all(len(s) == 3 for s in seconds.values())


def test_donated_state_is_carried_on():
    program = timing.compiled(lambda s, x: (s + x, s), jnp.zeros(3), jnp.ones(3), donate=True)
    program.run()
    program.run()
    np.testing.assert_array_equal(program.run()[0], 3 * np.ones(3))
