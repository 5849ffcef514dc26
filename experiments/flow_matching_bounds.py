"""How an error of the velocity becomes an error of the samples: flow matching's bounds, measured.

Benton et al. (2024) prove for X = alpha X0 + beta X1 + gamma Z, an error of L2 size eps and laws
that are lambda-regular

    T1          W2 <= eps exp(int L_t dt), L_t the Lipschitz constant of the learned velocity,
    T2          int L*_t dt <= lambda int |gamma'| / gamma dt
                               + sqrt(lambda) R int (|alpha'| + |beta'|) / gamma dt,
    corollary   with the best gamma_min, W2 to the data at most of order
                d^{lambda / (2 lambda + 1)} eps^{1 / (2 lambda + 1)},
    flows       W2 <= eps (e / gamma_min)^lambda for VP, eps (1 / gamma_min)^lambda for VE,

the last, as we derive it, for data in the unit ball. Here the velocities are exact, the errors have
known size, and the distances are exact (`flow_perturbed`). The curve beside them is T1 with L*_t,
the constant of the exact velocity: L_t where the error is constant, and its limit as eps falls.

Run `python -m experiments.flow_matching_bounds`; every function takes the law, the family of paths,
the errors and the noise levels as arguments.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments import flow_bounds_page, flow_perturbed, page, verdict
from experiments.flow_perturbed import FAMILIES, MODELS
from experiments.measure import exponent
from gmjax.targets import TARGETS


class Row(NamedTuple):
    """One measurement."""

    panel: str
    family: str
    law: str
    model: str  # of the error
    ratio: float  # R / sigma of the modes
    dim: int
    small: float  # gamma_min
    eps: float
    value: float
    bound: float  # the theorem's
    slope: float = float("nan")  # int |gamma'| / gamma dt
    rest: float = float("nan")  # int (|alpha'| + |beta'|) / gamma dt


class Preset(NamedTuple):
    """How much to run."""

    sizes: Sequence[float] = (0.003, 0.01, 0.03, 0.1, 0.3)
    smalls: Sequence[float] = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
    best_smalls: Sequence[float] = (0.01, 0.02, 0.04, 0.08, 0.16, 0.3, 0.6)
    best_sizes: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0)
    ratios: Sequence[float] = (0.0, 1.0, 2.0, 4.0, 8.0)
    ratio: float = 2.0  # of the modes wherever it is not varied
    small: float = 0.1
    gaussian_dim: int = 10_000
    pairs: int = 300
    families: Sequence[str] = tuple(FAMILIES)


PRESETS = {
    "default": Preset(),
    "paper": Preset(
        sizes=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
        smalls=tuple(np.geomspace(1e-4, 0.3, 15)),
        best_smalls=tuple(np.geomspace(0.005, 0.6, 20)),
        best_sizes=tuple(np.geomspace(0.003, 1.0, 9)),
        ratios=(0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0),
        pairs=2000,
    ),
    "smoke": Preset(
        sizes=(0.01, 0.03, 0.1),
        smalls=(0.03, 0.1, 0.3),
        best_smalls=(0.1, 0.3),
        best_sizes=(0.1, 0.3, 1.0),
        ratios=(0.0, 1.0, 2.0),
        gaussian_dim=100,
        pairs=50,
        families=("interpolant", "ve"),
    ),
}


def against_size(p: Preset) -> Iterator[Row]:
    """W2 against eps on every family, beside T1."""
    data = flow_perturbed.two_modes(p.ratio)
    for family in p.families:
        found = flow_perturbed.flows(data, family, 1.0, np.asarray(p.sizes))(p.small)
        for i, model in enumerate(MODELS):
            own = "size", family, "modes", model, p.ratio, 1, p.small
            for j, eps in enumerate(p.sizes):
                limit = eps * np.exp(float(found.lipschitz))
                yield Row(*own, eps, float(found.w2[i, j]), limit)
        end = float(found.landing), float(np.exp(found.lipschitz))
        yield Row("landing", family, "modes", "", p.ratio, 1, p.small, 0.0, *end)
        yield from large(p, family)
        yield from plane(p, family)


def large(p: Preset, family: str) -> Iterator[Row]:
    """The worst error of a Gaussian of many dimensions, in closed form."""
    values = np.geomspace(0.01, 0.5, p.gaussian_dim)
    worst, limit = flow_perturbed.gaussian(family, values, p.small, 1.0)
    for eps in p.sizes:
        own = "size", family, "gaussian", "adversarial", 0.0, p.gaussian_dim, p.small
        yield Row(*own, eps, eps * worst, eps * limit)


def plane(p: Preset, family: str, modes: int = 3) -> Iterator[Row]:
    """A turning error on modes in the plane, by optimal transport."""
    angle = 2 * np.pi * np.arange(modes) / modes
    centres = 0.7 * np.stack([np.cos(angle), np.sin(angle)], 1)
    data = TARGETS["mixture"](np.ones(modes), centres, 0.3**2)
    key = jax.random.key(0)
    found = flow_perturbed.transported(data, family, p.small, 1.0, p.sizes, key, p.pairs)
    edge = np.linspace(-2, 2, 9)
    points = np.stack(np.meshgrid(edge, edge), -1).reshape(-1, 2)
    law = flow_perturbed.pair(family, data)
    limit = float(np.exp(flow_perturbed.lipschitz(law, family, 1.0, points)(p.small)[0]))
    for eps, value in zip(p.sizes, found, strict=True):
        yield Row(
            "size", family, "plane", "turning", 0.7 / 0.3, 2, p.small, eps, value, eps * limit
        )


def against_noise(p: Preset) -> Iterator[Row]:
    """int L*_t dt against the smallest noise, for modes of several R / sigma and a subspace."""
    points = np.linspace(-5, 5, 401)[:, None]
    for family in p.families:
        for ratio in p.ratios:
            data = flow_perturbed.two_modes(ratio)
            centre = ratio / (1 + ratio)
            deviation = 1.0 if ratio == 0 else centre / ratio
            law = flow_perturbed.pair(family, data)
            at = flow_perturbed.lipschitz(law, family, 1.0, points)
            lam = flow_perturbed.regularity(ratio)[0]
            # Of X0 given x, at most: the deviation within a pair, and 1.21 R between pairs.
            reach = deviation + 1.21 * centre
            yield from _noise_rows(family, "modes", ratio, 1, at, p.smalls, lam, reach)
        if family == "interpolant":
            data = TARGETS["subspace"](np.array([[0.6], [0.8]]))
            law = flow_perturbed.pair(family, data)
            at = flow_perturbed.lipschitz(law, family, 1.0, np.zeros((1, 2)))
            yield from _noise_rows(family, "subspace", 0.0, 2, at, p.smalls, 1.0, 1.0)


def _noise_rows(family, law, ratio, dim, at, smalls, lam, reach):
    for small in smalls:
        value, slope, rest = (float(q) for q in at(small))
        limit = {
            "interpolant": lam * slope + lam**0.5 * reach * rest,
            "vp": lam * (1 - np.log(small)),
            "ve": -lam * np.log(small),
        }[family]
        yield Row("noise", family, law, "", ratio, dim, small, 0.0, value, limit, slope, rest)


def against_both(p: Preset, laws: Sequence[float] = (1.0, 2.0)) -> Iterator[Row]:
    """W2 to the data against gamma_min, the adversary's error; R / sigma of one and two."""
    for ratio in laws:
        data = flow_perturbed.two_modes(ratio)
        model = "adversarial"
        at = flow_perturbed.flows(data, "interpolant", 1.0, np.asarray(p.best_sizes), (model,))
        for small in p.best_smalls:
            found = at(small)
            for eps, value in zip(p.best_sizes, found.to_data[0], strict=True):
                limit = eps * np.exp(float(found.lipschitz)) + small
                own = "both", "interpolant", "modes", model, ratio, 1, small
                yield Row(*own, eps, float(value), limit)


