"""Gaussian diffusion: a path, a head, a network, a solver.

`build(config, spec)` reads the sections path, loss, network, optimizer, evaluate and sample of a
configuration. Values on levels become numbers in [-1, 1]; the network sees x_t scaled to variance
one and predicts a head of `paths.heads`.

With `loss.steps` = T > 0 the process has T steps, i / T: training looks at those times, the
bound is that of T reverse steps, and their variance may be learned. With T = 0 time is
continuous. The path `learned` has parameters of its own, trained with the network's.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.likelihoods import flow
from gmjax.likelihoods import gaussian as bounds
from gmjax.losses import gaussian, gaussian_steps, scores, times
from gmjax.methods import completion, levels
from gmjax.methods.combinators import State, from_loss, optimizer
from gmjax.methods.settings import accumulation, condition, guided, inside, labelled, positive
from gmjax.networks import continuous
from gmjax.paths import gaussian as paths
from gmjax.paths import heads, learned
from gmjax.samplers import driver, grids, ode
from gmjax.samplers import gaussian as solvers
from gmjax.types import Array, DataSpec, Key, Method, Predict, PyTree, Samples, UserError, lookup

Config = Any
PROFILE = 24  # noise levels at which the loss is drawn
FINEST = 1e-3  # time at which an adaptive run ends where T steps would end in data


def build(config: Config, spec: DataSpec) -> Method:
    """The method of a configuration for data of `spec`.

    Args:
        config: a ConfigDict as in `configs/gaussian_diffusion.py`.
        spec: what the data look like.

    Raises:
        UserError: a name that is in no table, or a value that is not valid.
    """
    c, labels = config.loss, labelled(config, spec)
    _check(config, spec)
    lookup(heads.HEADS, c.head, "config.loss.head")
    lookup(gaussian_steps.VARIANCES, c.variance, "config.loss.variance")
    if c.steps:
        _decoder(spec)
    if c.variance == "learned" and c.steps < 2:
        raise UserError("config.loss.variance='learned' needs config.loss.steps of at least 2")
    if c.variance == "learned" and c.weighting != "simple":
        raise UserError(
            f"config.loss.weighting={c.weighting!r} is not for config.loss.variance='learned';"
            " valid: simple"
        )
    encode, decode = levels.codec(spec)
    path_of, start_path = _path(config, spec)
    network = continuous.build(config.network, spec, 2 if c.variance == "learned" else 1)
    predictor = _predictor(config, network, path_of)
    train_loss = _loss(config, spec, predictor, path_of)
    judge, draw = _evaluator(config, spec, path_of), _sampler(config, spec, path_of)

    def init(key: Key) -> PyTree:
        key_network, key_path = jax.random.split(key)
        x = jnp.zeros((1, *spec.shape))
        return {"network": network.init(key_network, x, jnp.ones(1)), "path": start_path(key_path)}

    def loss(params, key, batch):
        key_loss, key_drop, key_label = jax.random.split(key, 3)
        cond = condition(batch, labels)
        if labels:
            dropped = jax.random.uniform(key_label, cond["label"].shape) < c.label_dropout
            cond["label"] = jnp.where(dropped, spec.num_classes, cond["label"])
        return train_loss(params, key_loss, encode(batch["x"]), cond, {"dropout": key_drop})

    begin, update = from_loss(
        init,
        loss,
        optimizer(config.optimizer, config.train.steps),
        config.optimizer.ema,
        accumulation(config),
    )

    def evaluate(state: State, key: Key, batch: Mapping[str, Any]) -> dict[str, Array]:
        x = encode(batch["x"])
        return judge(state.ema, predictor(state.ema), key, x, condition(batch, labels))

    def sample(state: State, key: Key, n: int, cond=None, **kwargs) -> Samples:
        out = draw(state.ema, predictor(state.ema), key, n, cond, **kwargs)
        if out.trajectory is None:
            return out._replace(x=decode(out.x))
        path, film = path_of(state.ema), out.trajectory
        if spec.num_values:  # noise of more than one is shown as of one
            size = jnp.sqrt(path.alpha(out.times) ** 2 + path.sigma(out.times) ** 2)
            film = film / heads.spread(jnp.maximum(size, 1.0), film)
        return out._replace(x=decode(out.x), trajectory=decode(film))

    def noise(state: State, t: Array, x: Array, cond) -> tuple[Array, Array]:
        """The means of data and noise that the network sees in x."""
        out = predictor(state.ema)(x, t, cond)
        out = out[0] if c.variance == "learned" else out
        return heads.denoised(c.head, path_of(state.ema), out, x, t, c.data_std)

    def field(state: State, x: Array, t: Array) -> Array:
        _, _, dalpha, dsigma = paths.slopes(path_of(state.ema), t)
        x0, eps = noise(state, t, x, None)
        return heads.spread(dalpha, x) * x0 + heads.spread(dsigma, x) * eps

    def profile(state: State, key: Key, batch: Mapping[str, Any]) -> dict[str, Array]:
        path, x0 = path_of(state.ema), encode(batch["x"])
        ends = paths.log_snr(path, jnp.asarray([c.t_min, 1.0]))
        high, low = jnp.clip(ends, -paths.EXTREME, paths.EXTREME)
        t = path.inverse(jnp.linspace(high, low, PROFILE + 2)[1:-1])

        def at(i):
            eps = jax.random.normal(jax.random.fold_in(key, i), x0.shape)
            times = jnp.full(len(x0), t[i])
            x = gaussian.noised(path, x0, eps, times)
            return jnp.mean((noise(state, times, x, condition(batch, labels))[1] - eps) ** 2)

        return {
            "log_snr": paths.log_snr(path, t),
            "loss": jax.lax.map(at, jnp.arange(PROFILE)),
        }

    return Method(begin, update, evaluate, sample, lambda x: _wrong(x, spec), field, profile)


def _check(config: Config, spec: DataSpec) -> None:
    """Raises `UserError` where a number is out of its range, or data are not of R^d."""
    c = config.loss
    if spec.num_values and not spec.ordinal:
        raise UserError(
            f"config.data.name={config.data.name!r} has values without an order, which noise on"
            " numbers does not fit (configs/discrete_diffusion.py does); valid: ordered levels, of"
            " own data config.data.ordinal=True"
        )
    if not spec.num_values and spec.kind != "euclidean":
        raise UserError(
            f"config.data.name={config.data.name!r} is of kind {spec.kind!r}; valid here: levels,"
            " or 'euclidean' (others: configs/markov_diffusion.py, configs/flow_matching.py)"
        )
    for key, wrong, valid in (
        ("steps", c.steps < 0, "be 0 (continuous time) or more"),
        ("data_std", not 0 < c.data_std < np.inf, "be positive"),
        ("std", not 0 < c.std < np.inf, "be positive"),
        ("variance_weight", not 0 <= c.variance_weight < np.inf, "be 0 or more"),
    ):
        if wrong:
            raise UserError(f"config.loss.{key}={c[key]} must {valid}")


def _path(config: Config, spec: DataSpec) -> tuple[Callable, Callable]:
    """(params -> path, key -> parameters of the path, {} where it has none)."""
    c = config.path
    if c.name != "learned":
        path = paths.build(c)
        return (lambda params: path), (lambda key: {})
    if config.loss.steps or not spec.num_values:
        raise UserError(
            "config.path.name='learned' is trained by the continuous bound of data on levels;"
            f" config.loss.steps={config.loss.steps} must be 0 and the data discrete"
        )
    own = {k: c[k] for k in ("high", "low") if c[k] is not None}
    learned.check(**own)
    if config.loss.weighting != "likelihood":
        raise UserError(
            f"config.loss.weighting={config.loss.weighting!r}: config.path.name='learned' is"
            " trained by the bound; valid: likelihood"
        )
    if config.loss.data_std != 1.0:
        raise UserError(
            f"config.loss.data_std={config.loss.data_std}: config.path.name='learned' is for 1"
        )
    return (lambda params: learned.learned(params["path"])), (lambda key: learned.init(key, **own))


def _predictor(config: Config, network: Any, path_of: Callable) -> Callable[..., Predict]:
    """(params, **kwargs) -> `Predict` of the head, and of a learned variance its fraction."""
    std, two = config.loss.data_std, config.loss.variance == "learned"

    def predictor(params: PyTree, **kwargs: Any) -> Predict:
        path = path_of(params)

        def predict(x, t, cond):
            scale = jax.lax.rsqrt((path.alpha(t) * std) ** 2 + path.sigma(t) ** 2)
            out = network.apply(params["network"], heads.spread(scale, x) * x, t, cond, **kwargs)
            return (out[..., 0], jax.nn.sigmoid(out[..., 1])) if two else out

        return predict

    return predictor


def _loss(config: Config, spec: DataSpec, predictor: Callable, path_of: Callable) -> Callable:
    """(params, key, x0, cond, rngs) -> per-example values and parts."""
    c = config.loss
    spread = lookup(times.SPREADS, c.spread, "config.loss.spread")
    lookup(gaussian.WEIGHTS, c.weighting, "config.loss.weighting")
    t_min = inside(c.t_min, "config.loss.t_min")
    clock = _times(config, path_of, t_min)

    def predict(params, rngs):
        return predictor(params, train=True, rngs=rngs)

    def plain(params, key, x0, cond, rngs):
        path = path_of(params)
        loss = gaussian.denoising(path, c.head, clock(path), c.weighting, c.data_std)
        return loss(predict(params, rngs), key, x0, cond)

    def with_variance(params, key, x0, cond, rngs):
        decode = _decoder(spec)
        share, std = c.variance_weight, c.data_std
        loss = gaussian_steps.learned_variance(path_of(params), c.head, c.steps, decode, share, std)
        return loss(predict(params, rngs), key, x0, cond)

    def with_path(params, key, x0, cond, rngs):
        held = jax.lax.stop_gradient({**params, "path": {}}) | {"path": params["path"]}
        loss = gaussian.learned_path(
            learned.learned, c.head, t_min, spec.num_values, spread, c.data_std
        )
        both = predict(params, rngs), predict(held, rngs)
        return loss(*both, params["path"], key, x0, cond)

    if config.path.name == "learned":
        return with_path
    return with_variance if c.variance == "learned" else plain


def _times(config: Config, path_of: Callable, t_min: float) -> Callable:
    """path -> the time sampler of `config.loss.times`."""
    c = config.loss
    spread = lookup(times.SPREADS, c.spread, "config.loss.spread")
    table = {
        "uniform": lambda path: times.uniform_in_t(t_min, spread),
        "log_snr": lambda path: times.uniform_in_log_snr(path, t_min, spread),
        "log_normal": lambda path: times.log_normal(path, t_min, c.mean, c.std, spread),
        "logit_normal": lambda path: times.logit_normal(t_min, c.mean, c.std, spread),
    }
    chosen = lookup(table, c.times, "config.loss.times")
    return (lambda path: times.on_grid(c.steps, spread)) if c.steps else chosen


def _decoder(spec: DataSpec) -> Callable:
    if not spec.num_values:
        raise UserError(
            "config.loss.steps: the bound of T steps decodes values on levels; of continuous data"
            " give config.loss.steps=0"
        )
    return gaussian_steps.discretised(spec.num_values)


def _evaluator(config: Config, spec: DataSpec, path_of: Callable) -> Callable:
    """(params, predict, key, x0, cond) -> {"nats", ...} [B], by `config.evaluate.likelihood`."""
    c, e = config.loss, config.evaluate
    number, t_min = positive(e, "evaluate.times"), inside(c.t_min, "config.loss.t_min")
    make = lookup({"elbo": _elbo, "flow": _flow}, e.likelihood, "config.evaluate.likelihood")
    return make(config, spec, path_of, number, t_min)


def _elbo(config: Config, spec: DataSpec, path_of: Callable, number: int, t_min: float) -> Callable:
    c = config.loss

    clock = lambda path: times.uniform_in_log_snr(path, t_min)

    def run(params, predict, key, x0, cond):
        path = path_of(params)
        base = paths.base_std(path, c.data_std)
        if c.steps:
            bound = bounds.discrete(
                path, c.head, c.steps, _decoder(spec), c.variance, number, c.data_std, base
            )
        elif spec.num_values:
            grid = levels.grid(spec)
            bound = bounds.continuous(
                path, c.head, clock(path), t_min, grid, number, c.data_std, base
            )
        else:
            bound = scores.elbo(_process(config, spec, path), clock(path), t_min, number)
        return bound(predict, key, x0, cond)

    return run


def _flow(config: Config, spec: DataSpec, path_of: Callable, number: int, t_min: float) -> Callable:
    """Of values on levels: -log of the density at uniform noise in the bin, less its width."""
    c, e = config.loss, config.evaluate
    if c.variance == "learned":
        raise UserError("config.evaluate.likelihood='flow' is not for a learned variance")
    steps = positive(e, "evaluate.steps")
    size = float(np.prod(spec.shape))
    width = 2 / (spec.num_values - 1) if spec.num_values else 1.0

    def run(params, predict, key, x0, cond):
        path = path_of(params)
        key_noise, key_probe = jax.random.split(key)
        if spec.num_values:
            x0 = x0 + width * (jax.random.uniform(key_noise, x0.shape) - 0.5)
        grid = grids.path_grid(e.grid, steps, path, t_min, key="config.evaluate.grid")
        log_prob = flow.on_path(path, c.head, spec.shape, grid, e.probes, e.probe, c.data_std)
        nats = -log_prob(predict, key_probe, x0, cond)
        if not spec.num_values:
            return {"nats": nats}
        return {"nats": nats / size - np.log(width)}

    return run


def _process(config: Config, spec: DataSpec, path: paths.GaussianPath):
    """The path's process, with the score read from the head."""
    head, std = config.loss.head, config.loss.data_std

    def read(out, x, t):
        _, eps = heads.denoised(head, path, out, x, t, std)
        return -eps / path.sigma(t)

    return paths.process(path, spec.shape, std)._replace(read=read)


