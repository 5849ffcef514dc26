"""The earth experiment: its summary, and a smoke run where the data are."""

import csv
import os

import jax
import numpy as np
import pytest

from experiments import earth_likelihood as earth
from gmjax.processes import PROCESSES, schedules
from gmjax.types import DataSpec


def test_the_summary_compares_means_over_seeds():
    rows = [
        earth.Row("flood", seed, nll, 0.1, 0.2, 0.02, 0.43) for seed, nll in enumerate((0.4, 0.5))
    ]
    (line,) = earth.summary(rows)
    assert line.startswith("flood: 0.45 +- 0.07 nats over 2 seeds, below the 0.48")
    (line,) = earth.summary([rows[0]._replace(nll=0.6), rows[1]])
    assert "above the 0.48" in line
    for nll, outcome in ((0.3, "holds"), (0.6, "DOES NOT HOLD"), (0.48, "undecided")):
        seeds = [rows[0]._replace(nll=nll + e) for e in (-0.001, 0.001)]
        assert f": {outcome}" in next(iter(earth.summary(seeds)))
    assert ": undecided" in next(iter(earth.summary(rows[:1])))


def test_the_kernel_density_is_a_density():
    """Its mean over uniform points is 1 / 4 pi: 4000 of them, a standard error of 2 %."""
    process = PROCESSES["sphere"](schedules.constant(1.0), DataSpec((3,), 0, "sphere"))
    keys = jax.random.split(jax.random.key(0), 4003)
    x = np.asarray(jax.vmap(process.base.sample)(keys))
    found = np.exp(earth.kernel_density(process, 0.3, x[:3], x[3:]))
    error = found.std() / np.sqrt(4000)
    assert abs(found.mean() - 1 / (4 * np.pi)) < 4.5 * error and error < 0.002


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("GMJAX_DATA_DIR"), reason="GMJAX_DATA_DIR is not set")
def test_a_smoke_run_writes_rows_maps_and_verdicts(tmp_path, monkeypatch):
    monkeypatch.setattr(earth, "SETS", ("volcano",))
    lines = earth.run(earth.PRESETS["smoke"], tmp_path)
    assert len(lines) == 2 and "volcano" in lines[0]
    with (tmp_path / "likelihoods.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and (tmp_path / "volcano.png").exists()
    assert all(np.isfinite(float(row["nll"])) for row in rows)
    # An untrained model is nearly uniform: its density integrates to one.
    assert abs(float(rows[0]["mass"]) - 1) < 0.2
