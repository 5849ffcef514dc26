"""How many steps a diffusion needs in d dimensions, with exact scores.

Benton et al. (2024) bound KL(q_delta || p_N) of the exponential integrator, for a score of error
eps and data of identity covariance, on a grid with g_k <= kappa min(1, t_{k+1}), by a constant
times

    eps^2 + kappa^2 d N + kappa d T + d e^{-2T},   hence N of order d (T + log 1/delta)^2 / eps^2,

and prove it through the path's KL. Here both KLs are exact (`reverse_kl`, `reverse_path`): by
recursion, by quadrature, by Fisher information, and by Monte Carlo where no closed form is known.
The bound's one constant is fitted once, to the path of the two-point law at every N and delta, and
the same curve is then held against everything else.

Run `python -m experiments.d_linear_convergence`; every function takes the law, the dimension, the
grid and the error as arguments.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import d_linear_page, d_linear_verdicts, page, reverse_kl, reverse_path
from gmjax.targets import TARGETS
from gmjax.targets.laws import Target


def spread(dim: int) -> Target:
    """N(0, C), the eigenvalues of C spread over a factor of a hundred about a mean of one."""
    values = np.geomspace(0.1, 10, dim) if dim > 1 else np.ones(1)
    return TARGETS["gaussian"](np.zeros(dim), values / values.mean())


def blend(dim: int, seed: int = 0) -> Target:
    """Four Gaussians of variance 1/2 about random points, with the trace of the identity."""
    centres = np.random.default_rng(seed).normal(size=(4, dim))
    centres *= np.sqrt(0.5 * dim) / np.linalg.norm(centres, axis=1, keepdims=True)
    return TARGETS["mixture"]([0.1, 0.2, 0.3, 0.4], centres, 0.5)


# Of unit variance in every coordinate, or on average.
LAWS: dict[str, Callable[[int], Target]] = {
    "gaussian": spread,
    "two_point": TARGETS["two_point"],
    "mixture_product": lambda d: TARGETS["mixture_product"](d, [0.3, 0.7], [-1.4, 0.6], [0.4, 0.4]),
    "sphere": lambda d: TARGETS["sphere"](d, d**0.5),
    "mixture": blend,
}
DRAWN = ("mixture",)  # by Monte Carlo
# E[s e] of an error of unit size, by Stein's identity -E[e'], for symmetric laws of unit variance.
CROSSED = {"shift": 0.0, "scale": -1.0, "wave": 0.0}


class Row(NamedTuple):
    """One measured KL, or the number of steps that one needs."""

    panel: str
    law: str
    measure: str  # "law", "path", "needed_law", "needed_path", "left" or "right"
    rule: str
    grid: str
    dim: int
    intrinsic: int
    steps: int
    end: float
    delta: float
    eps: float
    value: float
    error: float = 0.0  # standard error, of Monte Carlo
    bound: float = float("nan")  # without its constant


class Preset(NamedTuple):
    """How much to run."""

    dims: Sequence[int] = (1, 10, 100, 1000, 10_000)
    drawn_dims: Sequence[int] = (4, 32, 256)
    steps: int = 128
    ladder: Sequence[int] = (16, 32, 64, 128, 256, 512)
    path_ladder: Sequence[int] = tuple(map(int, 2 ** np.arange(4, 21)))
    deltas: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
    sizes: Sequence[float] = (0.03, 0.1, 0.3, 1.0, 3.0)
    subspaces: Sequence[int] = (1, 4, 16, 64, 256, 1024)
    ambient: int = 1024
    replicates: int = 256
    localised: int = 1000
    localised_dim: int = 32
    end: float = 5.0
    delta: float = 1e-3
    level: float = 1.0  # the KL that N is needed for


PRESETS = {
    "default": Preset(),
    "paper": Preset(
        dims=(1, 10, 100, 1000, 10_000, 100_000),
        drawn_dims=(4, 16, 64, 256, 1024),
        ladder=(16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
        path_ladder=tuple(2**i for i in range(4, 22)),
        replicates=4096,
        localised=40_000,
        localised_dim=256,
    ),
    "smoke": Preset(
        dims=(1, 10, 100, 10_000),
        drawn_dims=(2, 4, 8),
        steps=32,
        ladder=(16, 32, 64),
        path_ladder=(16, 64, 256, 1024, 2**16),
        deltas=(1e-1, 1e-2, 1e-3),
        sizes=(0.3, 1.0, 3.0),
        subspaces=(1, 8, 64),
        ambient=64,
        replicates=64,
        localised=200,
        localised_dim=4,
    ),
}


class Setting(NamedTuple):
    """What a KL is measured of."""

    law: str
    dim: int
    steps: int
    end: float
    delta: float
    grid: str = "exponential_decay"
    rule: str = "exponential"

    def row(self, panel: str, measure: str, value: float, eps: float = 0.0, **own: Any) -> Row:
        times = reverse_kl.times(self.grid, self.steps, self.end, self.delta)
        limit = float(reverse_kl.bound(self.dim, times)) + eps**2
        kind = self.law, measure, self.rule, self.grid, self.dim, own.pop("intrinsic", self.dim)
        rest = self.steps, self.end, self.delta, eps, float(value), own.pop("error", 0.0)
        return Row(panel, *kind, *rest, own.pop("bound", limit))


def law_kl(target: Target, s: Setting) -> float:
    """KL(q_delta || p_N), by recursion or by quadrature."""
    times = reverse_kl.times(s.grid, s.steps, s.end, s.delta)
    if s.law in ("gaussian", "subspace"):
        return reverse_kl.by_recursion(target, times, s.rule)
    return float(reverse_kl.by_quadrature(target, times, s.rule)[0])


def path_kls(known: reverse_path.Curves, each: Sequence[Setting]) -> list[float]:
    """The path's KL at several settings of one law."""
    ends = max(s.end for s in each), min(s.delta for s in each)
    quick = reverse_path.smooth(known, ends[1], ends[0])
    grids = (reverse_kl.times(s.grid, s.steps, s.end, s.delta) for s in each)
    return [reverse_path.path_kl(quick, grid) for grid in grids]


