"""Geodesic paths on manifolds: Riemannian flow matching without simulation.

    x_t = exp_{x0}(t log_{x0}(x1)),    target = d x_t / dt, by forward differentiation in t,

of constant speed dist(x0, x1). The network gives the components of the velocity in the frame
e_1 .. e_K of the space at x_t, numbers of the order of the speed wherever x_t is (far out on a
hyperboloid the vectors of the embedding are not), and the loss is the squared length of the
difference in the metric of the space. Where x1 is conjugate to x0 (antipodes, half turns) the
geodesic is one of many, an event of probability zero under every source here.

The source is the uniform law where there is one; R^d has N(0, I), and hyperbolic space a normal
law wrapped about the origin o, x = exp_o(s z), of density

    N(z; 0, I) s^-n (r / sinh r)^(n - 1),    r = |s z|,

since exp_o stretches the n - 1 directions across a geodesic by sinh(r) / r.

Source: Chen and Lipman (2024); Nagano et al. (2019) for the wrapped normal.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmjax.paths import interpolants
from gmjax.paths.conditional import Path
from gmjax.spaces import hyperbolic as hyperboloid
from gmjax.spaces.euclidean import euclidean
from gmjax.spaces.hyperbolic import hyperbolic
from gmjax.spaces.rotations import rotations
from gmjax.spaces.simplex import simplex
from gmjax.spaces.sphere import sphere
from gmjax.spaces.torus import torus
from gmjax.types import Distribution, Space, UserError


def path(space: Space, base: Distribution) -> Path:
    """The geodesic path on a space.

    Args:
        space: a Riemannian manifold.
        base: its source.
    """

    def draw(key, x0, x1, t):
        v = space.log(x0, x1)
        x, speed = jax.jvp(lambda t: space.exp(x0, t * v), (t,), (jnp.ones_like(t),))
        return x, space.tangent(x, speed)

    def velocity(out, x, t):
        return jnp.tensordot(out, space.frame(x), 1)

    def gap(out, x, t, target):
        miss = velocity(out, x, t) - target
        return space.inner(x, miss, miss) / space.dim

    x = jax.ShapeDtypeStruct(space.shape, jnp.float32)
    return Path(
        space=space,
        output=jax.eval_shape(space.frame, x).shape[:1],
        base=base,
        draw=draw,
        gap=gap,
        start=lambda key, x1, t: x1,
        **interpolants.moves(space, velocity),
    )


def wrapped_normal(dim: int, scale: float = 1.0) -> Distribution:
    """exp_o(scale z), z ~ N(0, I), on H^dim, with its density in the volume.

    Args:
        dim: n.
        scale: s.

    Raises:
        UserError: a scale that is not positive.
    """
    if not scale > 0:
        raise UserError(f"config.path.scale={scale} must exceed 0")

    def sample(key):
        origin = hyperboloid.origin(dim)
        z = scale * jax.random.normal(key, (dim,))
        return hyperboloid.exp(origin, hyperboloid.lift(origin, z))

    def log_prob(x):
        origin = hyperboloid.origin(dim).astype(x.dtype)
        c = hyperboloid.coordinates(origin, hyperboloid.log(origin, x))
        square = jnp.sum(c**2)
        stretch = (dim - 1) * jnp.log(hyperboloid.sinhc(square))
        return -0.5 * square / scale**2 - dim * math.log(math.sqrt(2 * math.pi) * scale) - stretch

    return Distribution(sample, log_prob)


def _uniform(space: Space) -> tuple[Space, Distribution]:
    assert space.uniform is not None
    return space, space.uniform


# kind of data -> (shape, scale) -> space and source
SPACES: dict[str, Callable[[tuple[int, ...], float], tuple[Space, Distribution]]] = {
    "euclidean": lambda shape, scale: (euclidean(shape), interpolants.normal(shape)),
    "sphere": lambda shape, scale: _uniform(sphere(shape[0] - 1)),
    "torus": lambda shape, scale: _uniform(torus(shape)),
    "rotations": lambda shape, scale: _uniform(rotations()),
    "simplex": lambda shape, scale: _uniform(simplex(shape[0])),
    "hyperbolic": lambda shape, scale: (
        hyperbolic(shape[0] - 1),
        wrapped_normal(shape[0] - 1, scale),
    ),
}
