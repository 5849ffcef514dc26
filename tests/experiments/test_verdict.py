"""Three outcomes by an interval and a claim, and a summary that counts them."""

import numpy as np
import pytest

from experiments import verdict
from experiments.measure import Fit
from experiments.verdict import FAILS, HOLDS, OPEN, judge

INF = float("inf")
CASES = [  # interval, claim, outcome
    ((1.0, 0.9, 1.1), (-INF, 2.0), HOLDS),
    ((2.0, 1.9, 2.0), (-INF, 2.0), HOLDS),
    ((1.9, 1.7, 2.1), (-INF, 2.0), OPEN),
    ((2.2, 1.9, 2.5), (-INF, 2.0), OPEN),
    ((2.5, 2.1, 2.9), (-INF, 2.0), FAILS),
    ((0.284, -0.265, 0.833), (0.2, INF), OPEN),
    ((0.53, 0.27, 0.8), (0.2, INF), HOLDS),
    ((0.1, 0.0, 0.19), (0.2, INF), FAILS),
    ((1.0, 0.98, 1.02), (0.95, 1.05), HOLDS),
    ((1.03, 1.02, 1.04), (0.95, 1.05), HOLDS),  # off by less than the margin
    ((1.0, 0.8, 1.2), (0.95, 1.05), OPEN),
    ((1.2, 1.04, 1.36), (0.95, 1.05), OPEN),
    ((1.2, 1.1, 1.3), (0.95, 1.05), FAILS),
    ((0.5, 0.4, 0.6), (0.95, 1.05), FAILS),
    ((np.nan, np.nan, np.nan), (-INF, 1.0), OPEN),
    ((0.0, np.nan, np.nan), (-INF, 1.0), OPEN),
    ((0.0, -INF, INF), (-INF, 1.0), OPEN),
    ((0.0, 0.1, 0.2), (-INF, 1.0), OPEN),  # an estimate out of its interval
    ((1.0, 1.0, 1.0), (-INF, 1.0), HOLDS),
    ((1.0, 0.5, 1.5), (-INF, 1.0), OPEN),
]


@pytest.mark.parametrize("fit, claim, outcome", CASES)
def test_the_outcome_of_an_interval(fit, claim, outcome):
    assert judge(Fit(*fit), *claim).startswith(outcome)


@pytest.mark.parametrize("fit, claim, outcome", CASES[:14])
def test_the_outcome_is_the_same_in_a_mirror(fit, claim, outcome):
    a, low, high = (-v for v in fit)
    assert judge(Fit(a, high, low), -claim[1], -claim[0]).startswith(outcome)


@pytest.mark.parametrize("fit, claim", [(f, c) for f, c, o in CASES[:14] if o == OPEN])
def test_what_it_takes_decides(fit, claim):
    """An interval as much narrower as is said, about the same estimate, is enough."""
    said = judge(Fit(*fit), *claim)
    factor = 1.05 * float(said.split("/ ")[1].split(",")[0])
    narrow = Fit(fit[0], *(fit[0] + (v - fit[0]) / factor for v in fit[1:]))
    assert not judge(narrow, *claim).startswith(OPEN)


def test_all_of_several():
    inside, across, outside = Fit(0, 0, 0), Fit(1, 0.5, 1.5), Fit(2, 2, 2)
    assert verdict.together([inside], high=1) == HOLDS
    assert verdict.together([inside, across], high=1).startswith(OPEN)
    assert verdict.together([across, inside, outside], high=1) == FAILS
    assert verdict.together([], high=1).startswith(OPEN)
    assert verdict.together(verdict.exact([0.5, np.nan]), high=1).startswith(OPEN)


@pytest.mark.parametrize(
    "p, tests, outcome",
    [
        (0.5, 1, HOLDS),
        (5e-3, 1, OPEN),
        (5e-3, 4, HOLDS),
        (1e-5, 1, FAILS),
        (1e-5, 20, OPEN),
        (float("nan"), 1, OPEN),
        (0.5, 0, OPEN),
    ],
)
def test_p_values(p, tests, outcome):
    assert verdict.tested(p, tests).startswith(outcome)


def test_the_summary_counts():
    lines = ["a: holds", "b: holds, c: DOES NOT HOLD", "d: undecided: takes more", "holds: none"]
    assert verdict.summary(lines) == "2 hold, 1 does not, 1 undecided"
    assert verdict.summary([]) == "0 hold, 0 do not, 0 undecided"
