r"""What a measurement says of a claim: it holds, it does not, or nothing is decided.

A claim is a range of values [low, high]: a <= 2 is [-inf, 2], and an equality a = v is
[v - m, v + m], whose margin m is what the theorem leaves open (next orders, a finite range) and is
stated where it is used. An interval of the measurement inside the range says that the claim holds,
one outside that it does not; one that reaches across an end of the range decides nothing, and
takes an interval f times as narrow, f^2 times as many draws. What was not measured (nan, or
nothing) is undecided.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from experiments.measure import Fit

HOLDS, FAILS, OPEN = "holds", "DOES NOT HOLD", "undecided"
EXPONENT = 0.05  # the margin of exponents, a tenth of the halves that theorems differ by
LEVEL, CLEAR = 1e-4, 0.01  # p-values below the one refute, above the other find no difference
INF = float("inf")


def judge(fit: Fit, low: float = -INF, high: float = INF) -> str:
    """The outcome of an estimate with its interval for the claim low <= a <= high."""
    a, left, right = (float(v) for v in fit)
    if not (np.isfinite([a, left, right]).all() and left <= a <= right):
        return f"{OPEN}: not measured, takes a finite interval"
    if low <= left and right <= high:
        return HOLDS
    if right < low or left > high:
        return FAILS
    inside = low <= a <= high
    ends = [(a - left, a - low), (right - a, high - a)] if inside else []
    if a > high:
        ends = [(a - left, a - high)]
    elif a < low:
        ends = [(right - a, low - a)]
    narrower = max(reach / gap if gap > 0 else INF for reach, gap in ends if reach > gap)
    if narrower == INF:
        return f"{OPEN}: the estimate is at the end of the claim"
    return f"{OPEN}: takes an interval / {narrower:.2g}, draws x {narrower**2:.2g}"


def together(fits: Sequence[Fit], low: float = -INF, high: float = INF) -> str:
    """The outcome for the claim that all of several are in the range: one outside refutes it."""
    found = [judge(fit, low, high) for fit in fits]
    for outcome in (FAILS, OPEN):
        hit = [f for f in found if f.startswith(outcome)]
        if hit:
            return hit[0]
    return HOLDS if found else f"{OPEN}: nothing was measured"


def exact(values: Iterable[float]) -> list[Fit]:
    """Values without noise as fits."""
    return [Fit(float(v), float(v), float(v)) for v in values]


def about(value: float, half: float) -> Fit:
    """value +- half."""
    return Fit(value, value - half, value + half)


def tested(p: float, tests: int = 1) -> str:
    """The outcome of the least p-value of several tests that find no difference where they hold."""
    p = p * tests if tests else float("nan")
    if not p >= 0:
        return f"{OPEN}: nothing was tested"
    if p < LEVEL:
        return FAILS
    return HOLDS if p >= CLEAR else f"{OPEN}: takes a p-value of fresh draws"


def summary(lines: Iterable[str]) -> str:
    """How many verdicts of the lines have which outcome."""
    found = re.findall(f": ({HOLDS}|{FAILS}|{OPEN})", "\n".join(lines))
    hold, fail, open_ = (found.count(o) for o in (HOLDS, FAILS, OPEN))
    hold_, fail_ = ("holds" if hold == 1 else "hold"), ("does" if fail == 1 else "do")
    return f"{hold} {hold_}, {fail} {fail_} not, {open_} undecided"
