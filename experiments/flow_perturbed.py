"""Flows between exactly known laws, with an error of known size added to their velocity.

X = alpha X0 + beta X1 + gamma Z moves along a parameter s in [0, 1] from the reference, s = 1, to
the data, s = 0. An error eps e(x, s) with int E |e|^2 dt = 1 is added to the velocity, t the
theorem's time. In one dimension flows are monotone, so trajectories that start together are
optimally coupled, and with the quantile z of the start

    W2^2(X_0, Y_0) = int_0^1 (X_0(z) - Y_0(z))^2 dz

exactly. To first order Y_0 - X_0 = -eps int J e dt, where J(z, s) = dX_0 / dX_s = p_s / p_0 along
the trajectory, so the worst error is proportional to J on the trajectories that are stretched most.
In one dimension L*_t, the least Lipschitz constant of the velocity, is the largest |dv/dx|.

    interpolant   alpha = 1 - t, beta = t, gamma = 2 R sqrt((a + t) (1 + a - t)), X1 like X0
    vp            alpha = e^-tau, gamma^2 = 1 - alpha^2, tau geometric in t
    ve            alpha = 1, gamma geometric in t up to one

all from the smallest gamma at s = 0. For the first, s is the logit of t between -a and 1 + a.

Source: Benton, Deligiannidis and Doucet (2024), theorems 1 to 4.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from gmjax.targets import TARGETS
from gmjax.targets.interpolants import Interpolant, interpolant, velocity
from gmjax.targets.laws import Target
from gmjax.types import Array, Key


class Family(NamedTuple):
    """A path with the smallest noise as a parameter; of s [] and small []."""

    coefficients: Callable[..., tuple[Array, Array, Array]]  # (s, small, R) -> alpha, beta, gamma
    clock: Callable[..., Array]  # (s, small, R) -> t
    both: bool  # does X1 have the law of X0? otherwise there is none


def _margin(small, radius):
    return 0.5 * (jnp.sqrt(1 + (small / radius) ** 2) - 1)


def _between(s, small, radius):
    a = _margin(small, radius)
    end = jnp.log((1 + a) / a)
    share = jax.nn.sigmoid(end * (2 * s - 1))
    return (1 + 2 * a) * share - a, (1 + 2 * a) * jnp.sqrt(share * (1 - share))


def _interpolant(s, small, radius):
    t, root = _between(s, small, radius)
    return 1 - t, t, 2 * radius * root


LATEST = 6.0  # the time of the Ornstein-Uhlenbeck process that "vp" starts from


def _vp(s, small, radius):
    first = -0.5 * jnp.log1p(-(small**2))
    tau = first * (LATEST / first) ** s
    return jnp.exp(-tau), 0 * s, jnp.sqrt(-jnp.expm1(-2 * tau))


FAMILIES: dict[str, Family] = {
    "interpolant": Family(_interpolant, lambda *a: _between(*a)[0], True),
    "vp": Family(_vp, lambda s, small, radius: s, False),
    "ve": Family(
        lambda s, small, radius: (1 + 0 * s, 0 * s, small ** (1 - s)), lambda s, *_: s, False
    ),
}


def pair(family: str, data: Target) -> Interpolant:
    """The interpolant of a law and its partner in a family."""
    other = data if FAMILIES[family].both else TARGETS["gaussian"](np.zeros(data.dim))
    return interpolant(data, other)


def two_modes(ratio: float, radius: float = 1.0) -> Target:
    """Two Gaussians in one dimension, centres at +-m and deviation m / ratio, m + deviation = R."""
    if ratio == 0:
        return TARGETS["mixture_product"](1, [1.0], [0.0], [radius])
    centre = radius * ratio / (1 + ratio)
    return TARGETS["mixture_product"](1, [0.5, 0.5], [-centre, centre], [centre / ratio] * 2)


def regularity(ratio: float) -> tuple[float, float]:
    """lambda of two modes: the theorem's 1 + r, r = (R / sigma)^2, and the least possible.

    The posterior covariance of the noise is at most tau^2 (y + r (y - y^2)), y = sigma^2 /
    (sigma^2 + tau^2), largest at y = (1 + r) / (2 r) where r > 1.
    """
    r = ratio**2
    return 1 + r, (1 + r) ** 2 / (4 * r) if r > 1 else 1.0


# -- Lipschitz constants --------------------------------------------------------------------------

PARAMETERS = 400  # values of s


def halves() -> np.ndarray:
    """Midpoints of the cells of s."""
    return (np.arange(PARAMETERS) + 0.5) / PARAMETERS


def lipschitz(law: Interpolant, family: str, radius: float, points: np.ndarray):
    """small [] -> (int L* dt, int |gamma'| / gamma dt, int (|alpha'| + |beta'|) / gamma dt).

    Args:
        law: of the family.
        family: in `FAMILIES`.
        radius: R.
        points: [P, d], on which the largest spectral norm of the velocity's Jacobian is sought.
    """
    form = FAMILIES[family].coefficients

    def at(small):
        rates = lambda s: form(s, small, radius)
        field = velocity(law, rates)

        def one(s):
            norm = lambda x: jnp.linalg.norm(jax.jacfwd(field)(x, s), 2)
            (_, _, g), (da, db, dg) = jax.jvp(rates, (s,), (jnp.ones_like(s),))
            largest = jnp.max(jax.vmap(norm)(jnp.asarray(points)))
            return largest, jnp.abs(dg) / g, (jnp.abs(da) + jnp.abs(db)) / g

        return tuple(jnp.mean(q) for q in jax.lax.map(one, jnp.asarray(halves())))

    return jax.jit(at)


# -- one dimension --------------------------------------------------------------------------------

MODELS = ("constant", "random", "adversarial")
STEPS = 300


class Flows(NamedTuple):
    """Perturbed flows of one law."""

    w2: Array  # [models, eps], to the unperturbed end
    to_data: Array  # [models, eps], to the data
    lipschitz: Array  # [], int L*_t dt
    landing: Array  # [], root mean square distance of the exact flow from the law's quantiles


def quantiles(density: np.ndarray, grid: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Of a density given on a fine grid."""
    upto = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid))])
    return np.interp(levels, upto / upto[-1], grid)


