"""How far the reversed Ornstein-Uhlenbeck process ends from the truth when its score is exact.

The process dX = -X dt + sqrt 2 dB takes the data, t = 0, to q_t, the law of alpha X0 + sigma Z with
alpha = e^-t and sigma^2 = 1 - e^-2t. A sampler starts at N(0, I) at the time T and steps down a
grid to delta. A step from t to t' = t - g is y <- a y + b s_t(y) + sqrt(n) xi,

    exponential   a = e^g, b = 2 (e^g - 1), n = e^2g - 1, the reverse equation with s_t frozen
    ancestral     a = e^g, b = 2 sinh g, n = (1 - e^-2g) sigma'^2 / sigma^2, the posterior of X_t'
                  given X_t and X0, with X0 replaced by its mean

What is lost is measured in nats: of the law, here, and of the path, in `reverse_path`.

KL(q_delta || p_N) of a Gaussian follows a recursion of means and variances, every step being
affine; for one coordinate of a product law the density is carried by quadrature, and the KL of
independent coordinates adds.

Source: Benton, De Bortoli, Doucet and Deligiannidis (2024), sections 2 and 3.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.paths.gaussian import GaussianPath, variance_preserving
from gmjax.processes.schedules import constant
from gmjax.targets import products
from gmjax.targets.laws import Target
from gmjax.targets.mixtures import Components
from gmjax.targets.products import Columns
from gmjax.types import UserError, lookup

# -- steps and grids ------------------------------------------------------------------------------


def exponential(t, t_next):
    """(a, b, n) of the exponential integrator."""
    g = t - t_next
    return np.exp(g), 2 * np.expm1(g), np.expm1(2 * g)


def ancestral(t, t_next):
    """(a, b, n) of the ancestral step."""
    g = t - t_next
    spread = np.expm1(-2 * g) * np.expm1(-2 * t_next) / -np.expm1(-2 * t)
    return np.exp(g), 2 * np.sinh(g), spread


RULES: dict[str, Callable] = {"exponential": exponential, "ancestral": ancestral}


def process(end: float) -> GaussianPath:
    """The process on [0, 1], t = 1 standing for the time `end`."""
    return variance_preserving(constant(2 * end))


def decaying(steps: int, end: float, delta: float) -> np.ndarray:
    """The paper's: half of the steps equal on [1, end], half in geometric progression to delta.

    `samplers.grids.path_exponential_decay` in the time of the process, without its float32.
    """
    half = steps // 2 if end > 1 else 0
    knee = min(end, 1.0)
    ratio = (delta / knee) ** (np.arange(1, steps - half + 1) / (steps - half))
    return np.concatenate([np.linspace(end, knee, half + 1), knee * ratio])


def equal(steps: int, end: float, delta: float) -> np.ndarray:
    """Equal steps."""
    return np.linspace(end, delta, steps + 1)


GRIDS: dict[str, Callable[[int, float, float], np.ndarray]] = {
    "exponential_decay": decaying,
    "uniform": equal,
}


def times(grid: str, steps: int, end: float, delta: float) -> np.ndarray:
    """A grid of `GRIDS`: [steps + 1] from `end` to `delta`."""
    return lookup(GRIDS, grid, "config.sample.grid")(steps, end, delta)


def kappa(grid: np.ndarray) -> float:
    """The least kappa with g_k <= kappa min(1, t_{k+1})."""
    return float(np.max(-np.diff(grid) / np.minimum(1, grid[1:])))


def bound(dim, grid: np.ndarray) -> np.ndarray:
    """kappa^2 d N + kappa d T + d e^{-2T}, the theorem without its constant."""
    k, end, steps = kappa(grid), grid[0], len(grid) - 1
    return dim * (k**2 * steps + k * end + np.exp(-2 * end))


# An error of the score in every coordinate is a multiple of one of these in L2(q_t), such that
# sum_k g_k E |e_k|^2 = eps^2 over all coordinates.
SHAPES: dict[str, Callable] = {
    "shift": lambda y: 0 * y + 1,
    "scale": lambda y: y,
    "wave": lambda y: jnp.cos(3 * y),
}

# -- Gaussians ------------------------------------------------------------------------------------


def spectrum(target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues [d] of a Gaussian, and its means along the eigenvectors."""
    parts = target.parts
    if not isinstance(parts, Components) or len(parts.weights) > 1:
        raise UserError("config.target: the recursion is for one Gaussian")
    means, values = parts.means[0], parts.values[0]
    if parts.vectors is None:
        return values, means
    u = parts.vectors[0]
    along, rest = means @ u, len(means) - len(values)
    off = np.zeros(rest)
    if rest:  # one direction off the span holds all of the mean that is there
        off[0] = math.sqrt(max(0.0, means @ means - along @ along))
    return np.concatenate([values, np.zeros(rest)]), np.concatenate([along, off])


def by_recursion(target: Target, grid: np.ndarray, rule="exponential", shape="", size=0.0):
    """KL(q_delta || p_N) of a Gaussian, nats.

    Args:
        target: a Gaussian.
        grid: [N + 1] times.
        rule: in `RULES`.
        shape, size: of an error "shift" or "scale".
    """
    values, means = spectrum(target)
    u, m = np.ones_like(values), np.zeros_like(values)
    rate = size**2 / (len(values) * (grid[0] - grid[-1]))  # E e^2 in a coordinate
    for t, t_next in zip(grid[:-1], grid[1:], strict=True):
        a, b, n = RULES[rule](t, t_next)
        v, centre = gaussian_at(values, means, t)
        keep, push = a - b / v, b * centre / v
        if shape == "shift":
            push = push + b * math.sqrt(rate)
        elif shape == "scale":
            keep = keep + b * np.sqrt(rate / (v + centre**2))
        u, m = keep**2 * u + n, keep * m + push
    v, centre = gaussian_at(values, means, grid[-1])
    gap = v / u - 1
    return float(np.sum(0.5 * (gap - np.log1p(gap) + (centre - m) ** 2 / u)))


