"""PCA, k-means and Gaussian mixtures against scikit-learn, autoencoders against PyTorch.

The same algorithm on both sides, on 60000 x 784 (MNIST in [0, 1] where GMJAX_DATA_DIR has it,
otherwise numbers of that shape), in float32 and with all cores:

    pca      eigenvectors of the covariance, or seven powers of a random projection with ten
             extra directions, normalised by QR
    ppca     the former, and the mean log-likelihood of all examples
    kmeans   Lloyd's iterations from the same centres
    gmm      EM steps from the same mixture, and the final log-likelihoods
    vae      updates of the 784-200-200-50 tanh model on binarised MNIST in batches of 100, by
             Adam, with one particle or five, against a plain PyTorch loop with the same weights;
             batches are made and fed as in training, and ours also averages its parameters

A ratio is the peer's time over ours; the goal is at least 1. `differs` is the relative difference
of what was computed: the variances, the mean log-likelihood, the inertia, or what is decoded.

Run it with `python -m experiments.benchmarks.latent [--out DIR] [--repeats N] [--smoke]
[--only TARGET ...]`.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from configs import vae as configs_vae
from configs import vr_iwae as configs_vr_iwae
from experiments.benchmarks import peers, timing
from experiments.benchmarks.timing import Row
from gmjax import data, methods
from gmjax.classical import gmm, kmeans, pca, ppca
from gmjax.data import batches
from gmjax.methods import vae
from gmjax.types import DataSpec, Method, Source, UserError

TARGETS = ("pca", "kmeans", "gmm", "vae")
FLOOR = 1e-3  # of variances; many pixels are constant
PEERS = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}
# family, K, dimensions (784: pixels; else principal components), EM steps
MIXTURES = [
    ("diagonal", 10, 784, 5),
    ("diagonal", 25, 784, 5),
    ("spherical", 10, 784, 5),
    ("tied", 10, 50, 10),
    ("full", 5, 50, 10),
    ("full", 10, 50, 10),
    ("tied", 5, 784, 1),
    ("full", 2, 784, 1),
]


def images(n: int) -> tuple[np.ndarray, str]:
    """n x 784 float32 in [0, 1], and what they are."""
    try:
        source = data.load({"name": "mnist"}).train
    except UserError:
        rng = np.random.default_rng(0)
        plane = rng.normal(size=(n, 40)) @ rng.normal(size=(40, 784)) / 40
        x = plane + 0.1 * rng.normal(size=(n, 784))
        return np.clip(x, 0, 1).astype(np.float32), "synthetic"
    x = source.take(np.arange(min(n, source.size)))["x"]
    return (x.reshape(len(x), -1) / np.float32(255)).astype(np.float32), "mnist"


def components(x: np.ndarray, name: str, repeats: int) -> Iterator[Row]:
    """PCA by two solvers, and PPCA."""
    q = min(50, x.shape[1] // 2)
    shape, held = shape_of(x), jnp.asarray(x)
    key = jax.random.key(0)
    solvers = {
        "eigh": PCA(q, svd_solver="covariance_eigh"),
        "randomised": PCA(
            q, svd_solver="randomized", iterated_power=7, power_iteration_normalizer="QR",
            random_state=0,
        ),
    }  # fmt: skip
    for solver, peer in solvers.items():
        fit = partial(pca.fit, components=q, solver=solver, ddof=1)
        program = timing.compiled(lambda x, key, fit=fit: fit(x, key=key), held, key)
        run = partial(peer.fit, x)
        off = differs(program.run().variances, run().explained_variance_)
        yield row("pca", shape, name, f"{solver}, q = {q}", program, run, repeats, off)

    def judged(x):
        params = ppca.fit(x, q, ddof=1)
        return ppca.log_likelihood(params, x).mean()

    program, peer = timing.compiled(judged, held), solvers["eigh"]
    scored = lambda: peer.fit(x).score(x)
    off = differs(program.run(), scored())
    yield row("ppca", shape, name, f"fit and score, q = {q}", program, scored, repeats, off)


def clusters(x: np.ndarray, name: str, repeats: int, k: int = 10, steps: int = 10) -> Iterator[Row]:
    """Lloyd's iterations."""
    centres, held = jnp.asarray(x[:k]), jnp.asarray(x)
    fit = lambda x, c: kmeans.fit(jax.random.key(0), x, k, steps, -1.0, initial=c)
    program = timing.compiled(fit, held, centres)
    peer = KMeans(k, init=x[:k], n_init=1, max_iter=steps, tol=0, algorithm="lloyd")
    run = lambda: peer.fit(x)
    off = differs(program.run().inertia * len(x), run().inertia_)
    what = f"K = {k}, {steps} iterations"
    yield row("kmeans", shape_of(x), name, what, program, run, repeats, off)


