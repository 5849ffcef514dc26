"""Samples of which entries are given: cond["values"], a tree like x, where cond["observed"].

Two ways for a model that was not trained with given entries. By replacement what is given is put
at the time of the rest after every step, so that the network sees it. The rest is not weighed by
how well it agrees, so it follows too little, the less the less noise a sampler adds; masked sites
are the exception, of which a network knows every subset. By guidance (of R^d) the score has the
gradient of the likelihood added, which for independent Gaussian entries is the posterior
(`samplers.guidance`), at the cost of a vector-Jacobian product a step. What is given then comes
with the condition, so that a solver that takes examples one by one has each one's own.

Source: Song et al. (2021), appendix I.2; Song et al. (2023, pseudo-inverse guidance).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gmjax.losses.gaussian import noised
from gmjax.methods.flow_worlds import World
from gmjax.paths import heads
from gmjax.paths.gaussian import GaussianPath
from gmjax.processes.observed import batch_size, where
from gmjax.samplers import guidance, shifts
from gmjax.spaces import product
from gmjax.types import Array, Key, Predict, PyTree, UserError

Project = Callable[[Key, PyTree, Array], PyTree]
WAYS = ("", "replacement", "guidance")  # of which the first is guidance where there is one


def check(config: Any) -> None:
    """Raises `UserError` where `config.sample.infill` is none of `WAYS`."""
    way = config.sample.infill
    if way not in WAYS:
        raise UserError(f"config.sample.infill={way!r}; valid: '', replacement, guidance")


def plain(cond: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the network is told: all but what is given and where samples start."""
    return {k: v for k, v in (cond or {}).items() if k not in ("observed", "values", "source")}


def _guides(config: Any, able: bool, only: str) -> bool:
    """Whether by guidance; raises `UserError` where that is asked for and cannot be."""
    way = config.sample.infill
    if way == "guidance" and not able:
        raise UserError(f"config.sample.infill='guidance' is {only}; valid: replacement")
    return able and way != "replacement"


def gaussian(
    config: Any, path: GaussianPath, encode: Callable, predict: Predict, cond: Any
) -> tuple[Predict, Project | None, dict[str, Any]]:
    """The network, the driver's `project` and the condition, by `config.sample.infill`.

    Raises:
        UserError: guidance of a learned variance, replacement without steps.
    """
    if not cond or "values" not in cond:
        return predict, None, plain(cond)
    loss = config.loss
    guided = _guides(config, loss.variance != "learned", "not for a learned variance")
    observed, values = cond["observed"], encode(cond["values"])

    def project(key, x, t):
        end = heads.spread(t == 0, x)
        now = observed & end if guided else observed
        noisy = noised(path, values, jax.random.normal(key, x.shape), t)
        return jnp.where(now, jnp.where(end, values, noisy), x)

    if not guided:
        if config.sample.name == "adaptive":
            raise UserError(
                "config.sample.infill='replacement' is made after a step, and"
                " config.sample.name='adaptive' has none; valid: guidance"
            )
        return predict, project, plain(cond)
    told = {**plain(cond), "observed": observed, "values": values}
    return _guided(predict, path, loss.head, loss.data_std), project, told


def _guided(predict, path, head, std) -> Predict:
    """The network, guided by the condition's "observed" and "values"."""
    mean = lambda out, x, t: heads.denoised(head, path, out, x, t, std)[0]
    shift, spread = shifts.gaussian(path, head, std), shifts.remaining_std(path, std)

    def guided(x, t, cond):
        given = cond["observed"], cond["values"]
        return guidance.inpainting(predict, mean, shift, *given, spread)(x, t, plain(cond))

    return guided


def flow(
    config: Any, world: World, predict: Predict, cond: Mapping[str, Any], x1: PyTree
) -> tuple[Predict, Project | None, dict[str, Any]]:
    """The network, the driver's `project` and the condition of a flow, by `config.sample.infill`.

    By replacement a value comes along the path from its own noise; masked sites have it at once.

    Args:
        x1: [B, *S], where the samples start.

    Raises:
        UserError: entries of the state depend on each other, or guidance has no score to add to.
    """
    told = plain(cond)
    if "values" not in cond:
        return predict, None, told
    path, f, m, loss = world.path, world.interpolant, world.discrete, config.loss
    masked = m is not None and m.num_states > m.num_values
    if not product.entrywise(path.space):
        raise UserError(
            "config.data.observed: entries of this state depend on each other, and none can be"
            " given without the rest"
        )
    noise = f is not None and f.gamma is None and "source" not in cond
    only = "for paths of R^d from noise, without gamma, and config.loss.objective='flow'"
    guided = _guides(config, noise and loss.objective == "flow", only)
    observed, values = cond["observed"], world.encode(cond["values"])

    def project(key, x, t):
        end = jax.tree.map(lambda a: t <= world.last, x)
        if guided:
            at = jax.tree.map(lambda o, e: o & heads.spread(e, o), observed, end)
            return where(at, values, x)
        if masked:
            return where(observed, values, x)
        known, _ = jax.vmap(path.draw)(jax.random.split(key, batch_size(x)), values, x1, t)
        return where(observed, where(end, values, known), x)

    if guided:
        assert f is not None
        pair = GaussianPath(f.alpha, f.beta, lambda snr: snr)
        predict = _guided(predict, pair, loss.head, loss.data_std)
        told |= {"observed": observed, "values": values}
    return predict, project, told
