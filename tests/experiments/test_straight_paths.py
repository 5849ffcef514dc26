"""The experiment runs, and transport straightens even a hardly trained flow's pairs."""

import pytest

from experiments import straight_paths


@pytest.mark.slow
def test_the_figures_are_made():
    found = {
        name: straight_paths.measure(*straight_paths.train(name, steps=200, width=16))
        for name in ("independent", "exact")
    }
    for key in ("cost", "variance", "bend"):
        assert found["exact"][key] < 0.5 * found["independent"][key]
