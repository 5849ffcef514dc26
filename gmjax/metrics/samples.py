"""Figures of merit of continuous and mixed samples, each beside its floor and its ceiling.

    this run | floor: training data as samples | independent

all judged against held-out data by the same code and with as many samples, as in
`gmjax.metrics.report`, whose table shows them. `independent` is a law without structure: the
uniform one on a sphere, on a simplex and for rotations, otherwise independent coordinates. Its
likelihood is exact, with respect to the volume (on the simplex: to Lebesgue's measure of
all coordinates but one). A row of its own has the likelihood of a kernel density of the training
data (`gmjax.metrics.kernels`), on every space what a model has to beat.

Energy is that of Szekely and Rizzo (J. Stat. Plan. Inference 143, 2013) between features, relative
to how far apart points of the two sets are,

    1 - (E |X - X'| + E |Y - Y'|) / (2 E |X - Y|),

0 for equal laws, 1 for two different points, estimated without bias in its numerator.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import expit, gammaln, logit

from gmjax.metrics import baselines, histograms, kernels, two_sample
from gmjax.metrics.bits import mean_and_error
from gmjax.metrics.geometry import GEOMETRIES, chord, flat, geometry, parts_of
from gmjax.metrics.report import NEIGHBOURS, Figures, thin
from gmjax.types import DataSpec

Sampler = Callable[[np.random.Generator, int], np.ndarray]  # (rng, n) -> n states
LogProb = Callable[[np.ndarray], np.ndarray]  # n states -> [n] nats


class Law(NamedTuple):
    """A law of flattened states [F]; perhaps without a density."""

    sample: Sampler
    log_prob: LogProb | None


def energy(x: np.ndarray, y: np.ndarray) -> float:
    """Relative energy distance of the laws of x [n, G] and y [m, G], features; about 0 .. 1."""
    off = lambda a: chord(a, a).sum() / (len(a) * (len(a) - 1))
    between = chord(x, y).mean()
    return float(1.0 - (off(x) + off(y)) / (2.0 * between)) if between > 0 else 0.0


def class_tv(x: np.ndarray, y: np.ndarray) -> float:
    """Total variation between the histograms of classes x [n, m] and y [k, m], mean of columns."""
    pairs = [histograms.histogram_pair(a, b) for a, b in zip(x.T, y.T, strict=True)]
    return float(np.mean([histograms.total_variation(*pair) for pair in pairs]))


def judge(
    spec: DataSpec, train: np.ndarray, test: np.ndarray, distance: Callable | None = None
) -> Callable[[np.ndarray], Figures]:
    """The figures of one set of flattened states, as a function of it.

    Args:
        spec: of the states.
        train, test: [m, F] and [k, F] flattened states, `test` being the reference.
        distance: geodesic distances of flattened states, ([n, F], [m, F]) -> [n, m]; by the kind
            where None.
    """
    space = geometry(spec)
    metric = distance or space.distance
    features = lambda x: space.features(x, spec.num_values)
    reference = thin(test, NEIGHBOURS)
    parts = list(parts_of(spec).values())
    real = [(kind, columns) for kind, columns in parts if kind != "classes"]
    alone = {kind: GEOMETRIES[kind].features for kind, _ in real}

    def figures(x: np.ndarray) -> Figures:
        few = thin(x, NEIGHBOURS)
        found = {
            "energy": energy(features(few), features(reference)),
            "sliced": two_sample.sliced_wasserstein(features(x), features(test)),
        }
        if len(parts) > 1:
            pairs = [(alone[a], few[:, c], reference[:, c]) for a, c in real]
            found["energy_parts"] = float(np.mean([energy(f(u, 0), f(v, 0)) for f, u, v in pairs]))
        of_classes = [class_tv(x[:, c], test[:, c]) for a, c in parts if a == "classes"]
        if of_classes:
            found["class_tv"] = float(np.mean(of_classes))
        on_samples, on_data = two_sample.nn_accuracies(few, reference, metric)
        return found | {
            "nn_accuracy": 0.5 * (on_samples + on_data),
            "nn_accuracy_samples": on_samples,
            "nn_accuracy_data": on_data,
            "nn_ratio": two_sample.nn_ratio(few, train, test, metric),
        }

    return figures


def samples_report(
    samples: Any,
    train: Any,
    test: Any,
    spec: DataSpec,
    distance: Callable[[Any, Any], np.ndarray] | None = None,
    seed: int = 0,
) -> Figures:
    """Every figure for continuous or mixed samples, the floor and the ceiling.

    Args:
        samples: [n, *S], or a dictionary of such.
        train, test: the data's splits, likewise.
        spec: what the data look like; `kind` is a row of `geometry.GEOMETRIES` or `PARTS`.
        distance: geodesic distances, (x [n, *S], y [m, *S]) -> [n, m] (of dictionaries where the
            states are such); by the kind where None.
        seed: of the ceiling's samples.

    Returns:
        {name: value} for the samples, and {column + "/" + name: value} for the columns `floor`
        and `independent`. Plain floats, ready for JSON. `broken_share` is the share of samples
        that are not finite; the other figures leave them out, and are absent where fewer than two
        samples are left. `kernel_nll` is of the training data, whatever the samples.

    Raises:
        ValueError: samples of another shape than the data.
    """
    shape = lambda x: jax.tree.map(lambda a: np.shape(a)[1:], x)
    if shape(samples) != shape(test):
        raise ValueError(f"samples have shape {shape(samples)}, the data {shape(test)}")
    metric = distance and (lambda x, y: distance(*(_unflat(a, test) for a in (x, y))))
    x, seen, new = flat(samples), flat(train), flat(test)
    figures = judge(spec, seen, new, metric)
    whole = np.isfinite(x).all(1)
    report = {"broken_share": float(np.mean(~whole))}
    if whole.sum() > 1:
        report |= figures(x[whole])
    law = independent(spec, seen)
    columns = {
        "floor": figures(thin(seen, len(x))),
        "independent": figures(law.sample(np.random.default_rng(seed), len(x))),
    }
    if law.log_prob is not None:
        nll, error = mean_and_error(-law.log_prob(new))
        columns["independent"] |= {"nll": nll, "nll_error": error}
    nll, error = mean_and_error(-kernels.density(spec, seen, law.log_prob)(new))
    report |= {"kernel_nll": nll, "kernel_nll_error": error}
    return report | {f"{c}/{k}": v for c, part in columns.items() for k, v in part.items()}


def _unflat(x: np.ndarray, like: Any) -> Any:
    """The states that `flat` flattened, in the tree and the shapes of `like`."""
    leaves, tree = jax.tree.flatten(like)
    ends = np.cumsum([int(np.prod(np.shape(a)[1:])) for a in leaves])[:-1]
    pieces = zip(np.split(x, ends, axis=1), leaves, strict=True)
    return jax.tree.unflatten(tree, [p.reshape(len(p), *np.shape(a)[1:]) for p, a in pieces])


def independent(spec: DataSpec, train: np.ndarray) -> Law:
    """The law without structure that the figures' ceiling is drawn from.

    Args:
        spec: of the states.
        train: [m, F] flattened training states, for the kinds with independent coordinates.

    Returns:
        A `Law` of flattened states, a product over the parts.
    """
    parts = parts_of(spec).values()
    laws = [(LAWS[kind](train[:, c], spec.num_values), c) for kind, c in parts]
    densities = [(law.log_prob, c) for law, c in laws if law.log_prob]

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.concatenate([law.sample(rng, n) for law, _ in laws], 1)

    def log_prob(x: np.ndarray) -> np.ndarray:
        return np.sum([density(x[:, c]) for density, c in densities], axis=0)

    return Law(sample, log_prob if len(densities) == len(laws) else None)


class Base(NamedTuple):
    """A plain law on a line, whose quantiles a histogram refines."""

    upto: Callable[[np.ndarray], np.ndarray]  # distribution function
    at: Callable[[np.ndarray], np.ndarray]  # its inverse
    log_density: Callable[[np.ndarray], np.ndarray]


def _circle(x: np.ndarray) -> Base:
    turn = 2 * np.pi
    return Base(
        lambda a: ((a + np.pi) / turn) % 1.0,
        lambda u: turn * u - np.pi,
        lambda a: np.full(a.shape, -math.log(turn)),
    )


def _line(x: np.ndarray) -> Base:
    """The logistic law of the data's mean and variance; its tails spare outliers."""
    mean, scale = x.mean(), max(x.std() * math.sqrt(3) / np.pi, 1e-12)
    z = lambda a: (a - mean) / scale
    return Base(
        lambda a: expit(z(a)),
        lambda u: mean + scale * logit(np.clip(u, 1e-15, 1 - 1e-15)),
        lambda a: -np.abs(z(a)) - 2 * np.log1p(np.exp(-np.abs(z(a)))) - math.log(scale),
    )


