"""Exact simulation of a jump process whose rates change in time, in one jitted loop.

Thinning (the time-inhomogeneous Gillespie algorithm): if M bounds the total rate of a state
on a window of time, candidates arrive as a Poisson process of rate M, and one at time t is a
jump with probability (total rate at t) / M, its destination drawn from the rates at t.
Candidates that are refused move nothing, so the law of the path is exact, and by
memorylessness a window may be cut anywhere.

For a reverse chain the bound needs no network: the ratio p_t(y) / p_t(x) is a convex mixture
of q(y | x0) / q(x | x0) over x0, so a site's total reverse rate is at most

    max_{x0} sum_{y != x} beta(t) R[y, x] q_t(y | x0) / q_t(x | x0).

Every lane of a batch keeps its own time; one network call serves all lanes' next candidates.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmjax import draws
from gmjax.processes.ctmc import CTMC, Parametrisation, reverse_rates
from gmjax.types import Array, Cond, Key, Predict


class ExactSamples(NamedTuple):
    """What an exact simulation returns."""

    x: Array  # [B, *S]
    nfe: Array  # [] int32, batched evaluations of the rates
    jumps: Array  # [B] int32, jumps of each path
    violations: Array  # [] int32, candidates whose rate exceeded the bound: zero if exact


def thinning(
    rates: Callable[[Array, Array], Array],
    bound: Callable[[Array, Array], Array],
    key: Key,
    x: Array,
    windows: Array,
) -> ExactSamples:
    """Simulate a jump process along decreasing (or increasing) time.

    Args:
        rates: (x [B, *S], t [B]) -> [B, *S, K], zero at x.
        bound: (x [B, *S], window [B] int) -> [B], at least the total rate on that window.
        key: a PRNG key.
        x: [B, *S] states at windows[0].
        windows: [W + 1] monotone times that cut the run; the bound holds between neighbours.

    Returns:
        `ExactSamples`.
    """
    direction = jnp.sign(windows[-1] - windows[0])
    last = len(windows) - 1

    def propose(key, x, t, window):
        """Advance every lane to its next candidate or to the end."""

        def running(state):
            _, _, window, found = state
            return jnp.any(~found & (window < last))

        def body(state):
            key, t, window, found = state
            key, key_wait = jax.random.split(key)
            wait = jax.random.exponential(key_wait, t.shape) / jnp.maximum(
                bound(x, jnp.minimum(window, last - 1)), 1e-30
            )
            edge = windows[jnp.minimum(window + 1, last)]
            reach = t + direction * wait
            active = ~found & (window < last)
            inside = direction * (edge - reach) > 0
            t = jnp.where(active, jnp.where(inside, reach, edge), t)
            window = jnp.where(active & ~inside, window + 1, window)
            return key, t, window, found | (active & inside)

        found = jnp.zeros(t.shape, bool)
        _, t, window, found = jax.lax.while_loop(running, body, (key, t, window, found))
        return t, window, found

    def body(state):
        key, x, t, window, nfe, jumps, violations = state
        key, key_time, key_jump = jax.random.split(key, 3)
        t, window, found = propose(key_time, x, t, window)
        # A lane that has ended still takes part in the call: any valid time will do.
        table = rates(x, t)
        flat = table.reshape(len(x), -1, table.shape[-1])
        u_accept, u_site, u_value = draws.uniform(key_jump, (3, len(x)))
        per_site = jnp.sum(flat, -1)
        total, limit = jnp.sum(per_site, -1), bound(x, jnp.minimum(window, last - 1))
        jump = found & (u_accept * limit < total)
        site = draws.categorical(u_site, per_site)
        lane = jnp.arange(len(x))
        value = draws.categorical(u_value, flat[lane, site]).astype(x.dtype)
        sites = x.reshape(len(x), -1)
        moved = sites.at[lane, site].set(jnp.where(jump, value, sites[lane, site]))
        over = found & (total > limit * (1 + 1e-4))
        counts = nfe + 1, jumps + jump, violations + jnp.sum(over)
        return key, moved.reshape(x.shape), t, window, *counts

    def running(state):
        return jnp.any(state[3] < last)

    zeros = jnp.zeros(len(x), jnp.int32)
    start = (key, x, jnp.full(len(x), windows[0]), zeros, jnp.int32(0), zeros, jnp.int32(0))
    _, x, _, _, nfe, jumps, violations = jax.lax.while_loop(running, body, start)
    return ExactSamples(x, nfe, jumps, violations)


def reverse_bound(ctmc: CTMC, windows: Array, refine: int = 8) -> Array:
    """A bound of the total reverse rate of one site on each window: [W, K].

    The bound of the module docstring, maximised over `refine` + 1 times a window, with five
    per cent added for what lies between them.

    Args:
        ctmc: the noising process; S x S work, so for small or moderate S.
        windows: [W + 1] times.
        refine: times a window.
    """
    chain = ctmc.chain
    states = jnp.arange(chain.num_states)

    def at(t):
        kernel = chain.row(jnp.arange(chain.num_values), ctmc.schedule.clock(t))  # [V, K]

        def site(x):
            likely = kernel[:, x]
            ratio = kernel / jnp.maximum(likely[:, None], 1e-30)
            rates = reverse_rates(ctmc, ratio, jnp.broadcast_to(x, likely.shape), t)
            return jnp.max(jnp.where(likely > 0, jnp.sum(rates, -1), 0))

        return jax.vmap(site)(states)

    share = jnp.linspace(0, 1, refine + 1)
    times = windows[:-1, None] + share * (windows[1:] - windows[:-1])[:, None]
    return 1.05 * jnp.max(jax.lax.map(jax.vmap(at), times), 1)


def exact(
    ctmc: CTMC,
    read: Parametrisation,
    predict: Predict,
    key: Key,
    x: Array,
    windows: Array,
    cond: Cond = None,
) -> ExactSamples:
    """Exact simulation of the reverse process of a predicted posterior.

    Args:
        ctmc: the noising process.
        read: how the network's output is read; for "ratio" the bound is not a theorem, and
            violations are counted.
        predict: the network.
        key: a PRNG key.
        x: [B, *S], a draw of the base law.
        windows: [W + 1] times from 1 to t_min; more windows mean fewer refused candidates.
        cond: passed to `predict`; sites with cond["observed"] never move.

    Returns:
        `ExactSamples`.

    Source: Campbell et al. (2022), section 4.2, by thinning in place of next reactions.
    """
    table = reverse_bound(ctmc, windows)
    observed = None if cond is None else cond.get("observed")

    def rates(x, t):
        ratio = jax.vmap(read.ratio)(predict(x, t, cond), x, t)
        back = jax.vmap(lambda r, x, t: reverse_rates(ctmc, r, x, t))(ratio, x, t)
        return back if observed is None else jnp.where(observed[..., None], 0, back)

    def bound(x, window):
        sites = table[window[:, None], x.reshape(len(x), -1)]
        if observed is not None:
            sites = jnp.where(observed.reshape(len(x), -1), 0, sites)
        return jnp.sum(sites, -1)

    return thinning(rates, bound, key, x, windows)
