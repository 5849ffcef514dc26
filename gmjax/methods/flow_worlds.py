"""The path that a configuration of flow matching asks for, by the kind of the data.

R^d, and values on levels as numbers in [-1, 1], have interpolants; manifolds geodesics; finite
sets mixtures; tables and poses products of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from gmjax.methods import levels
from gmjax.paths import conditional, geodesic, heads, interpolants, mixture
from gmjax.paths.conditional import Path
from gmjax.types import Array, DataSpec, UserError, lookup

Config = Any
LEVELS = ("image", "vector")  # kinds of discrete data whose values may become numbers


class World(NamedTuple):
    """Where a flow lives."""

    path: Path
    discrete: mixture.Mixture | None = None  # of purely discrete paths
    interpolant: interpolants.Interpolant | None = None  # of an interpolant alone
    encode: Callable[[Array], Array] = lambda x: x
    decode: Callable[[Array], Array] = lambda x: x
    width: float = 0.0  # of a level, where values became numbers
    last: float = 0.0  # the time where samplers end: t_min where there is a gamma


def build(config: Config, spec: DataSpec) -> World:
    """The path that `config.path` names, for data of `spec`.

    Raises:
        UserError: a path that the kind of the data does not have.
    """
    kind, name = spec.kind, config.path.name
    t_min, t_max = config.loss.t_min, config.loss.t_max
    if not 0 <= t_min < t_max <= 1:
        raise UserError(
            f"config.loss.t_min={t_min}, config.loss.t_max={t_max}; valid: 0 <= t_min < t_max <= 1"
        )
    if t_min > 0.1 or t_max < 0.9:
        raise UserError(
            f"config.loss.t_min={t_min}, config.loss.t_max={t_max}: samples start from the law at"
            " one end and stop at the other; valid: at most 0.1 and at least 0.9"
        )
    if kind == "table":
        return _table(config, spec)
    if kind == "poses":
        place = _part(config, spec.shape["position"])
        parts = {"position": place, "rotation": _geodesic(config, "rotations", (3, 3))}
        return World(conditional.product(parts))
    if name in mixture.SOURCES:
        if not spec.num_values:
            raise UserError(f"config.path.name={name!r} is for discrete data, not kind {kind!r}")
        m = jumps(config, spec.num_values, name)
        return World(mixture.path(m, spec.shape, config.loss.weighting), m)
    if spec.num_values:
        if kind not in LEVELS or not spec.ordinal:
            raise UserError(
                f"config.path.name={name!r} needs values that are ordered levels, which kind"
                f" {kind!r} of config.data.name={config.data.name!r} has not; valid: masked,"
                " uniform"
            )
        path, f = _interpolant(config, spec.shape)
        encode, decode = levels.codec(spec)
        width = 2 / (spec.num_values - 1)
        return World(path, None, f, encode, decode, width, _last(config, f))
    if name == "geodesic":
        return World(_geodesic(config, kind, spec.shape))
    if kind == "euclidean":
        path, f = _interpolant(config, spec.shape)
        return World(path, None, f, last=_last(config, f))
    if kind in geodesic.SPACES:
        raise UserError(f"config.path.name={name!r} is not for kind {kind!r}; valid: geodesic")
    raise UserError(
        f"config.data.name={config.data.name!r}: there is no flow for kind {kind!r}; valid:"
        f" {', '.join([*geodesic.SPACES, *LEVELS, 'sequence', 'table', 'poses'])}"
    )


def _interpolant(config: Config, shape: tuple[int, ...]) -> tuple[Path, interpolants.Interpolant]:
    c = config.loss
    f = interpolants.build(config.path)
    alone = config.coupling.name == "independent"
    path = interpolants.path(f, shape, c.head, alone, c.data_std)
    for key, t in (("t_min", max(c.t_min, 1e-6)), ("t_max", min(c.t_max, 1 - 1e-6))):
        if abs(float(interpolants.coefficients(f, jnp.asarray(t))[5])) > 200:
            raise UserError(
                f"config.loss.{key}={c[key]}: gamma of config.path.name={config.path.name!r} has no"
                " slope there; valid: t_min=0.001, t_max=0.999"
            )
    if c.head in heads.HEADS:
        _determined(config, f)
    return path, f


def _part(config: Config, shape: tuple[int, ...]) -> Path:
    """Of a product, whose other parts go on to t = 0 and start from their own base."""
    path, f = _interpolant(config, shape)
    if f.gamma is not None:
        raise UserError(
            f"config.path.name={config.path.name!r}: a path with gamma is not for data of many"
            " parts; valid: linear, trigonometric"
        )
    return path


def _determined(config: Config, f: interpolants.Interpolant) -> None:
    """Raises unless the head determines the velocity at both ends, and has a target there."""
    c = config.loss
    pair = heads.GaussianPath(f.alpha, f.beta, lambda snr: snr)
    for key in ("t_min", "t_max"):
        t = jnp.asarray(c[key])
        p, q = heads.coefficients(c.head, pair, t, c.data_std)
        over = f.beta(t) * p - f.alpha(t) * q
        # At t = 0 samplers take no velocity, and training needs the target alone.
        alone = key == "t_min" and bool(jnp.isfinite(p) & jnp.isfinite(q))
        if not alone and not (jnp.isfinite(over) and abs(float(over)) > 1e-6):
            raise UserError(
                f"config.loss.{key}={c[key]}: the head {c.head!r} says nothing there; valid:"
                " t_min=0.001, t_max=0.999, or config.loss.head=velocity"
            )


def _geodesic(config: Config, kind: str, shape: tuple[int, ...]) -> Path:
    make = lookup(geodesic.SPACES, kind, "config.path.name='geodesic': config.data kind")
    scale = config.path.scale
    return geodesic.path(*make(shape, 1.0 if scale is None else scale))


def jumps(config: Config, num_values: int, source: str, **own: Any) -> mixture.Mixture:
    valid = {"velocity": False, "posterior": False, "leave_one_out": True}
    known = lookup(valid, config.loss.head, "config.loss.head")
    return mixture.mixture(num_values, mixture.build(config.path), source, known, **own)


def _table(config: Config, spec: DataSpec) -> World:
    numbers = _part(config, spec.shape["numeric"])
    valid = {name: name for name in mixture.SOURCES}
    source = lookup(valid, config.path.classes or "masked", "config.path.classes")
    m = mixture.mixture(spec.num_values, mixture.build(config.path), source)
    classes = mixture.path(m, spec.shape["classes"], config.loss.weighting)
    path = conditional.product({"numeric": numbers, "classes": classes})
    return World(path)


def _last(config: Config, f: interpolants.Interpolant) -> float:
    return 0.0 if f.gamma is None else config.loss.t_min
