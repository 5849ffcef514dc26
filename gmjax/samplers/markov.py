"""Reverse steppers of any noising process, from its score.

    walk    the reverse generator's own step: Euler-Maruyama on R^d, a geodesic walk on a
            manifold, Euler jumps on a finite set, all of these on their products
    flow    the probability flow dx/dt = v(x, t), by Heun's rule with projection; two
            evaluations a step, for processes that have a velocity

A process's `read` turns the network's output into the score, example by example.
"""

from collections.abc import Callable

import jax

from gmjax.processes.observed import clamp
from gmjax.samplers.driver import count_steps
from gmjax.types import Array, Cond, Key, Process, PyTree, Stepper, UserError


def walk(process: Process) -> Stepper:
    """One step of the reverse generator; one evaluation."""

    def step(predict, key, x, t, t_next, carry, cond):
        out = predict(x, t, cond)

        def one(key, x, t, dt, out):
            score = process.read(out, x, t)
            return process.reverse(lambda x, t: score).step(key, x, t, dt)

        keys = jax.random.split(key, len(t))
        return jax.vmap(one)(keys, x, t, t - t_next, out), carry

    return Stepper(lambda x: (), step, count_steps)


def flow(process: Process) -> Stepper:
    """One step of the probability flow by Heun's rule; two evaluations.

    Raises:
        UserError: the process has no probability flow.
    """
    if process.velocity is None:
        raise UserError("config.sample.name='flow': this process has no flow; valid: walk")
    of = process.velocity

    def rate(predict, x, t, cond):
        out = predict(x, t, cond)

        def one(x, t, out):
            score = process.read(out, x, t)
            return of(lambda x, t: score)(x, t)

        return jax.vmap(one)(x, t, out)

    def step(predict, key, x, t, t_next, carry, cond):
        h = t_next - t
        first = rate(predict, x, t, cond)
        there = jax.vmap(lambda x, v, h: _move(process.space, x, v, h))(x, first, h)
        second = rate(predict, there, t_next, cond)
        # The mean of two tangent vectors, the second brought back along the space.
        mean = jax.tree.map(lambda a, b: 0.5 * (a + b), first, second)
        return jax.vmap(lambda x, v, h: _move(process.space, x, v, h))(x, mean, h), carry

    return Stepper(lambda x: (), step, lambda times: 2 * (len(times) - 1))


def _move(space, x, v, h):
    """exp_x(h v), in every part of a product."""
    if isinstance(space, dict):
        return {name: _move(space[name], x[name], v[name], h) for name in space}
    return space.project(space.exp(x, h * space.tangent(x, v)))


def infill(cond: Cond) -> Callable[[Key, PyTree, Array], PyTree] | None:
    """The driver's `project` that clamps cond["observed"] to cond["values"], or None.

    The known components stay clean, as `losses.scores.denoising` trains them with "observed".
    """
    if cond is None or "values" not in cond:
        return None
    known = dict(cond)  # a copy: what the caller later takes out is still known here
    return lambda key, x, t: clamp(x, known["values"], known)


STEPPERS: dict[str, Callable[[Process], Stepper]] = {"walk": walk, "flow": flow}