def flows(
    data: Target, family: str, radius: float, sizes: np.ndarray, models=MODELS, width: float = 0.03
):
    """small [] -> `Flows`, for errors of several sizes.

    Args:
        data: a law of one dimension.
        family: in `FAMILIES`.
        radius: R.
        sizes: eps.
        models: of the error, among `MODELS`.
        width: of the adversary's share of the trajectories, as a standard deviation of z.
    """
    law, form = pair(family, data), FAMILIES[family]
    z, each = np.polynomial.legendre.leggauss(256)
    levels, w = jnp.asarray(0.5 * (z + 1)), jnp.asarray(0.5 * each)
    grid = jnp.asarray(np.linspace(-9, 9, 6001) * max(1.0, radius))
    eps = jnp.asarray(sizes)
    omega = jnp.asarray([1.3, 2.9, 4.1])
    phase = jnp.asarray(np.random.default_rng(0).uniform(0, 2 * math.pi, 3))
    s = jnp.linspace(1.0, 0.0, STEPS + 1)

    def at(small):
        rates = lambda s: form.coefficients(s, small, radius)
        field = velocity(law, rates)
        v = lambda x, s: jax.vmap(lambda x: field(x[None], s)[0])(x)
        logs = lambda x, s: jax.vmap(lambda x: law.log_prob(x[None], *rates(s)))(x)
        clock = lambda s: jax.grad(form.clock)(s, small, radius)

        def table(s):
            p = jnp.exp(logs(grid, s))
            upto = jnp.cumsum(0.5 * (p[1:] + p[:-1])) * (grid[1] - grid[0])
            return jnp.concatenate([jnp.zeros(1), upto]) / upto[-1]

        def runge(f, x, s, h):
            k1 = f(x, s)
            k2 = f(x - 0.5 * h * k1, s - 0.5 * h)
            k3 = f(x - 0.5 * h * k2, s - 0.5 * h)
            return x - h / 6 * (k1 + 2 * k2 + 2 * k3 + f(x - h * k3, s - h))

        h = 1 / STEPS
        start = jnp.interp(levels, table(s[0]), grid)
        last, exact = jax.lax.scan(lambda x, s: (runge(v, x, s, h), x), start, s[:-1])
        way = jnp.concatenate([exact, last[None]])  # [STEPS + 1, 256]
        stretch = jnp.exp(jax.vmap(logs)(way, s) - logs(last, s[-1])[None])  # J
        speed = jax.vmap(clock)(s)
        weight = jnp.full(STEPS + 1, h).at[jnp.asarray([0, -1])].mul(0.5) * speed
        worst = levels[jnp.argmax(weight @ stretch**2)]
        tables = jax.lax.map(table, s)

        def bump(level):
            return jnp.exp(-0.5 * ((level - worst) / width) ** 2)

        def adversary(x, s_now):
            """J times the bump at the quantile of x, from the tables of the neighbouring s."""
            place = (1 - s_now) * STEPS
            i = jnp.clip(jnp.floor(place).astype(int), 0, STEPS - 1)
            share = place - i
            upto = (1 - share) * tables[i] + share * tables[i + 1]
            level = jnp.interp(x, grid, upto)
            end = jnp.interp(level, tables[-1], grid)
            return jnp.exp(logs(x, s_now) - logs(end, s[-1])) * bump(level)

        shapes = (
            lambda x, s: jnp.ones_like(x),
            lambda x, s: jnp.sum(jnp.cos(omega * x[:, None] + phase + 5 * omega * s), -1),
            adversary,
        )
        found = [jax.lax.map(lambda a, e=e: e(*a), (way, s)) for e in shapes]
        squares = jnp.stack([weight @ (f**2 @ w) for f in found])

        def perturbed(model, size):
            def e(x, s):
                each = [lambda a, f=f: f(*a) for f in shapes]
                return size / jnp.sqrt(squares[model]) * jax.lax.switch(model, each, (x, s))

            g = lambda x, s: v(x, s) + clock(s) * e(x, s)
            return jax.lax.scan(lambda x, s: (runge(g, x, s, h), None), start, s[:-1])[0]

        points = grid[::60]

        def steepest(s):
            return jnp.max(jnp.abs(jax.jvp(lambda x: v(x, s), (points,), (1 + 0 * points,))[1]))

        chosen = jnp.asarray([MODELS.index(m) for m in models])
        pairs = jnp.repeat(chosen, len(eps)), jnp.tile(eps, len(models))
        ends = jax.lax.map(lambda a: perturbed(*a), pairs)
        shape = len(models), len(eps)
        truth = jnp.interp(levels, tables[-1], grid)
        to = lambda target: jnp.sqrt((ends - target) ** 2 @ w).reshape(shape)
        clean = jnp.asarray(_data_quantiles(data, np.asarray(0.5 * (z + 1))))
        return Flows(
            to(last),
            to(clean),
            jnp.mean(jax.lax.map(steepest, jnp.asarray(halves()))),
            jnp.sqrt((last - truth) ** 2 @ w),
        )

    return jax.jit(at)