def against_dims(p: Preset) -> Iterator[Row]:
    """Both KLs against d at one N."""
    for law, form in LAWS.items():
        if law in DRAWN:
            continue
        for dim in p.dims:
            s, target = Setting(law, dim, p.steps, p.end, p.delta), form(dim)
            if law != "sphere":
                yield s.row("dims", "law", law_kl(target, s))
            known = reverse_path.curves(target)
            assert known is not None
            yield s.row("dims", "path", path_kls(known, [s])[0])
    yield from drawn(p, {law: LAWS[law] for law in DRAWN})


def drawn(p: Preset, laws: dict[str, Callable[[int], Target]]) -> Iterator[Row]:
    """The path's discretisation by Monte Carlo, against d."""
    for law, form in laws.items():
        for i, dim in enumerate(p.drawn_dims):
            s = Setting(law, dim, p.steps, p.end, p.delta)
            key, times = jax.random.key(i), reverse_kl.times(s.grid, s.steps, s.end, s.delta)
            value, error = reverse_path.by_girsanov(form(dim), times, key, p.replicates)
            yield s.row("dims", "path", value, error=error)


def against_steps(p: Preset, dim: int = 100) -> Iterator[Row]:
    """Both KLs against N in one dimension count, and the N that a KL needs against d."""
    for law in ("two_point", "mixture_product", "gaussian", "sphere"):
        known = reverse_path.curves(LAWS[law](dim))
        assert known is not None
        each = [Setting(law, dim, n, p.end, p.delta) for n in p.path_ladder]
        path = path_kls(known, each)
        rows = {"path": [s.row("steps", "path", v) for s, v in zip(each, path, strict=True)]}
        if law != "sphere":
            each = [Setting(law, dim, n, p.end, p.delta) for n in p.ladder]
            rows["law"] = [s.row("steps", "law", law_kl(LAWS[law](dim), s)) for s in each]
        for measure, found in rows.items():
            yield from found
            for d in p.dims:
                # By independence, or nearly so on a sphere, every coordinate costs the same.
                steps = needed(found, p.level * dim / d)
                if steps is not None:
                    s = Setting(law, d, 1, p.end, p.delta)
                    yield s.row("needed", f"needed_{measure}", steps, eps=p.level**0.5)


def needed(rows: Sequence[Row], level: float) -> float | None:
    """The N at which a KL that falls like a power of N reaches a level; None off the ladder."""
    steps, values = np.log([(r.steps, r.value) for r in rows]).T
    if not values[-1] <= np.log(level) <= values[0]:
        return None
    return float(np.exp(np.interp(-np.log(level), -values, steps)))