def gaussian_at(values, means, t):
    return np.exp(-2 * t) * values - np.expm1(-2 * t), np.exp(-t) * means


# -- products, a coordinate at a time -------------------------------------------------------------

REACH = 10.0  # standard deviations that a quadrature covers on both sides of a component


def nodes(column: Columns, t: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Equal cells on the intervals that carry q_t: nodes [K, count] and their widths [K].

    The intervals about the components are laid end to end. A trapezoidal sum of an analytic
    density that vanishes at the ends converges faster than any power of the width.
    """
    where = np.empty((len(t), count))
    width = np.empty(len(t))
    for i, now in enumerate(t):
        starts, lengths = intervals(column, now)
        upto = np.concatenate([[0.0], np.cumsum(lengths)])
        along = (np.arange(count) + 0.5) * upto[-1] / count
        which = np.searchsorted(upto, along, side="right") - 1
        where[i], width[i] = starts[which] + along - upto[which], upto[-1] / count
    return where, width


def intervals(column, t):
    centre = np.exp(-t) * column.means[0]
    reach = REACH * np.sqrt(np.exp(-2 * t) * column.stds[0] ** 2 - np.expm1(-2 * t))
    order = np.argsort(centre - reach)
    low, high = (centre - reach)[order], np.maximum.accumulate((centre + reach)[order])
    new = np.concatenate([[True], low[1:] > high[:-1]])
    last = np.concatenate([new[1:], [True]])
    return low[new], high[last] - low[new]


def columns(target: Target) -> list[tuple[int, Columns]]:
    """The different coordinates of a product law, and how many there are of each.

    Raises:
        UserError: the coordinates are not independent mixtures.
    """
    parts = target.parts
    if isinstance(parts, Components) and len(parts.weights) == 1 and parts.vectors is None:
        parts = Columns(np.ones((target.dim, 1)), parts.means.T, parts.values.T**0.5)
    if not isinstance(parts, Columns):
        raise UserError("config.target: the coordinates must be independent mixtures")
    rows, counts = np.unique(np.stack(parts, 1).reshape(target.dim, -1), axis=0, return_counts=True)
    split = rows.reshape(len(rows), 3, -1)
    return [
        (int(n), Columns(*(r[None] for r in row))) for n, row in zip(counts, split, strict=True)
    ]


def by_quadrature(target: Target, grid: np.ndarray, rule="exponential", shape="", sizes=(0.0,)):
    """KL(q_delta || p_N) of a product law, nats, for errors of several sizes: [len(sizes)].

    Args:
        target: independent coordinates.
        grid: [N + 1] times.
        rule: in `RULES`.
        shape: in `SHAPES`, or "" for none.
        sizes: eps, over all coordinates.
    """
    a, b, n = RULES[rule](grid[:-1], grid[1:])
    total = np.zeros(len(sizes))
    rates = np.asarray(sizes) / math.sqrt(target.dim * (grid[0] - grid[-1]))
    for count, column in columns(target):
        # The kernel is resolved to rounding where its deviation is 1.5 cells, the score with 256.
        lengths = np.array([intervals(column, t)[1].sum() for t in grid[:-1]])
        size = max(256, 64 * math.ceil(1.5 * np.max(lengths / np.sqrt(n)) / 64))
        where, width = nodes(column, grid, size)
        with jax.enable_x64(True):
            steps = [jnp.asarray(q) for q in (a, b, n, grid[:-1], where[:-1], where[1:], width)]
            run = _carry(key(column), shape, steps, grid[-1], where[-1], jnp.asarray(rates))
            total += count * np.asarray(run)
    return total


def key(column: Columns) -> tuple:
    """A law of one coordinate as something that a compiled program is kept by."""
    return tuple(tuple(map(float, np.ravel(q))) for q in column)


def unkey(named: tuple) -> Target:
    """The target of a `key`."""
    return products.of(Columns(*(np.array([q]) for q in named)))


@partial(jax.jit, static_argnums=(0, 1))
@partial(jax.vmap, in_axes=(None, None, None, None, None, 0))
def _carry(named, shape, steps, delta, last, rate):
    """One coordinate: its density carried down the grid."""
    law = unkey(named)

    def density(y, t):
        one = lambda y: law.log_prob(y[None], jnp.exp(-t), jnp.sqrt(-jnp.expm1(-2 * t)))
        return jax.vmap(one)(y)

    def body(p, now):
        a, b, n, t, y, y_next, h = now
        one = lambda y: law.score(y[None], jnp.exp(-t), jnp.sqrt(-jnp.expm1(-2 * t)))[0]
        s = jax.vmap(one)(y)
        if shape:
            e = SHAPES[shape](y)
            s = s + rate * e / jnp.sqrt(jnp.sum(h * jnp.exp(density(y, t)) * e**2))
        gap = y_next[:, None] - (a * y + b * s)
        kernel = jnp.exp(-0.5 * gap**2 / n)
        return kernel @ (h * p) / jnp.sqrt(2 * math.pi * n), None

    *each, width = steps
    start = jnp.exp(-0.5 * each[4][0] ** 2) / math.sqrt(2 * math.pi)
    p, _ = jax.lax.scan(body, start, (*each, width[:-1]))
    logs = density(last, jnp.asarray(delta))
    kept = p > 0
    ratio = jnp.where(kept, logs - jnp.log(jnp.where(kept, p, 1.0)), 0.0)
    return jnp.sum(width[-1] * jnp.exp(logs) * ratio)