def _half_line(x: np.ndarray) -> Base:
    mean = max(x.mean(), 1e-12)
    return Base(
        lambda a: -np.expm1(-a / mean),
        lambda u: -mean * np.log1p(-np.minimum(u, 1 - 1e-15)),
        lambda a: -a / mean - math.log(mean),
    )


def histogram_law(
    x: np.ndarray, base: Base, smoothing: float = baselines.SMOOTHING
) -> tuple[Sampler, LogProb]:
    """A density on a line: a histogram of the data's quantiles under a plain law.

        p(x) = h(F(x)) f(x),  h constant on each of M bins of [0, 1]

    with pseudo-counts, so that it is positive everywhere. M is the power of two up to 1024
    that predicts every point best from the others.

    Args:
        x: [m] training data.
        base: f, with its distribution function F.
        smoothing: pseudo-count of each bin, > 0.

    Returns:
        (rng, n) -> x [n], and x [n] -> its log-density [n] in nats.
    """
    bins = lambda a, size: np.minimum((base.upto(a) * size).astype(int), size - 1)

    def score(size: int) -> float:
        counts = np.bincount(bins(x, size), minlength=size)
        others = size * (counts - 1 + smoothing) / (len(x) - 1 + smoothing * size)
        return float(np.sum(counts * np.log(np.maximum(others, 1e-300))))

    size = max((2**k for k in range(11)), key=score)
    chance = np.bincount(bins(x, size), minlength=size) + smoothing
    chance = chance / chance.sum()

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        return base.at((rng.choice(size, n, p=chance) + rng.random(n)) / size)

    def log_prob(a: np.ndarray) -> np.ndarray:
        return np.log(size * chance[bins(a, size)]) + base.log_density(a)

    return sample, log_prob


