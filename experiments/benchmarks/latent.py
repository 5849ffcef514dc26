"""PCA, probabilistic PCA, k-means and Gaussian mixtures against scikit-learn.

The same algorithm on both sides, on 60000 x 784 (MNIST in [0, 1] where GMJAX_DATA_DIR has it,
otherwise numbers of that shape), in float32 and with all cores:

    pca      eigenvectors of the covariance, or seven powers of a random projection with ten
             extra directions, normalised by QR
    ppca     the former, and the mean log-likelihood of all examples
    kmeans   Lloyd's iterations from the same centres
    gmm      EM steps from the same mixture, and the final log-likelihoods

A ratio is the peer's time over ours; the goal is at least 1. `differs` is the relative difference
of what was computed: the variances, the mean log-likelihood or the inertia.

Run it with `python -m experiments.benchmarks.latent [--out DIR] [--repeats N] [--smoke]
[--only TARGET ...]`.
"""

import argparse
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

from experiments.benchmarks import timing
from experiments.benchmarks.timing import Row
from gmjax import data
from gmjax.classical import gmm, kmeans, pca, ppca
from gmjax.types import UserError

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


def shape_of(x: np.ndarray) -> str:
    return " x ".join(map(str, x.shape))


def differs(ours, peers) -> float:
    """The largest relative difference."""
    ours, peers = np.asarray(ours, np.float64), np.asarray(peers, np.float64)
    return float(np.max(np.abs(ours - peers) / np.abs(peers)))


def row(
    target: str, shape: str, name: str, what: str, program: timing.Program,
    run: Callable[[], object], repeats: int, off: float,
) -> Row:  # fmt: skip
    """Both timed in turn."""
    seconds = timing.interleaved({"peer": run, "ours": program.run}, repeats)
    ratio, low, high = timing.compare(seconds["peer"], seconds["ours"])
    return Row(
        target, shape, name, f"{what}; differs {off:.0e}", "scikit-learn",
        1e3 * float(np.median(seconds["ours"])), 1e3 * float(np.median(seconds["peer"])),
        ratio, low, high, ">= 1", "yes" if ratio >= 1 else "no",
        program.compile_s, program.temp_mib, float("nan"),
    )  # fmt: skip


def run(smoke: bool, repeats: int, only: Sequence[str] = ()) -> Iterator[Row]:
    """All rows."""
    x, name = images(300 if smoke else 60_000)
    cases = [(f, 3, d, 2) for f in PEERS for d in (6,)] if smoke else MIXTURES
    targets: dict[str, Callable[[], Iterator[Row]]] = {
        "pca": lambda: components(x, name, repeats),
        "kmeans": lambda: clusters(x, name, repeats),
        "gmm": lambda: mixtures(x, name, repeats, cases),
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
    parser.add_argument("--only", nargs="*", choices=("pca", "kmeans", "gmm"), default=())
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