def against_delta(p: Preset, law: str = "two_point", dim: int = 100) -> Iterator[Row]:
    """The two grids as delta falls: both KLs at one N, and the N that a KL needs."""
    target = LAWS[law](dim)
    known = reverse_path.curves(target)
    assert known is not None
    quick = reverse_path.smooth(known, min(p.deltas), p.end)
    for grid in ("exponential_decay", "uniform"):
        for delta in p.deltas:
            s = Setting(law, dim, p.steps, p.end, delta, grid)
            times = reverse_kl.times(grid, p.steps, p.end, delta)
            yield s.row("delta", "path", reverse_path.path_kl(quick, times))
            yield s.row("delta", "law", law_kl(target, s))
            ladder = []
            for n in p.path_ladder:
                own = reverse_kl.times(grid, n, p.end, delta)
                ladder.append(s._replace(steps=n).row("", "", reverse_path.path_kl(quick, own)))
            steps = needed(ladder, 0.1 * dim * p.level)
            if steps is not None:
                eps = (0.1 * dim * p.level) ** 0.5
                yield s._replace(steps=1).row("delta", "needed_path", steps, eps=eps)


def against_error(p: Preset, law: str = "two_point", dim: int = 100) -> Iterator[Row]:
    """Both KLs against the size of an error of the score, for every shape."""
    s, target = Setting(law, dim, 2 * p.steps, p.end, p.delta), LAWS[law](dim)
    times = reverse_kl.times(s.grid, s.steps, s.end, s.delta)
    known, g = reverse_path.curves(target), -np.diff(times)
    assert known is not None
    exact = path_kls(known, [s])[0]
    for shape in reverse_kl.SHAPES:
        sizes = (0.0, *p.sizes)
        found = reverse_kl.by_quadrature(target, times, s.rule, shape, sizes)
        rate = dim**0.5 * CROSSED[shape] / (times[0] - times[-1]) ** 0.5
        crossed = 2 * rate * np.sum(g + np.expm1(-g))
        for eps, value in zip(sizes, found, strict=True):
            yield s.row(f"error_{shape}", "law", value, eps)
            yield s.row(f"error_{shape}", "path", exact + eps**2 + eps * crossed, eps)


def against_subspace(p: Preset) -> Iterator[Row]:
    """Gaussians on k of d dimensions: k at one d, then d at one k, by both rules."""
    pairs = {(p.ambient, k) for k in p.subspaces if k <= p.ambient}
    for dim, k in sorted(pairs | {(d, 4) for d in (*p.dims, 4) if d >= 4}):
        target = TARGETS["subspace"](np.eye(dim)[:, :k])
        for rule in reverse_kl.RULES:
            s = Setting("subspace", dim, p.steps, p.end, p.delta, rule=rule)
            yield s.row("subspace", "law", law_kl(target, s), intrinsic=k)
        known = reverse_path.curves(target)
        assert known is not None
        s = s._replace(rule="exponential")
        yield s.row("subspace", "path", path_kls(known, [s])[0], intrinsic=k)


def localised(p: Preset, times: Sequence[float] = (0.05, 0.3, 1.0)) -> Iterator[Row]:
    """Both sides of the stochastic localisation identity, for every law."""
    dim = p.localised_dim
    laws = {**LAWS, "subspace": lambda d: TARGETS["subspace"](np.eye(d)[:, : max(1, d // 4)])}
    for law, form in laws.items():
        found = reverse_path.localisation(form(dim), times, jax.random.key(0), p.localised)
        for t, sides in zip(times, found, strict=True):
            s = Setting(law, dim, 1, 2.0, t)
            for measure, value in zip(("left", "right"), sides[:2], strict=True):
                yield s.row("localised", measure, value, error=sides[2], bound=float("nan"))


def checked(p: Preset) -> Iterator[Row]:
    """The Monte Carlo of the path beside its closed form."""
    for law in ("two_point", "sphere"):
        dim = p.drawn_dims[-1]
        s, target = Setting(law, dim, p.steps, p.end, p.delta), LAWS[law](dim)
        times = reverse_kl.times(s.grid, s.steps, s.end, s.delta)
        known = reverse_path.curves(target)
        assert known is not None
        want = reverse_path.path_kl(known, times) - known.start(p.end)
        value, error = reverse_path.by_girsanov(target, times, jax.random.key(9), p.replicates)
        yield s.row("checked", "closed", want)
        yield s.row("checked", "drawn", value, error=error)


MEASURED = (
    *(against_dims, against_steps, against_delta, against_error, against_subspace),
    *(localised, checked),
)


def run(preset: Preset, out: Path) -> list[str]:
    """Measures, then writes errors.csv, figure.png, figure.pdf and verdicts.txt to `out`."""
    rows = [row for measure in MEASURED for row in measure(preset)]
    page.table(out / "errors.csv", rows)
    d_linear_page.figure(rows, d_linear_verdicts.constant(rows), out / "figure")
    lines = d_linear_verdicts.verdicts(rows)
    return page.say(out, lines)


def main() -> None:
    """The command line of `run`."""
    page.command("d_linear_convergence", run, PRESETS, __doc__)


if __name__ == "__main__":
    main()