MEASURED = (against_size, against_noise, against_both)

# -- verdicts -------------------------------------------------------------------------------------


def fitted(rows: Sequence[Row], reach: float) -> float:
    """The least lambda of T2's form that covers every row."""
    best = 0.0
    for r in rows:
        c = reach * r.rest
        best = max(best, ((-c + (c * c + 4 * r.slope * r.value) ** 0.5) / (2 * r.slope)) ** 2)
    return best


def steepest(rows: Sequence[Row]) -> float:
    """The largest slope of int L* in int |gamma'| / gamma."""
    own = sorted((r.slope, r.value) for r in rows)
    return float(np.max(np.diff([v for _, v in own]) / np.diff([s for s, _ in own])))


def optima(rows: Sequence[Row], ratio: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(eps, the least W2, the gamma_min of it) of one law."""
    own = [r for r in rows if r.panel == "both" and r.ratio == ratio]
    sizes = sorted({r.eps for r in own})
    best = [min((r.value, r.small) for r in own if r.eps == eps) for eps in sizes]
    return np.array(sizes), np.array([b[0] for b in best]), np.array([b[1] for b in best])


def verdicts(rows: Sequence[Row]) -> list[str]:
    """One line a claim: the theorem's exponent, ours with its interval, and whether it holds."""
    lines = []
    size = [r for r in rows if r.panel == "size"]
    for kind in dict.fromkeys((r.family, r.law, r.model) for r in size):
        own = [r for r in size if (r.family, r.law, r.model) == kind]
        fit = exponent([r.eps for r in own], [r.value for r in own])
        share = max(r.value / r.bound for r in own)
        # At most eps to the first power where eps -> 0; the bound itself is what must hold.
        lines.append(
            f"W2 ~ eps^a, {kind[0]}, {kind[1]}, {kind[2]}: theorem a = 1 under eps exp(int L*),"
            f" measured {page.interval(fit)}, at most {share:.3f} of T1:"
            f" {verdict.together(verdict.exact(r.value / r.bound for r in own), high=1)}"
        )
    for r in rows:
        if r.panel == "landing":
            lines.append(f"without an error, {r.family} lands within {r.value:.1e} of its law")
    return [*lines, *_noise_verdicts(rows), *_optimum_verdicts(rows)]


def _noise_verdicts(rows):
    lines, noise = [], [r for r in rows if r.panel == "noise"]
    for family in dict.fromkeys(r.family for r in noise):
        ratios, found = [], []
        for law, ratio in dict.fromkeys((r.law, r.ratio) for r in noise if r.family == family):
            own = [r for r in noise if (r.family, r.law, r.ratio) == (family, law, ratio)]
            lam, least = flow_perturbed.regularity(ratio)
            share = max(r.value / r.bound for r in own)
            slope = steepest(own)
            ratios_of = [*(r.value / r.bound for r in own), slope / (1.01 * lam)]
            said = verdict.together(verdict.exact(ratios_of), high=1)
            name = "subspace" if law == "subspace" else f"R / sigma = {ratio:g}"
            lines.append(
                f"int L* in int |gamma'| / gamma, {family}, {name}: lambda = {lam:g} (least"
                f" possible {least:.3g}), steepest measured {slope:.3f}, at most {share:.3f} of"
                f" the bound: {said}"
            )
            if ratio >= 1:
                ratios.append(ratio)
                found.append(slope)
        if len(ratios) > 2:
            fit = exponent(ratios, found)
            lines.append(
                f"the steepest slope ~ (R / sigma)^a, {family}: theorem a <= 2, measured"
                f" {page.interval(fit)}: {verdict.judge(fit, high=2)}"
            )
    return lines


def _optimum_verdicts(rows):
    lines = []
    for ratio in dict.fromkeys(r.ratio for r in rows if r.panel == "both"):
        lam = flow_perturbed.regularity(ratio)[0]
        sizes, best, at = optima(rows, ratio)
        grid = [r.small for r in rows if r.panel == "both" and r.ratio == ratio]
        last = int(np.isin(at, [min(grid), max(grid)]).sum())
        edge = f"; {last} of {len(at)} optima at an end of the grid" if last else ""
        fit = exponent(sizes, best)
        least = 1 / (2 * lam + 1)
        lines.append(
            f"best W2 ~ eps^a, R / sigma = {ratio:g}: corollary a >= {least:.3f}, measured"
            f" {page.interval(fit)}: {verdict.judge(fit, low=least)}{edge}"
        )
        # Independent coordinates: d^1/2 times the best of one, at eps / d^1/2.
        dims = (sizes[-1] / sizes) ** 2
        fit = exponent(dims, dims**0.5 * best)
        most = lam / (2 * lam + 1)
        lines.append(
            f"best W2 ~ d^a at eps = {sizes[-1]:g}, R / sigma = {ratio:g}, d to {dims.max():.0f}:"
            f" corollary a <= {most:.3f}, measured {page.interval(fit)}:"
            f" {verdict.judge(fit, high=most)}{edge}"
        )
    return lines


def run(preset: Preset, out: Path) -> list[str]:
    """Measures, then writes errors.csv, figure.png, figure.pdf and verdicts.txt to `out`."""
    with jax.enable_x64(True):
        rows = [row for measure in MEASURED for row in measure(preset)]
    page.table(out / "errors.csv", rows)
    flow_bounds_page.figure(rows, out / "figure")
    lines = verdicts(rows)
    return page.say(out, lines)


def main() -> None:
    """The command line of `run`."""
    page.command("flow_matching_bounds", run, PRESETS, __doc__)


if __name__ == "__main__":
    main()
