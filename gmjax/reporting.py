"""What a trained model is worth: held-out bits, samples, pictures and one table.

Everything a person reads at the end of a run is made here, from a `Method`, its state and a
data set, and written to the work directory:

    samples.png     samples beside held-out data
    film.gif, .png  the reverse process
    loss.png        the training loss
    density.png     the model's density where the space is a surface that can be drawn
    field.png       the probability flow of a law in the plane
    noise.png       the loss against the log-SNR, of methods that have one
    reconstruction.png, traversal.png, codes.png, log_weights.png
                    what a model with codes makes of held-out data
    samples.npy     the samples, [n, *S]
    samples.txt     the same as text, where the data are text
    results.json    every figure
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gmjax import data
from gmjax.data import batches, masks
from gmjax.metrics import codes, film, maps, plots, report, samples, two_sample
from gmjax.metrics.bits import mean_and_error
from gmjax.training import reports, sharding, workdir
from gmjax.types import Dataset, DataSpec, Method, PyTree, UserError

RESULTS = "results.json"
PICTURES = ("film.gif", "film.png", "field.png", "density.png", "noise.png")  # of some samplers
LARGEST = 10_000  # examples of a split that the report looks at
CELLS = 48  # of a density, along an axis
PROFILED = 256  # examples on which the loss by noise level is measured
VIEWED = 1000  # examples that pictures of codes are made of


def evaluator(
    method: Method, dataset: Dataset, config: Any, mesh: jax.sharding.Mesh
) -> Callable[[PyTree], dict[str, float]]:
    """state -> held-out bits per dimension, or nats an example, and parts, compiled once.

    Args:
        method: its `evaluate` returns "nats", per site of discrete data, what it is made of, and
            figures that are rows of the report, which keep their names and units. It is given one
            example at a time, vmapped: no figure depends on the batches or the devices.
        dataset: the test split is used.
        config: reads seed and evaluate.{batch_size, limit}.
        mesh: where the state lives.
    """
    whole, rows = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    key = jax.random.key(config.seed + 1)
    # Rounded up to what the mesh divides; the mask drops what is padded.
    size = -(-config.evaluate.batch_size // mesh.size) * mesh.size

    def values(state: PyTree, batch: dict) -> dict[str, jax.Array]:
        """Each example by itself, with a key of its own, whatever batch it comes in."""
        index, mask = batch.pop("index"), batch.pop("mask")

        def one(index, example):
            alone = jax.tree.map(lambda a: a[None], example)
            return method.evaluate(state, jax.random.fold_in(key, index), alone)

        found = jax.tree.map(lambda a: a[:, 0], jax.vmap(one)(index, batch))
        return {**found, "mask": mask}

    step = jax.jit(values, out_shardings=whole)

    def evaluate(state: PyTree) -> dict[str, float]:
        found: dict[str, list[np.ndarray]] = {}
        passes = batches.epoch(
            dataset.test,
            size,
            config.evaluate.limit or None,
            jax.process_index(),
            jax.process_count(),
        )
        for local in passes:
            out = jax.device_get(step(state, sharding.global_batch(local, rows)))
            keep = out.pop("mask")
            for part, value in out.items():
                found.setdefault(part, []).append(value[keep])
        values = {name: np.concatenate(each) for name, each in found.items()}
        mean, error = mean_and_error(values.pop("nats") / unit)
        own = {name: values.pop(name) for name in list(values) if name in report.ROWS}
        parts = {prefix + name: float(np.mean(value / unit)) for name, value in values.items()}
        for each, value in own.items():
            parts[each], parts[f"{each}_error"] = mean_and_error(value)
        return {name: mean, f"{name}_error": error, **parts}

    name = criterion(dataset.spec, config)
    unit, prefix = (np.log(2), "bits_") if name == "bits_per_dim" else (1.0, "nats_")
    return evaluate


def criterion(spec: DataSpec, config: Any) -> str:
    """What a model is judged by: bits a site of discrete data, nats an example of others.

    Args:
        spec: of the data.
        config: of data that are not discrete, `evaluate.likelihood` says flow, elbo or, where a
            model has neither, loss.
    """
    if spec.kind in report.KINDS:
        return "bits_per_dim"
    names = {"flow": "nll", "exact": "nll", "elbo": "elbo", "loss": "test_loss"}
    return names[config.evaluate.likelihood]


def check(method: Method, dataset: Dataset, config: Any) -> None:
    """Holds the data against the method's state space.

    Raises:
        UserError: a point is not in the space.
    """
    for name, source in (("train", dataset.train), ("test", dataset.test)):
        # Integers are all checked when they are read, which may mean to decode them.
        every = dataset.spec.kind not in report.KINDS and source.size
        examples = source.take(np.arange(every)) if every else split(source)
        wrong = method.check(examples["x"]) if method.check else ""
        if wrong:
            raise UserError(f"config.data.name={config.data.name!r}, {name}: {wrong}")


def rehearse(method: Method, dataset: Dataset, config: Any) -> None:
    """Traces evaluation and sampling, so that a mistake there is told before the training."""
    key = jax.random.key(0)
    state = jax.eval_shape(method.init, key)
    batch = dataset.test.take(np.arange(1))
    jax.eval_shape(method.evaluate, state, key, batch)
    n = min(config.sample.batch_size, config.sample.num_samples)
    given = condition(dataset, config, n)
    jax.eval_shape(lambda s, k, c: method.sample(s, k, n, c), state, key, given)


def draw(
    method: Method, state: PyTree, dataset: Dataset, config: Any, mesh: jax.sharding.Mesh
) -> dict[str, Any]:
    """Samples, in batches of one compiled program.

    Returns:
        x [n, *S], nfe, seconds (compilation apart), compile_seconds, times, trajectory, and
        label [n] or truth [n, *S] where samples were conditioned.
    """
    c, spec, whole = config.sample, dataset.spec, sharding.replicated(mesh)
    size = min(c.batch_size, c.num_samples)
    number = -(-c.num_samples // size)
    rows = sharding.batch_sharding(mesh) if size % mesh.size == 0 else whole
    shown = min(36, size) if spec.kind in ("image", "sequence") else min(2000, size)

    def run(state, key, cond):
        place = lambda x: jax.lax.with_sharding_constraint(x, rows)
        return method.sample(state, key, size, cond, trajectory=shown, place=place)

    given = condition(dataset, config, size * number)
    parts = [
        jax.tree.map(lambda a, i=i: a[i * size : (i + 1) * size], given) for i in range(number)
    ]
    keys = jax.random.split(jax.random.key(config.seed + 2), number)
    started = time.perf_counter()
    program = jax.jit(run, out_shardings=whole).lower(state, keys[0], parts[0]).compile()
    compiled = time.perf_counter()
    out = [jax.device_get(program(state, k, part)) for k, part in zip(keys, parts, strict=True)]
    ended = time.perf_counter()
    n = c.num_samples
    result = {
        "x": jax.tree.map(lambda *parts: np.concatenate(parts)[:n], *(o.x for o in out)),
        "nfe": int(out[0].nfe),
        "seconds": ended - compiled,
        "compile_seconds": compiled - started,
        "times": out[0].times,
        "trajectory": out[0].trajectory,
    }
    names = {"label": "label", "values": "truth"}
    few = jax.tree.map(lambda a: a[:n], given)
    return result | {new: few[old] for old, new in names.items() if old in given}


def condition(dataset: Dataset, config: Any, n: int) -> dict[str, np.ndarray]:
    """What n samples are conditioned on: classes as often as they occur, or held-out sites."""
    cond = {}
    if config.labels:
        cond["label"] = batches.in_turn(split(dataset.train)["label"], n)
    probe = dataset.test.take(np.arange(1))
    if "source" in probe:  # what samples are carried from, where it is data
        cond["source"] = dataset.test.take(np.arange(n) % dataset.test.size)["source"]
    chosen = config.sample.get("observed")
    if "observed" not in probe and not chosen:
        return cond
    held = dataset.test.take(np.arange(n) % dataset.test.size)
    if chosen:
        given = masks.mask(chosen, dataset.spec)
        held["observed"] = np.broadcast_to(given, (n, *given.shape))
    cond |= {"observed": held["observed"], "values": held["x"]}
    if config.labels and "label" in held:
        cond["label"] = held["label"]
    return cond


def finish(
    method: Method,
    state: PyTree,
    dataset: Dataset,
    config: Any,
    mesh: jax.sharding.Mesh,
    directory: Path,
    evaluate: Callable[[PyTree], dict[str, float]],
) -> None:
    """What `config.mode` asks for of a trained state: figures, samples, `results.json`, a table.

    Figures of another test file than the run's own stand in `results-NAME.json`.
    """
    step, chosen = int(state.step), settings(config)
    own = json.loads((directory / workdir.CONFIG).read_text())["data"].get("test_file")
    other = config.data.get("test_file") or ""
    name = RESULTS if other == (own or "") else f"results-{Path(other).stem}.json"
    results = reports.read(directory / name)
    same = results.get("step") == step and results.get("settings") == chosen
    if config.mode == "train" and same:
        print(f"{directory} is done: {step} steps, reported before")
        show(results, directory)
        return
    figures = {"step": step, **evaluate(state)}
    if config.mode == "evaluate":
        # Figures of another likelihood would stand beside these.
        before = {k: v for k, v in results.items() if not k.startswith(("bits_", "nats_"))}
        told = {**results.get("settings", {}), "evaluate": chosen["evaluate"]}
        results = {**before, **figures, "settings": told}
        if jax.process_index() == 0:
            reports.write(directory / name, results)
    else:
        results = sample_and_report(method, state, dataset, config, mesh, directory, figures)
    show(results, directory)


def sample_and_report(
    method: Method,
    state: PyTree,
    dataset: Dataset,
    config: Any,
    mesh: jax.sharding.Mesh,
    directory: Path,
    figures: dict[str, float],
) -> dict[str, Any]:
    """Draws samples, judges them, and writes pictures and `results.json`.

    Args:
        figures: what is known already, such as the held-out bits.

    Returns:
        All figures.
    """
    drawn = draw(method, state, dataset, config, mesh)
    if jax.process_index() != 0:
        return figures
    for name in PICTURES:  # of a run before, whose sampler may have had others
        (directory / name).unlink(missing_ok=True)
    spec, x = dataset.spec, drawn["x"]
    train, test = split(dataset.train), split(dataset.test)
    if criterion(spec, config) != "bits_per_dim":
        judged = samples.samples_report(x, train["x"], test["x"], spec)
    else:
        judged = report.sample_report(
            x,
            train["x"],
            test["x"],
            spec,
            train_label=train.get("label") if spec.kind == "image" else None,
            test_label=test.get("label") if spec.kind == "image" else None,
            sample_label=drawn.get("label"),
            truth=drawn.get("truth"),
        )
    results = {
        **figures,
        **judged,
        "nfe": drawn["nfe"],
        "sample_seconds": drawn["seconds"],
        "sample_compile_seconds": drawn["compile_seconds"],
        "num_samples": config.sample.num_samples,
        "settings": settings(config),
    }
    if isinstance(x, dict):
        np.savez(directory / "samples.npz", **x)
    else:
        np.save(directory / "samples.npy", x)
    pictures(directory, drawn, train["x"], test["x"], dataset)
    judged_pictures(method, state, dataset, config, directory, drawn, test)
    decode = data.decoder(config.data)
    if decode:
        (directory / "samples.txt").write_text(
            "\n---\n".join(decode(jax.tree.map(lambda a: a[:64], x))) + "\n"
        )
    reports.write(directory / RESULTS, results)
    return results


def settings(config: Any) -> dict[str, Any]:
    """What a report depends on beside the model, as it comes back from JSON."""
    chosen = {name: config[name].to_dict() for name in ("evaluate", "sample")}
    return json.loads(json.dumps(chosen, default=str))


def split(source) -> dict[str, np.ndarray]:
    """At most `LARGEST` examples of a split, evenly spaced."""
    index = np.unique(np.linspace(0, source.size - 1, min(source.size, LARGEST)).astype(int))
    return source.take(index)


def pictures(
    directory: Path, drawn: dict[str, Any], train: np.ndarray, test: np.ndarray, dataset: Dataset
) -> None:
    """samples.png, film.gif and film.png, and the loss curve from metrics.jsonl."""
    discrete = dataset.spec.kind in report.KINDS
    (_discrete_pictures if discrete else _maps)(directory, drawn, train, test, dataset.spec)
    rows = reports.rows(directory / reports.METRICS)
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    if losses:
        steps, values = np.asarray(losses).T
        plots.loss_curve(directory / "loss.png", {"training": (steps, values)}, "training loss")


def judged_pictures(
    method: Method,
    state: PyTree,
    dataset: Dataset,
    config: Any,
    directory: Path,
    drawn: dict[str, Any],
    test: dict[str, np.ndarray],
) -> None:
    """density.png, field.png, noise.png and views, where the method and the space have them."""
    spec, key, x = dataset.spec, jax.random.key(config.seed + 3), test["x"]
    flat = spec.kind in maps.SIZES and spec.shape == (maps.SIZES[spec.kind],)
    if flat and set(test) == {"x"} and config.evaluate.likelihood != "loss":
        nats = jax.jit(lambda state, key, x: method.evaluate(state, key, {"x": x})["nats"])
        log_prob = maps.steady(lambda i, x: -nats(state, jax.random.fold_in(key, i), x))
        bound = config.evaluate.likelihood == "elbo"
        title = f"density{' (a lower bound)' if bound else ''}, held-out points"
        path = directory / "density.png"
        maps.density(path, log_prob, x, spec.kind, title, spec.names, CELLS, CELLS**2)
    field = method.field
    if flat and spec.kind == "euclidean" and field and drawn["trajectory"] is not None:
        velocity = jax.jit(lambda x, t: field(state, x, jax.numpy.full(len(x), t)))
        film = drawn["trajectory"]
        box = _in_view(film, x)
        maps.field(directory / "field.png", velocity, film, drawn["times"], box)
    order = np.random.default_rng(0).permutation(len(jax.tree.leaves(x)[0]))  # splits may be sorted
    first = lambda n: jax.tree.map(lambda column: column[order[:n]], dict(test))
    if method.views:
        few = first(VIEWED)
        codes.draw(directory, jax.device_get(jax.jit(method.views)(state, key, few)), few, spec)
    if method.profile:
        few = first(PROFILED)
        found = jax.device_get(jax.jit(method.profile)(state, key, few))
        plots.noise_curve(directory / "noise.png", found["log_snr"], found["loss"])


def _maps(directory, drawn, train, test, spec) -> None:
    maps.PICTURES[spec.kind](directory / "samples.png", drawn["x"], test, names=spec.names)
    if drawn["trajectory"] is not None:
        path, times = drawn["trajectory"], drawn["times"]
        seen = _in_view(path, test) if spec.shape == (2,) else test
        maps.film(directory / "film.gif", path, times, spec.kind, spec.names, real=seen)


def _in_view(path: np.ndarray, test: np.ndarray) -> np.ndarray:
    """What sets the limits of a film in the plane: data, and the start unless it is far out."""
    near = np.std(path[0]) < 5 * np.std(test)
    return np.concatenate([test, path[0]]) if near else test


def _discrete_pictures(directory, drawn, train, test, spec) -> None:
    x, show = drawn["x"], plots.picture(spec)
    extra = {}
    if spec.kind == "image":
        extra["nearest"] = train[two_sample.nearest(x[:100], train)[1]]
        if "truth" not in drawn:
            test = report.thin(test, 100)  # in no order: splits may be sorted by class
    show(directory / "samples.png", x, test, spec.num_values, **extra)
    if drawn["trajectory"] is not None:
        # The states of the chain end at t_min; the denoised samples are the last picture.
        last = x[None, : drawn["trajectory"].shape[1]]
        path, when = drawn["trajectory"], drawn["times"]
        if not np.array_equal(path[-1:], last):
            path, when = np.concatenate([path, last]), np.append(when, 0.0)
        film.film(directory / "film.gif", path, when, spec.num_values, spec.kind)


def show(results: dict[str, Any], directory: Path) -> None:
    """Prints the table of a run."""
    from rich.console import Console

    console = Console()
    console.print(report.table(results))
    written = sorted(path.name for path in directory.glob("*.[pg][ni][gf]"))
    console.print(f"{directory}: {', '.join([*written, RESULTS])}", soft_wrap=True)
