"""Vector calculus on a `Space`, by forward-mode derivatives along its frame.

With a frame e_1 .. e_K whose outer products sum to the inverse metric,

    grad f  = sum_k (e_k f) e_k
    div V   = sum_k <e_k, D_{e_k} V>            (the tangential part of D is Levi-Civita's)
    Delta f = sum_k d^2/ds^2 f(exp_x(s e_k)) at s = 0

which hold for an orthonormal basis and for any larger frame, such as the projections of the
coordinate vectors. Only values on the space count, and no Hessian is ever formed: Delta costs
K second derivatives along curves.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax.types import Array, Key, Space


def derivative(f: Callable[[Array], Array], x: Array, v: Array) -> Array:
    """d/ds f(x + s v) at s = 0, for v tangent at x: [] or the shape of f(x)."""
    return jax.jvp(f, (x,), (v,))[1]


def ignores(f: Callable[[Array], Array], x: Array) -> bool:
    """Whether f, as traced, never reads x, so that all its derivatives are zero."""
    traced = jax.make_jaxpr(f)(x).jaxpr
    read = [*traced.outvars, *(v for equation in traced.eqns for v in equation.invars)]
    return all(v is not own for v in read for own in traced.invars)


def curvature(space: Space, f: Callable[[Array], Array], x: Array, v: Array) -> Array:
    """d^2/ds^2 f(exp_x(s v)) at s = 0, the covariant Hessian of f at (v, v): []."""
    along = lambda s: f(space.exp(x, s * v))
    rate = lambda s: jax.jvp(along, (s,), (jnp.ones_like(s),))[1]
    return jax.jvp(rate, (jnp.zeros((), x.dtype),), (jnp.ones((), x.dtype),))[1]


def gradient(space: Space, f: Callable[[Array], Array], x: Array) -> Array:
    """grad f, a tangent vector at x: [*S]."""
    e = space.frame(x)
    slopes = jax.vmap(lambda v: derivative(f, x, v))(e)
    return jnp.tensordot(slopes, e, 1)


def divergence(space: Space, field: Callable[[Array], Array], x: Array) -> Array:
    """div of a vector field y -> V(y) [*S], exactly, by K derivatives: []."""
    return jnp.sum(jax.vmap(lambda v: sketched_divergence(space, field, x, v))(space.frame(x)))


def sketched_divergence(
    space: Space, field: Callable[[Array], Array], x: Array, probe: Array
) -> Array:
    """Hutchinson's <z, D_z V>, whose mean over z ~ space.noise is div V: []."""
    return space.inner(x, probe, space.tangent(x, derivative(field, x, probe)))


def laplacian(space: Space, f: Callable[[Array], Array], x: Array) -> Array:
    """Delta f, the Laplace-Beltrami operator: []."""
    return jnp.sum(jax.vmap(lambda v: curvature(space, f, x, v))(space.frame(x)))


def norm(space: Space, x: Array, v: Array) -> Array:
    """The length of a tangent vector, with zero gradient at zero: []."""
    square = space.inner(x, v, v)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def distance(space: Space, x: Array, y: Array) -> Array:
    """The geodesic distance: []."""
    return norm(space, x, space.log(x, y))


def walk(space: Space, key: Key, x: Array, scale: Array, drift: Array | float = 0.0) -> Array:
    """One geodesic step from x along drift + scale z, z standard normal: [*S]."""
    return space.project(space.exp(x, drift + scale * space.noise(key, x)))
