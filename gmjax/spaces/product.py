"""Products of spaces: a state {name: x_name}, and the product metric.

Everything goes part by part; the metric is the sum, and the frame is that of every part with
nothing in the others, so that divergences add up.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from gmjax.types import Array, Distribution, Space


def check(space: Space | Mapping[str, Space], x: Any) -> str:
    """What is wrong with data x [N, *S] of a space or of {name: space}; "" where nothing is."""
    if isinstance(space, Mapping):
        wrong = (f"{name}: {text}" for name in space if (text := check(space[name], x[name])))
        return "; ".join(wrong)
    return space.check(x)


def embed(space: Space | Mapping[str, Space], x: Any) -> Array:
    """The features of every part of states x [B, *S], side by side: [B, F]."""
    if isinstance(space, Mapping):
        return jnp.concatenate([embed(space[name], x[name]) for name in sorted(space)], -1)
    return jax.vmap(space.embed)(x)


def entrywise(space: Space | Mapping[str, Space]) -> bool:
    """Whether the entries of a state may be given one without another.

    So in open sets of R^d and for sites of finite sets, which have no dimension; the entries of a
    rotation or of a point of a sphere depend on each other.
    """
    if isinstance(space, Mapping):
        return all(entrywise(part) for part in space.values())
    return space.dim in (0, math.prod(space.shape))


def product(parts: Mapping[str, Space]) -> Space:
    """The space of {name: x_name}; its arrays are dictionaries of such.

    Args:
        parts: name -> space, one at least.
    """

    def each(field: str) -> Callable:
        def of(*trees):
            return {n: getattr(p, field)(*(a[n] for a in trees)) for n, p in parts.items()}

        return of

    def frame(x):
        frames = each("frame")(x)
        counts = {n: len(e) for n, e in frames.items()}
        before, total = 0, sum(counts.values())
        out = {}
        for n, e in frames.items():
            pad = [(before, total - before - len(e))] + [(0, 0)] * (e.ndim - 1)
            out[n] = jnp.pad(e, pad)
            before += len(e)
        return out

    def spread(draw):
        def of(key, *trees):
            keys = zip(parts, jax.random.split(key, len(parts)), strict=True)
            return {n: draw(parts[n], k, *(a[n] for a in trees)) for n, k in keys}

        return of

    uniform = None
    if all(p.uniform for p in parts.values()):
        uniform = Distribution(
            spread(lambda p, key: p.uniform.sample(key)),
            lambda x: sum(p.uniform.log_prob(x[n]) for n, p in parts.items()),  # type: ignore
        )
    return Space(
        shape={n: p.shape for n, p in parts.items()},  # type: ignore[arg-type]
        dim=sum(p.dim for p in parts.values()),
        check=partial(check, parts),
        project=each("project"),
        tangent=each("tangent"),
        exp=each("exp"),
        log=each("log"),
        inner=lambda *trees: sum(each("inner")(*trees).values()),  # type: ignore[arg-type]
        frame=frame,  # type: ignore[arg-type]
        noise=lambda key, x, *draw: spread(lambda p, key, x: p.noise(key, x, *draw))(key, x),
        uniform=uniform,
        embed=lambda x: jnp.concatenate([parts[n].embed(x[n]) for n in sorted(parts)]),
    )
