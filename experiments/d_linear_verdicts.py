"""What the rows of `d_linear_convergence` say of the theorem, one line a claim."""

from collections.abc import Sequence

import numpy as np

from experiments import page, verdict
from experiments.measure import Fit, exponent
from experiments.reverse_kl import SHAPES

SIGMAS = 4.5  # of an interval; there are many
SAME = 0.05  # two computations of one number are the same to this share of it


def constant(rows: Sequence) -> float:
    """The bound's constant: the least that covers the two-point law's path at every N and delta."""
    own = [r for r in rows if r.panel in ("steps", "delta") and r.grid == "exponential_decay"]
    own = [r for r in own if (r.law, r.measure) == ("two_point", "path")]
    return max(r.value / r.bound for r in own)


def verdicts(rows: Sequence) -> list[str]:
    """One line a claim: the theorem's exponent, ours with its interval, and whether it holds."""
    lines = []
    for law, measure in dict.fromkeys((r.law, r.measure) for r in rows if r.panel == "dims"):
        own = [r for r in rows if (r.panel, r.law, r.measure) == ("dims", law, measure)]
        own = [r for r in own if r.dim > 1 or law != "sphere"]
        fit = exponent([r.dim for r in own], [r.value for r in own])
        lines.append(_most(f"KL of the {measure} ~ d^a, {law}", 1, fit))
    for law, measure in dict.fromkeys((r.law, r.measure) for r in rows if r.panel == "needed"):
        own = [r for r in rows if (r.panel, r.law, r.measure) == ("needed", law, measure)]
        if len(own) > 2:
            fit = exponent([r.dim for r in own], [r.value for r in own])
            what = f"N for KL {own[0].eps ** 2:.2g} of the {measure[7:]} ~ d^a, {law}"
            lines.append(_most(what, 1, fit))
    for law, measure in dict.fromkeys((r.law, r.measure) for r in rows if r.panel == "steps"):
        own = [r for r in rows if (r.panel, r.law, r.measure) == ("steps", law, measure)]
        fine = own[-max(3, len(own) // 2) :]
        fit = exponent([1 / r.steps for r in fine], [r.value for r in fine], len(fine) > 3)
        lines.append(_least(f"KL of the {measure} ~ N^-a, {law}", 1, fit))
    lines += _delta_verdicts([r for r in rows if r.panel == "delta"])
    for shape in SHAPES:
        lines += _error_verdicts(shape, [r for r in rows if r.panel == f"error_{shape}"])
    lines += _subspace_verdicts([r for r in rows if r.panel == "subspace"])
    return [*lines, *_identity_verdicts(rows), *_bound_verdicts(rows)]


def _delta_verdicts(rows):
    lines = []
    own = [r for r in rows if (r.grid, r.measure) == ("exponential_decay", "needed_path")]
    x = [r.end + np.log(1 / r.delta) for r in own]
    fit = exponent(x, [r.value for r in own])
    what = f"N for KL {own[0].eps ** 2:.2g} of the path ~ (T + log 1/delta)^a, the paper's grid"
    lines.append(_most(what, 2, fit))
    own = [r for r in rows if (r.grid, r.measure) == ("exponential_decay", "law")]
    fit = exponent(x, [r.value for r in own])
    lines.append(f"KL of the law ~ (T + log 1/delta)^a at one N, no theorem: {page.interval(fit)}")
    for grid in ("exponential_decay", "uniform"):
        own = [r for r in rows if (r.grid, r.measure) == (grid, "needed_path")]
        if len(own) > 2:
            fit = exponent([1 / r.delta for r in own], [r.value for r in own])
            name = {"uniform": "the uniform grid, no theorem", "exponential_decay": "the paper's"}
            lines.append(f"N for a KL of the path ~ delta^-a, {name[grid]}: {page.interval(fit)}")
    least = min(r.delta for r in rows)
    pair = {(r.grid, r.measure): r.value for r in rows if r.delta == least}
    for measure in ("path", "law"):
        two = pair["uniform", measure], pair["exponential_decay", measure]
        gain = two[0] / two[1]
        lines.append(
            f"KL of the {measure} at delta {least:g}, uniform over the paper's grid: {gain:.3g}"
        )
    return lines


def _error_verdicts(shape, rows):
    law = {r.eps: r.value for r in rows if r.measure == "law"}
    path = {r.eps: r.value for r in rows if r.measure == "path"}
    sizes = [eps for eps in law if eps]
    # Half the second difference is the part even in eps; a shape of either sign shares the bound.
    fit = exponent(sizes, [abs(law[eps] - law[0.0]) for eps in sizes])
    under = verdict.exact(law[eps] / path[eps] for eps in law)
    share = max((law[eps] - law[0.0]) / eps**2 for eps in sizes)
    return [
        f"KL of the law - that without error ~ eps^a, {shape}: theorem at most a path of eps^2,"
        f" measured {page.interval(fit)}, at most {share:.3f} eps^2, under the path's KL at every"
        f" eps: {verdict.together(under, high=1 + 1e-9)}"
    ]


def _subspace_verdicts(rows):
    lines, dim = [], max(r.dim for r in rows if r.intrinsic > 4)
    for rule, measure in dict.fromkeys((r.rule, r.measure) for r in rows):
        own = [r for r in rows if (r.rule, r.measure) == (rule, measure)]
        by_k = {r.intrinsic: r.value for r in own if r.dim == dim}
        by_d = {r.dim: r.value for r in own if r.intrinsic == 4 and r.dim > 4}
        fits = [exponent(list(by), list(by.values())) for by in (by_k, by_d)]
        low, high = min(by_k), max(by_k)
        on = (by_k[high] - by_k[low]) / (high - low)
        off = by_d[max(by_d)] / max(by_d)
        who = "d" if fits[1].slope > 0.5 else "k"
        lines.append(
            f"{rule}, KL of the {measure}, data on k of d dimensions: ~ d^{fits[1].slope:.2f}"
            f" [{fits[1].low:.2f}, {fits[1].high:.2f}] at k = 4, ~ k^{fits[0].slope:.2f}"
            f" [{fits[0].low:.2f}, {fits[0].high:.2f}] at d = {dim}; {off:.3g} nats a dimension"
            f" of d and {on:+.3g} more if in k: {who} governs"
        )
    return lines


def _identity_verdicts(rows):
    lines = []
    own = [r for r in rows if r.panel == "localised"]
    for law in dict.fromkeys(r.law for r in own):
        left, right = (
            [r for r in own if (r.law, r.measure) == (law, m)] for m in ("left", "right")
        )
        gaps = [
            (a.value - b.value, a.error + 1e-9 * b.value) for a, b in zip(left, right, strict=True)
        ]
        worst = max(abs(gap) / error for gap, error in gaps)
        fits = [
            verdict.about(gap / r.value, SIGMAS * error / r.value)
            for (gap, error), r in zip(gaps, right, strict=True)
        ]
        off = max(abs(gap) / r.value for (gap, _), r in zip(gaps, right, strict=True))
        lines.append(
            f"sigma^3 / (2 sigma') d/dt E tr Cov = E tr Cov^2, {law}: apart by {100 * off:.2g} % at"
            f" most, {worst:.1f} standard errors: {verdict.together(fits, -SAME, SAME)}"
        )
    own = [r for r in rows if r.panel == "checked"]
    for want, got in zip(own[::2], own[1::2], strict=True):
        z = (got.value - want.value) / got.error
        off = verdict.about(got.value / want.value - 1, SIGMAS * got.error / want.value)
        lines.append(
            f"Monte Carlo of the path, {got.law}, d = {got.dim}: {got.value:.4g} +-"
            f" {got.error:.2g}, closed form {want.value:.4g}, z = {z:.1f}:"
            f" {verdict.judge(off, -SAME, SAME)}"
        )
    return lines


def _bound_verdicts(rows):
    c = constant(rows)
    own = [r for r in rows if r.measure in ("law", "path") and r.rule == "exponential"]
    worst = max(own, key=lambda r: (r.value - 2 * r.error) / r.bound)
    fits = [verdict.about(r.value / r.bound / c, 2 * r.error / r.bound / c) for r in own]
    over = sum((r.value - 2 * r.error) / r.bound > c * (1 + 1e-6) for r in own)
    return [
        f"the bound with its constant {c:.3g}, fitted once: exceeded at {over} of {len(own)}"
        f" points; closest {worst.panel}, {worst.law}, {worst.measure},"
        f" {worst.value / worst.bound / c:.2f} of it: {verdict.together(fits, high=1 + 1e-6)}"
    ]


def _most(what: str, theorem: float, fit: Fit) -> str:
    said = verdict.judge(fit, high=theorem + verdict.EXPONENT)
    return f"{what}: theorem a <= {theorem}, measured {page.interval(fit)}: {said}"


def _least(what: str, theorem: float, fit: Fit) -> str:
    said = verdict.judge(fit, low=theorem - verdict.EXPONENT)
    return f"{what}: theorem a >= {theorem}, measured {page.interval(fit)}: {said}"