def _columns(base: Callable[[np.ndarray], Base]) -> Callable[[np.ndarray, int], Law]:
    def law(x: np.ndarray, num_values: int) -> Law:
        each = [histogram_law(column, base(column)) for column in x.T]
        return Law(
            lambda rng, n: np.stack([draw(rng, n) for draw, _ in each], 1),
            lambda y: np.sum([f(a) for (_, f), a in zip(each, y.T, strict=True)], axis=0),
        )

    return law


def _classes(x: np.ndarray, num_values: int) -> Law:
    law = baselines.independent(x.astype(int), num_values)
    return Law(law.sample, law.log_prob)


def _shuffled(x: np.ndarray, num_values: int) -> Law:
    draw = lambda rng, n: np.stack([rng.choice(column, n) for column in x.T], 1)
    return Law(draw, None)


def _hyperboloid(x: np.ndarray, num_values: int) -> Law:
    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        y = _shuffled(x[:, 1:], 0).sample(rng, n)
        return np.concatenate([np.sqrt(1.0 + (y * y).sum(1, keepdims=True)), y], 1)

    return Law(draw, None)


def _constant(nats: float) -> LogProb:
    return lambda y: np.full(len(y), nats)


def _sphere(x: np.ndarray, num_values: int) -> Law:
    size = x.shape[1]
    area = math.log(2) + 0.5 * size * math.log(math.pi) - float(gammaln(0.5 * size))

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        z = rng.normal(size=(n, size))
        return z / np.linalg.norm(z, axis=1, keepdims=True)

    return Law(draw, _constant(-area))


def _simplex(x: np.ndarray, num_values: int) -> Law:
    size = x.shape[1]
    return Law(lambda rng, n: rng.dirichlet(np.ones(size), n), _constant(float(gammaln(size))))


def _rotations(x: np.ndarray, num_values: int) -> Law:
    """Haar's law; where |w| is the speed of the angle the volume is 8 pi^2."""
    from scipy.spatial.transform import Rotation

    # A normal quaternion, once normalised, is uniform on the three-sphere.
    draw = lambda rng, n: Rotation.from_quat(rng.normal(size=(n, 4))).as_matrix().reshape(n, 9)
    return Law(draw, _constant(-math.log(8 * math.pi**2)))


# kind -> (x [m, F], num_values) -> Law
LAWS: dict[str, Callable[[np.ndarray, int], Law]] = {
    "euclidean": _columns(_line),
    "half_line": _columns(_half_line),
    "torus": _columns(_circle),
    "counts": _shuffled,
    "hyperbolic": _hyperboloid,
    "classes": _classes,
    "sphere": _sphere,
    "simplex": _simplex,
    "rotations": _rotations,
}