def mixtures(
    x: np.ndarray, name: str, repeats: int, cases: Sequence[tuple[str, int, int, int]]
) -> Iterator[Row]:
    """EM of every case."""
    codes: dict[int, np.ndarray] = {x.shape[1]: x}
    for family, k, d, steps in cases:
        if d not in codes:
            plane = pca.fit(jnp.asarray(x), d)
            codes[d] = np.asarray(pca.encode(plane, jnp.asarray(x)))
        yield mixture(codes[d], name, repeats, family, k, steps)


def mixture(x: np.ndarray, name: str, repeats: int, family: str, k: int, steps: int) -> Row:
    """EM steps of one family."""
    spread = x.var(0) + FLOOR
    start = {
        "full": np.tile(np.diag(spread), (k, 1, 1)),
        "tied": np.diag(spread),
        "diagonal": np.tile(spread, (k, 1)),
        "spherical": np.full(k, spread.mean()),
    }[family].astype(np.float32)
    inverse = np.linalg.inv(start) if family in ("full", "tied") else 1 / start
    weights = np.full(k, 1 / k, np.float32)
    initial = gmm.Params(*map(jnp.asarray, (weights, x[:k], start)))

    def fit(x, initial):
        return gmm.fit(
            jax.random.key(0), x, k, family,
            iterations=steps, tolerance=-1.0, floor=FLOOR, initial=initial,
        ).log_likelihood  # fmt: skip

    peer = GaussianMixture(
        k, covariance_type=PEERS[family], tol=0, max_iter=steps, reg_covar=FLOOR,
        weights_init=weights, means_init=x[:k], precisions_init=inverse,
        init_params="random_from_data",
    )  # fmt: skip
    program = timing.compiled(fit, jnp.asarray(x), initial)
    run = lambda: peer.fit(x)
    off = differs(program.run(), run().score(x))
    what = f"{family}, K = {k}, {steps} steps"
    return row("gmm", shape_of(x), name, what, program, run, repeats, off)


def autoencoders(smoke: bool, repeats: int) -> Iterator[Row]:
    """Updates of the VAE and of the IWAE with five particles; nothing where there is no PyTorch."""
    if not peers.have_torch():
        return
    from experiments.benchmarks import torch_vae

    source, name = binary(200 if smoke else 50_000)
    for job, particles in ((configs_vae, 1), (configs_vr_iwae, 5)):
        config = job.get_config("binarized_mnist").unlock()
        config.train.batch_size = 20 if smoke else 100
        config.bound.alpha = 0.0
        steps = 3 if smoke else 50
        spec = DataSpec((28, 28, 1), 2, "image")
        method, rate = methods.build(config, spec), config.optimizer.learning_rate
        batch = batches.batcher(source, config.train.batch_size, 0)
        state = jax.jit(method.init)(jax.random.key(0))
        params = jax.device_get(state.params)
        ours = _updates(method, state, batch, steps)
        x = source.take(np.arange(source.size))["x"].reshape(source.size, -1)
        theirs = torch_vae.Training(params, x, config.train.batch_size, rate, particles)
        # Exponents of order one: relative differences of log-odds near zero say nothing.
        z = np.random.default_rng(0).normal(size=(8, config.network.latent)).astype(np.float32)
        raw = vae.model(config, spec).decode(params, jnp.asarray(z)).reshape(8, -1)
        off = differs(np.exp(raw), np.exp(torch_vae.decoded(theirs.model, z)))
        what = f"{particles} particle{'s' * (particles > 1)}, {steps} updates"
        shape = f"{config.train.batch_size} x 784"
        for threads in sorted({1, theirs.threads}):  # where others wait for cores, one is faster
            run = partial(theirs.run, steps, threads)
            against = f"torch, {threads} threads"
            yield row("vae", shape, name, what, ours, run, repeats, off, against)


