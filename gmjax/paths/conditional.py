"""What a conditional path is, and products of them.

Flow matching needs no noising process, only a path x_t between a state x0 of the data (t = 0) and
a state x1 of a source (t = 1), and something that is known about how it moves given both ends:
a velocity on R^d and on manifolds, the value that a site jumps to on finite sets. A network learns
its conditional mean given x_t, and that moves the marginals from the source to the data.

A `Path` is all this as functions of one state, so that one loss, one sampler and one method serve
every space. On a product every part has its own path with the same t; the network sees all of the
state, and moving each part under its own component is exact, since velocities and rates of
parts that move independently given (x0, x1) add up.

Source: Lipman et al. (2023); Chen and Lipman (2024); Gat et al. (2024); Holderrieth et al. (2025).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmjax.types import Array, Distribution, PyTree, UserError


class Path(NamedTuple):
    """A conditional path, for one state x: [*S] (or a tree) at one time t: []."""

    space: PyTree  # `Space`, or a tree of them
    output: PyTree  # shape of the network's output, or a tree of such
    base: Distribution  # the source where no other is given
    draw: Callable[..., tuple[PyTree, PyTree]]  # (key, x0, x1, t) -> x_t, what is regressed on
    gap: Callable[..., Array]  # (out, x_t, t, target) -> [], the loss, of order one
    start: Callable[..., PyTree]  # (key, x1, t) -> x_t without x0, t the largest time
    step: Callable[..., PyTree]  # (key, out, x, t, s) -> x_s, s < t: Euler's rule
    # (key, out, x, middle, t, half, s) -> x_s, the second step of the midpoint rule, `out` being
    # the network's output at (middle, half)
    midpoint: Callable[..., PyTree]
    # (key, out, x, t, s, size) -> x_s with noise of that size added and taken out
    walk: Callable[..., PyTree] | None = None
    velocity: Callable[..., PyTree] | None = None  # (out, x, t) -> v, tangent at x


def product(parts: Mapping[str, Path]) -> Path:
    """The path of {name: x_name} whose parts move independently given (x0, x1).

    Args:
        parts: name -> the path of that part. What one of them lacks (noise, a velocity) the
            product lacks too.

    Raises:
        UserError: there are no parts.
    """
    if not parts:
        raise UserError("config.path.parts={}; valid: {name: path}, one at least")

    def each(field: str, *trees, key=None):
        keys = [None] * len(parts) if key is None else jax.random.split(key, len(parts))

        def one(name, k):
            head = () if k is None else (k,)
            at = (a[name] if isinstance(a, Mapping) else a for a in trees)
            return getattr(parts[name], field)(*head, *at)

        return {name: one(name, k) for name, k in zip(parts, keys, strict=True)}

    def draw(key, x0, x1, t):
        both = each("draw", x0, x1, t, key=key)
        return tuple({name: pair[i] for name, pair in both.items()} for i in range(2))

    def sample(key):
        keys = jax.random.split(key, len(parts))
        return {n: p.base.sample(k) for (n, p), k in zip(parts.items(), keys, strict=True)}

    def log_prob(x):
        return jnp.sum(jnp.stack([p.base.log_prob(x[name]) for name, p in parts.items()]))

    def keyed(field):
        if any(getattr(p, field) is None for p in parts.values()):
            return None
        return lambda key, *trees: each(field, *trees, key=key)

    walks, start, step, midpoint = map(keyed, ("walk", "start", "step", "midpoint"))
    assert start is not None and step is not None and midpoint is not None
    flows = all(p.velocity for p in parts.values())
    return Path(
        space={name: p.space for name, p in parts.items()},
        output={name: p.output for name, p in parts.items()},
        base=Distribution(sample, log_prob),
        draw=draw,
        gap=lambda *trees: jnp.sum(jnp.stack(list(each("gap", *trees).values()))),
        start=start,
        step=step,
        midpoint=midpoint,
        walk=walks,
        velocity=(lambda *trees: each("velocity", *trees)) if flows else None,
    )