def _data_quantiles(data, levels):
    """Of a mixture in one dimension, points among its components allowed."""
    weights, means, stds = (q[0] for q in data.parts)
    if (stds == 0).all():
        order = np.argsort(means)
        return means[order][np.searchsorted(np.cumsum(weights[order]), levels)]
    grid = np.linspace((means - 9 * stds).min(), (means + 9 * stds).max(), 40_001)
    each = np.exp(-0.5 * ((grid[:, None] - means) / stds) ** 2) / stds
    return quantiles(each @ weights, grid, levels)


# -- more dimensions ------------------------------------------------------------------------------


def gaussian(family: str, values: np.ndarray, small: float, radius: float):
    """Of N(0, diag values): the largest W2 / eps of any error, and exp int L*, in closed form.

    The deviations m_i(s) make the flow x_i -> x_i m_i(0) / m_i(s), and by Cauchy-Schwarz the worst
    error lies along one axis, proportional to m_i(0) / m_i(s).
    """
    form, s = FAMILIES[family], jnp.asarray(halves())

    def spread(s):
        a, b, g = form.coefficients(s, small, radius)
        b = b if form.both else 0 * b
        return 0.5 * jnp.log((a**2 + b**2) * jnp.asarray(values) + g**2)

    logs, rates = jax.vmap(lambda s: jax.jvp(spread, (s,), (jnp.ones_like(s),)))(s)
    speed = jax.vmap(lambda s: jax.grad(form.clock)(s, small, radius))(s)
    stretched = jnp.mean(speed[:, None] * jnp.exp(2 * (spread(jnp.zeros(())) - logs)), 0)
    return float(jnp.sqrt(jnp.max(stretched))), float(jnp.exp(jnp.mean(jnp.max(jnp.abs(rates), 1))))


def transported(
    data: Target, family: str, small: float, radius: float, sizes, key: Key, count: int
):
    """W2 of perturbed and exact draws in the plane by optimal transport: [len(sizes)].

    The error is a unit vector everywhere, turning in x, so its size is exact. Both sets start from
    the same draws; the least cost of any assignment is at most that of this one.
    """
    law, form = pair(family, data), FAMILIES[family]
    rates = lambda s: form.coefficients(s, small, radius)
    field = velocity(law, rates)
    omega = jnp.asarray([2.0, -1.0])

    @jax.jit
    def run(keys, eps):
        x = jax.vmap(lambda k: law.sample(k, *rates(jnp.ones(()))))(keys)

        def g(x, s):
            angle = x @ omega + 4 * s
            e = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
            return field(x, s) + eps * jax.grad(form.clock)(s, small, radius) * e

        def step(x, s):
            h, f = 1 / STEPS, jax.vmap(g, (0, None))
            return x - h * f(x - 0.5 * h * f(x, s), s - 0.5 * h), None

        return jax.lax.scan(step, x, jnp.linspace(1.0, 0.0, STEPS + 1)[:-1])[0]

    keys = jax.random.split(key, count)
    base, out = np.asarray(run(keys, 0.0)), []
    for eps in sizes:
        cost = np.sum((base[:, None] - np.asarray(run(keys, eps))[None]) ** 2, -1)
        rows, columns = linear_sum_assignment(cost)
        out.append(math.sqrt(cost[rows, columns].mean()))
    return out