def binary(n: int) -> tuple[Source, str]:
    """n binary images, and what they are."""
    try:
        return data.load({"name": "binarized_mnist"}).train, "binarized_mnist"
    except UserError:
        x = np.random.default_rng(0).integers(0, 2, (n, 28, 28, 1)).astype(np.int32)
        return Source(n, lambda rows: {"x": x[rows]}), "synthetic"


def _updates(method: Method, state, batch: Callable, steps: int) -> timing.Program:
    """Updates as the training loop does them, metrics read late."""

    def update(state, index, batch):
        key = jax.random.fold_in(jax.random.key(1), index)
        return method.update(state, key, batch)

    start = time.perf_counter()
    first = jax.tree.map(jnp.asarray, batch(0))
    program = jax.jit(update, donate_argnums=0).lower(state, np.uint32(0), first).compile()
    seconds = time.perf_counter() - start
    stats, held = program.memory_analysis(), [state, 0]

    def run():
        state, first = held
        for index in range(first, first + steps):
            state, metrics = program(state, np.uint32(index), batch(index))
        held[:] = state, first + steps
        return float(metrics["loss"])

    return timing.Program(run, seconds, stats.temp_size_in_bytes / 2**20 if stats else float("nan"))


def shape_of(x: np.ndarray) -> str:
    return " x ".join(map(str, x.shape))


def differs(ours, peers) -> float:
    """The largest relative difference."""
    ours, peers = np.asarray(ours, np.float64), np.asarray(peers, np.float64)
    return float(np.max(np.abs(ours - peers) / np.abs(peers)))


def row(
    target: str, shape: str, name: str, what: str, program: timing.Program,
    run: Callable[[], object], repeats: int, off: float, against: str = "scikit-learn",
) -> Row:  # fmt: skip
    """Both timed in turn."""
    seconds = timing.interleaved({"peer": run, "ours": program.run}, repeats)
    ratio, low, high = timing.compare(seconds["peer"], seconds["ours"])
    return Row(
        target, shape, name, f"{what}; differs {off:.0e}", against,
        1e3 * float(np.median(seconds["ours"])), 1e3 * float(np.median(seconds["peer"])),
        ratio, low, high, ">= 1", "yes" if ratio >= 1 else "no",
        program.compile_s, program.temp_mib, float("nan"),
    )  # fmt: skip


def run(smoke: bool, repeats: int, only: Sequence[str] = ()) -> Iterator[Row]:
    """All rows."""
    x, name = images(300 if smoke else 60_000) if set(only) != {"vae"} else (np.empty(0), "")
    cases = [(f, 3, d, 2) for f in PEERS for d in (6,)] if smoke else MIXTURES
    targets: dict[str, Callable[[], Iterator[Row]]] = {
        "pca": lambda: components(x, name, repeats),
        "kmeans": lambda: clusters(x, name, repeats),
        "gmm": lambda: mixtures(x, name, repeats, cases),
        "vae": lambda: autoencoders(smoke, repeats),
    }
    for target, rows in targets.items():
        if not only or target in only:
            yield from rows()


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, seconds")
    parser.add_argument("--only", nargs="*", choices=TARGETS, default=())
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore", ConvergenceWarning)
    console, found, path = Console(), list[Row](), args.out / "latent.csv"
    for each in run(args.smoke, args.repeats, args.only):
        console.print(f"{each.target} {each.shape} {each.what}: {each.ratio:.3g}")
        found.append(each)
        timing.write(found, path)
    timing.show(found, console)
    console.print(f"{path}: {len(found)} rows")
    return found


if __name__ == "__main__":
    main()
