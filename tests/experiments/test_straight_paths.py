"""The experiment runs, and transport straightens even a hardly trained flow's pairs."""

import numpy as np
import pages
import pytest

from experiments import straight_paths as experiment


@pytest.mark.slow
def test_smoke(tmp_path):
    lines = experiment.run(experiment.PRESETS["smoke"], tmp_path)
    pages.read(tmp_path, "figures.csv", lines)
    assert len([line for line in lines if "independent: claim" in line]) == 6
    assert [line for line in lines if line.startswith("cost, exact") and "DOES NOT" not in line]


def rows(ratio):
    """Two seeds, whose ratios of every figure to independent pairs are as given."""
    return [
        experiment.Row(name, seed, figure, 2.0 * (1.0 if name == "independent" else r), 0.1)
        for name in experiment.NAMES
        for seed, r in enumerate(ratio)
        for figure in ("cost", "variance", "bend")
    ]


@pytest.mark.parametrize(
    "ratio, outcome",
    [((0.50, 0.51), "holds"), ((1.50, 1.51), "DOES NOT HOLD"), ((0.4, 0.9), "undecided")],
)
def test_the_verdict_is_of_ratios_by_seed(ratio, outcome):
    lines = [line for line in experiment.verdicts(rows(ratio)) if "claim" in line]
    assert len(lines) == 6
    assert all(f": {outcome}" in line for line in lines)
    assert f"{np.sqrt(ratio[0] * ratio[1]):.3f}" in lines[0]
