"""The probability flow of a Gaussian path by an adaptive solver.

dx/dt = alpha' E[x0 | x] + sigma' E[eps | x] from t_max down to t_min, by diffrax's embedded
Runge-Kutta pairs with a PID controller of the step. Every example has its own controller, so that
its error is held whatever else is in the batch, and neither batch size nor sharding changes a
sample; the batch takes as many evaluations as its hardest example.
"""

import jax
import jax.numpy as jnp

from gmjax.paths.gaussian import GaussianPath, slopes
from gmjax.samplers.gaussian_steps import Read, data, ends, noise_of, require
from gmjax.types import Array, Cond, Predict, Samples, UserError, lookup

# Name in diffrax, and evaluations of a step; the last stage of both is the next step's first.
METHODS = {"tsit5": ("Tsit5", 6), "dopri5": ("Dopri5", 6)}


def adaptive(
    path: GaussianPath,
    read: Read,
    predict: Predict,
    x: Array,
    t_min: float,
    t_max: float = 1.0,
    cond: Cond = None,
    *,
    method: str = "tsit5",
    rtol: float = 1e-4,
    atol: float = 1e-4,
    max_steps: int = 4096,
) -> Samples:
    """Follow the flow from t_max to t_min.

    Args:
        path: the path; sigma must not vanish at t_min (`gaussian_steps.denoise` ends a run).
        read: how the network is read.
        predict: the network.
        x: [B, *S], a draw of the law at t_max.
        t_min, t_max: 0 <= t_min < t_max <= 1.
        cond: passed to `predict`; leaves [B, ...].
        method: in `METHODS`.
        rtol, atol: of the local error, by component.
        max_steps: accepted and rejected, of one example.

    Returns:
        `Samples`; nfe are the batched evaluations, those of the example that needs most.

    Raises:
        UserError: diffrax is not installed, tolerances that are not positive, times out of order,
            or no noise at t_min.
    """
    name, stages = lookup(METHODS, method, "config.sample.method")
    require(rtol > 0, "rtol", rtol, "be positive")
    require(atol > 0, "atol", atol, "be positive")
    require(max_steps >= 1, "max_steps", max_steps, "be at least 1")
    require(0 <= t_min < t_max <= 1, "t_min", t_min, f"lie in [0, t_max = {t_max})")
    with jax.ensure_compile_time_eval():
        noise = ends(path, jnp.asarray(t_min, float))[1] > 0
    if not isinstance(noise, jax.core.Tracer):  # a path that is being learned cannot be looked at
        require(bool(noise), "t_min", t_min, "leave some noise on this path")
    try:
        import diffrax
    except ImportError:
        raise UserError(
            "config.sample.name='adaptive' needs diffrax: pip install gmjax[ode]"
        ) from None
    first = data(read)

    def one(x, cond):
        own = None if cond is None else jax.tree.map(lambda a: a[None], cond)

        def rate(t, x, args):
            t = t.astype(x.dtype)
            x0 = first(predict, x[None], t[None], own)[0]
            _, _, da, ds = slopes(path, t)
            return da * x0 + ds * noise_of(*ends(path, t), x, x0)

        run = diffrax.diffeqsolve(
            diffrax.ODETerm(rate),
            getattr(diffrax, name)(),
            t0=jnp.asarray(t_max, x.dtype),
            t1=jnp.asarray(t_min, x.dtype),
            dt0=None,
            y0=x,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            max_steps=max_steps,
        )
        return run.ys[0], run.stats["num_steps"]

    x, steps = jax.vmap(one)(x, cond)
    nfe = stages * jnp.max(steps) + 1
    return Samples(x, jnp.asarray(nfe, jnp.int32), jnp.asarray([t_max, t_min], x.dtype))
