"""The law of a leaping run on an enumerated state space, without samples.

The data law p is a table on S^D states, so every conditional law of the noised data is a sum.
A leap moves every site on its own given x; with G_d(x, y) the law of site d after a leap from x,

    p'(y) = sum_x p(x) prod_d G_d(x, y_d),

one matrix product over the states, repeated to t_min. With m = db sum_y Rhat(y) expected jumps:

    euler         y with probability db Rhat(y), of total at most one
    categorical   a jump if the Poisson count is one: m exp(-m) in all, shared out as Rhat
    ordinal       x plus a compound Poisson sum of displacements z, clamped: its transform is
                  exp(db sum_z Rhat(x + z) (e^{i w z} - 1))
    tweedie       (g q_s)(y) q_{s,t}(x | y), normalised; g the law of x0^d given the other sites
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.processes import ctmc
from gmjax.types import Array, Cond, Predict

_EXACT = jax.lax.Precision.HIGHEST


class Problem(NamedTuple):
    """A data law that is known, and the process that noises it."""

    noise: ctmc.CTMC  # a chain without a mask state
    law: np.ndarray  # [S] * D, the law of the data
    t_min: float = 0.01


def states(problem: Problem) -> Array:
    """Every state: [N, D], N = S^D, in the order of `law.reshape(-1)`."""
    shape = problem.law.shape
    return jnp.asarray(np.indices(shape).reshape(len(shape), -1).T, jnp.int32)


def _kernel(problem: Problem, t: Array) -> Array:
    chain, schedule = problem.noise
    return chain.row(jnp.arange(chain.num_states), schedule.clock(t))


def _along(law: Array, kernel: Array, axes: Iterable[int]) -> Array:
    for d in axes:
        law = jnp.moveaxis(jnp.tensordot(law, kernel, (d, 0), precision=_EXACT), -1, d)
    return law


def marginal(problem: Problem, t: Array) -> Array:
    """q_t of every state: [N]."""
    law = jnp.asarray(problem.law, jnp.float32)
    q = _along(law, _kernel(problem, t), range(law.ndim)).reshape(-1)
    return q / jnp.sum(q)


def leave_one_out(problem: Problem, t: Array) -> Array:
    """log p(x0^d | x_t without d) up to a constant, at every state: [N, D, S]."""
    law, kernel = jnp.asarray(problem.law, jnp.float32), _kernel(problem, t)
    dims, s = law.ndim, len(kernel)

    def site(d):
        others = _along(law, kernel, (e for e in range(dims) if e != d))
        g = jnp.expand_dims(jnp.moveaxis(others, d, -1), d)  # the same at every x^d
        return jnp.broadcast_to(g, (s,) * (dims + 1)).reshape(-1, s)

    return jnp.log(jnp.maximum(jnp.stack([site(d) for d in range(dims)], 1), 1e-30))


def lookup_table(problem: Problem) -> Predict:
    """The exact network of a run whose lanes share one time: a row of `leave_one_out`."""
    s, dims = problem.law.shape[0], problem.law.ndim
    place = jnp.asarray(s ** np.arange(dims)[::-1], jnp.int32)

    def predict(x: Array, t: Array, cond: Cond = None) -> Array:
        return leave_one_out(problem, t[0])[x @ place]

    return predict


def pairwise(problem: Problem) -> Predict:
    """The exact network for D = 2 with a time for every lane: g_1 = p q_t(x_2 | .)."""
    law = jnp.asarray(problem.law, jnp.float32)
    chain, schedule = problem.noise

    def one(x, t):
        q = chain.column(x, schedule.clock(t))
        first = jnp.matmul(law, q[1], precision=_EXACT)
        last = jnp.matmul(q[0], law, precision=_EXACT)
        return jnp.log(jnp.maximum(jnp.stack([first, last]), 1e-30))

    def predict(x: Array, t: Array, cond: Cond = None) -> Array:
        return jax.vmap(one)(x, t)

    return predict


def _staying(x: Array, moves: Array) -> Array:
    """Adds to the chances of moving [..., S] the chance to stay at x."""
    stay = 1 - jnp.sum(moves, -1, keepdims=True)
    return moves + stay * jax.nn.one_hot(x, moves.shape[-1])


def euler_law(x: Array, rates: Array) -> Array:
    """One jump at most: x [...], db Rhat [..., S] -> the law of the next value [..., S]."""
    return _staying(x, rates / jnp.maximum(jnp.sum(rates, -1, keepdims=True), 1))


def categorical_law(x: Array, rates: Array) -> Array:
    """A Poisson number of jumps, refused if there is more than one."""
    return _staying(x, rates * jnp.exp(-jnp.sum(rates, -1, keepdims=True)))


def ordinal_law(x: Array, rates: Array) -> Array:
    """The sum of a Poisson number of displacements, clamped."""
    s = rates.shape[-1]
    size = 8 * s  # displacements beyond 4 S either way would wrap around
    z = jnp.arange(size) - size // 2
    y = x[..., None] + z
    jumps = jnp.take_along_axis(rates, jnp.clip(y, 0, s - 1), -1) * ((y >= 0) & (y < s))
    transform = jnp.fft.rfft(jnp.roll(jumps, -(size // 2), -1))
    total = jnp.fft.irfft(jnp.exp(transform - transform[..., :1]), size)
    upto = jnp.cumsum(jnp.roll(total, size // 2, -1), -1)
    inner = jnp.take_along_axis(upto, jnp.arange(s - 1) - x[..., None] + size // 2, -1)
    edges = [(0, 0)] * x.ndim
    upto = jnp.concatenate([inner, jnp.ones((*x.shape, 1))], -1)
    return jnp.maximum(jnp.diff(jnp.pad(upto, [*edges, (1, 0)]), axis=-1), 0)


LEAPS: dict[str, Callable[[Array, Array], Array]] = {
    "ordinal": ordinal_law,
    "categorical": categorical_law,
    "euler": euler_law,
}
METHODS = ("ordinal", "categorical", "euler", "tweedie")


def leap_law(problem: Problem, method: str, t: Array, s: Array) -> Array:
    """G_d(x, .), the law of every site after a leap from t to s: [N, D, S]."""
    chain, schedule = problem.noise
    read = ctmc.leave_one_out(problem.noise)
    x, out = states(problem), leave_one_out(problem, t)
    db = schedule.clock(t) - schedule.clock(s)
    if method == "tweedie":
        weights = read.law(out, x, t, s) * chain.column(x, db)
        return weights / jnp.maximum(jnp.sum(weights, -1, keepdims=True), 1e-30)
    return LEAPS[method](x, db * chain.rates_in(x) * read.ratio(out, x, t))


def _product(sites: Array) -> Array:
    """[N, D', S] -> [N, S^D'], the joint law of independent sites."""
    joint = jnp.ones((len(sites), 1))
    for d in range(sites.shape[1]):
        joint = (joint[:, :, None] * sites[:, None, d]).reshape(len(sites), -1)
    return joint


def propagate(problem: Problem, method: str, steps: Array) -> Array:
    """The law at t_min of a leaping run that starts at q_1 and takes equal steps: [N]."""
    half = problem.law.ndim // 2
    tau = (1 - problem.t_min) / steps

    def body(i, p):
        sites = leap_law(problem, method, 1 - i * tau, 1 - (i + 1) * tau)
        first, last = _product(sites[:, :half]), _product(sites[:, half:])
        p = jnp.matmul((first * p[:, None]).T, last, precision=_EXACT).reshape(-1)
        return p / jnp.sum(p)

    return jax.lax.fori_loop(0, steps, body, marginal(problem, jnp.ones(())))
