"""Independent noising of the components of x = {name: x_name}, whose data law may tie them.

The kernel is a product, so its draws, its density and its score go component by component. The
marginal p_t is not: its generalised score is a tree whose component at `name` depends on all of x,

    grad log p_t(x) in x_name, the others held        for a diffusion
    p_t(y, x\\name) / p_t(x)                           for a chain.

The generator is the sum of the parts', and reversal is linear in the generator: each component is
reversed under its own component of the score at the whole of x, and Phi is the sum of the parts'.
Source: Benton et al. (2022), propositions 1 to 3.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from gmjax import generators
from gmjax.types import Distribution, Process, UserError


def product(parts: Mapping[str, Process]) -> Process:
    """The process of {name: x_name} whose components are noised independently.

    Args:
        parts: name -> the process of that component. What one of them lacks (the kernel's
            density, `phi`, a velocity) the product lacks too.

    Raises:
        UserError: there are no parts.
    """
    if not parts:
        raise UserError("config.process.parts={}; valid: {name: process}, one at least")

    def componentwise(field: str) -> Callable | None:
        """The parts' functions as one of trees: each gets its component, and the time as it is."""
        functions = {name: getattr(part, field) for name, part in parts.items()}
        if any(f is None for f in functions.values()):
            return None

        def of(*arguments):
            at = lambda name: (a[name] if isinstance(a, Mapping) else a for a in arguments)
            return {name: f(*at(name)) for name, f in functions.items()}

        return of

    def total(field: str) -> Callable | None:
        of = componentwise(field)
        return (lambda *arguments: sum(of(*arguments).values())) if of else None

    def along(score, x, name):
        """One component of the score as a function of that component of x."""
        return lambda y, t: score({**x, name: y}, t)[name]

    def reverse(score):
        def at(x):
            backward = {name: p.reverse(along(score, x, name)) for name, p in parts.items()}
            return generators.product(backward)

        return generators.depending(at)

    def velocity(score):
        flows = {name: part.velocity for name, part in parts.items()}
        return lambda x, t: {
            name: v(along(score, x, name))(x[name], t) for name, v in flows.items()
        }

    def sample(key, x0, t):
        keys = zip(parts.items(), jax.random.split(key, len(parts)), strict=True)
        return {name: part.sample(k, x0[name], t) for (name, part), k in keys}

    def base_sample(key):
        keys = zip(parts.items(), jax.random.split(key, len(parts)), strict=True)
        return {name: part.base.sample(k) for (name, part), k in keys}

    def base_log_prob(x):
        each = [part.base.log_prob(x[name]) for name, part in parts.items()]
        return jnp.sum(jnp.stack(each))

    return Process(
        generator=generators.product({name: part.generator for name, part in parts.items()}),
        sample=sample,
        log_prob=total("log_prob"),
        base=Distribution(base_sample, base_log_prob),
        target=lambda x0, x, t: {n: p.target(x0[n], x[n], t) for n, p in parts.items()},
        reverse=reverse,
        space={name: part.space for name, part in parts.items()},
        phi=total("phi"),
        simple=total("simple"),
        read=componentwise("read"),
        velocity=velocity if all(part.velocity for part in parts.values()) else None,
    )
