"""The prior mismatch experiment: its tests of claims on known numbers, and the smoke preset."""

import numpy as np
import pages
import pytest

from experiments import prior_mismatch
from experiments.prior_mismatch import SOURCES, Row


def test_claims_are_judged_by_their_own_spread():
    # One-sided t at 5 % with three degrees of freedom: 2.353 standard errors.
    noise = np.array([-1.0, 1.0, -1.0, 1.0])
    error = np.std(noise, ddof=1) / 2
    assert prior_mismatch.test(noise + 2.4 * error) == "holds"
    assert prior_mismatch.test(noise + 2.3 * error).startswith("undecided")
    assert prior_mismatch.test(noise - 2.4 * error) == "DOES NOT HOLD"


def made(better):
    """Rows of four models in which the mixture is better, or worse."""
    rng, rows = np.random.default_rng(0), []
    for i in range(4):
        near = lambda v: v + 0.01 * rng.normal()
        for source, v in zip(SOURCES, (0.9, 0.7 if better else 1.1, 0.6), strict=True):
            rows += [
                Row("split", i, source, name + end, near(v), 0.1)
                for name in ("kl", "information", "mismatch")
                for end in ("", prior_mismatch.OUT)
            ]
            rows.append(Row("held_out", i, source, "kl", near(v), 0.1))
            for name in prior_mismatch.FIGURES:
                distance = 1 - v if name == "confident_share" else v
                rows.append(Row("samples", i, source, name, near(distance), 0.1))
        rows.append(Row("split", i, SOURCES[0], "kl, closed form", near(0.9), 0.1))
    return rows


@pytest.mark.parametrize("better", [True, False])
def test_verdicts_follow_the_rows(better):
    lines = prior_mismatch.verdicts(made(better))
    said = "holds" if better else "DOES NOT HOLD"
    assert lines[0].endswith("holds")
    assert sum(line.startswith("the mixture lowers") and line.endswith(said) for line in lines) == 2
    compared = [line for line in lines if "mixture better than N(0, I): " + said in line]
    # The two-sample accuracy is best at a half, and the rows above it are no distances.
    assert len(compared) >= len(prior_mismatch.FIGURES) - 1


@pytest.mark.slow
def test_the_smoke_preset_measures_everything(tmp_path):
    preset = prior_mismatch.PRESETS["smoke"]
    lines = prior_mismatch.experiment(preset, tmp_path)
    rows = pages.read(tmp_path, "rows.csv", lines)
    assert "DOES NOT" not in lines[0]  # the drawn divergence is the closed form
    assert {row["kind"] for row in rows} == {"split", "held_out", "samples"}
    assert {row["source"] for row in rows} == {*SOURCES, "floor"}
    found = {
        (row["model"], row["source"], row["name"]): float(row["value"])
        for row in rows
        if row["kind"] == "split"
    }
    for model in map(str, range(preset.models)):
        for source in SOURCES[:2]:
            kl, *parts = (found[model, source, n] for n in ("kl", "information", "mismatch"))
            np.testing.assert_allclose(kl, sum(parts), rtol=1e-4, atol=1e-4)