def _sampler(config: Config, spec: DataSpec, path_of: Callable) -> Callable[..., Samples]:
    """(params, predict, key, n, cond, *, trajectory=0, place=None) -> `Samples`, not decoded."""
    c, loss, guide = config.sample, config.loss, guided(config, spec)
    encode = levels.codec(spec)[0]
    completion.check(config)
    for name in ("steps", "num_samples", "batch_size"):
        positive(c, f"sample.{name}")
    # T steps end in data; in continuous time the last evaluation at t_min gives its x0.
    last = 0.0 if loss.steps else loss.t_min
    spacing = {"power": c.power, "total": loss.steps or 1000, "spacing": c.spacing}
    own = {k: v for k, v in spacing.items() if v is not None and k in _GRID_KEYS.get(c.grid, ())}
    lookup({**solvers.SOLVERS, "adaptive": None}, c.name, "config.sample.name")
    if (c.corrector_steps or 0) < 0:
        raise UserError(f"config.sample.corrector_steps={c.corrector_steps} must be 0 or more")
    solver = "euler" if c.name == "adaptive" else c.name
    if c.name == "adaptive" and c.corrector_steps:
        raise UserError(
            f"config.sample.corrector_steps={c.corrector_steps}: config.sample.name='adaptive' has"
            " no steps to correct; valid: 0"
        )

    def read_by(path):
        plain = solvers.reader(path, loss.head, loss.data_std, c.clip or None)
        if loss.variance != "learned":
            return plain

        def read(predict, x, t, cond):
            out, fraction = predict(x, t, cond)
            x0 = plain(lambda x, t, cond: out, x, t, cond)
            return x0, fraction

        return read

    def of(path):
        read = read_by(path)
        stepper = solvers.build({**c, "name": solver}, path, read)
        return read, stepper, grids.path_grid(c.grid, c.steps, path, last, 1.0, **own)

    if config.path.name != "learned":
        of(path_of(None))  # so that a mistake is found before the training, not after

    def draw(params, predict, key, n, cond=None, *, trajectory=0, place=None) -> Samples:
        path = path_of(params)
        key_base, key_run = jax.random.split(key)
        x = paths.base_std(path, loss.data_std) * jax.random.normal(key_base, (n, *spec.shape))
        x = place(x) if place else x
        predict, passes = guide(predict)
        # Outermost: guidance by labels doubles the batch, and what is given has one size.
        predict, project, cond = completion.gaussian(config, path, encode, predict, cond)
        read, stepper, times = of(path)
        finish = None if last == 0 else solvers.denoise(read)
        if c.name == "adaptive":
            out = ode.adaptive(path, read, predict, x, last or FINEST, cond=cond, rtol=c.rtol)
            t = jnp.full(n, last or FINEST)
            x0 = solvers.denoise(read)(predict, key_run, out.x, t, cond)
            x0 = project(key_run, x0, jnp.zeros(n)) if project else x0
            return out._replace(x=x0, nfe=passes * (out.nfe + 1))
        out = driver.reverse(
            stepper,
            predict,
            key_run,
            x,
            times,
            cond,
            finish=finish,
            project=project,
            trajectory=trajectory,
        )
        return out._replace(nfe=passes * out.nfe)

    return draw


# The grids that have options.
_GRID_KEYS = {"karras": ("power",), "discrete": ("total", "spacing")}


def _wrong(x: Any, spec: DataSpec) -> str:
    """Continuous data must be finite numbers; values on levels were checked when read."""
    if spec.num_values or np.isfinite(x).all():
        return ""
    return f"{int((~np.isfinite(x)).sum())} entries are not finite; valid: numbers"
