"""The training loop: any Method, any number of devices and processes, resumable to the bit.

Everything that step k uses is a function of (seed, k): its batch, and its key
`fold_in(key, k)`. So a run that is killed and started again from its last checkpoint does the
same as one that never stopped. The host only feeds the devices: batches come from a thread,
the metrics of a step are read LAG steps later, when they have long arrived, and checkpoints
are written by a thread of Orbax's.
"""

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.training import checkpoints, monitors, preemption, reports, sharding
from gmjax.training import workdir as workdirs
from gmjax.training.monitors import TrainingError
from gmjax.types import Method, PyTree, UserError

AHEAD = 2  # batches made in advance
LAG = 4  # steps between the dispatch of a step and the reading of its metrics
SEEDS = 2**31  # keys of other integers may be those of these
SUSPECT = 10  # so many high losses in a row, and periodic checkpoints wait

# What the loop reads of a configuration besides `train.steps` and `train.batch_size`.
DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "mesh": {"data": -1, "fsdp": 1},  # -1: all the devices that fsdp leaves
    "train": {
        "log_every": 50,  # steps between rows of metrics
        "checkpoint_every": 1000,
        "evaluate_every": 0,  # 0: at the end only
        "keep": 3,  # newest checkpoints, besides the best
        "patience": 200,  # steps of a loss far above its level before we stop; 0: for ever
    },
}

Batcher = Callable[[int, int, int], Mapping[str, Any]]  # (step, process_index, process_count)
Evaluate = Callable[[PyTree, int], Mapping[str, float]]  # (state, step)
Pending = deque[tuple[int, dict[str, jax.Array], jax.Array]]  # (step, metrics, stop)


class Program(NamedTuple):
    """A method compiled for a mesh."""

    mesh: jax.sharding.Mesh
    target: PyTree  # the state's shapes, types and shardings
    init: Callable[[], PyTree]
    update: Any  # jitted, (state, step, batch, stop) -> (state, metrics, stop)


def compile(method: Method, config: Any) -> Program:
    """Lays `method` over the devices; nothing runs yet.

    Args:
        method: what to train.
        config: reads `seed`, `mesh` and `train.batch_size`.

    Returns:
        `update(state, step [], batch, stop [devices]) -> (state, metrics, max stop)`, which
        consumes the state it is given.

    Raises:
        UserError: the mesh does not fit the devices, or the batch the mesh.
    """
    mesh = sharding.mesh(config)
    sharding.check_batch(config, mesh)
    init_key, update_key = jax.random.split(jax.random.key(config.seed))

    def init() -> PyTree:
        return _strong(method.init(init_key))

    def update(state: PyTree, step: jax.Array, batch: dict, stop: jax.Array) -> tuple:
        state, metrics = method.update(state, jax.random.fold_in(update_key, step), batch)
        return _strong(state), metrics, jnp.max(stop)

    shapes = jax.eval_shape(init)
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    states, rows = sharding.state_sharding(shapes, mesh), sharding.batch_sharding(mesh)
    whole = sharding.replicated(mesh)
    target = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        states,
    )
    return Program(
        mesh,
        target,
        # Initialisers run once: a third of the time to compile, for the same bits.
        jax.jit(
            init,
            out_shardings=states,
            compiler_options={"xla_backend_optimization_level": 1} if on_cpu else None,
        ),
        jax.jit(
            update,
            in_shardings=(states, whole, rows, rows),
            out_shardings=(states, whole, whole),
            donate_argnums=0,
        ),
    )


def cost(program: Program, state: PyTree, inputs: tuple, parts: int = 1) -> str:
    """A line: the size of a model and the operations of an update, as XLA counts them.

    Loops count once, whatever their length, and so do kernels that XLA does not know; that over the
    `parts` of an accumulated batch counts as often as it runs, with the optimiser in it.
    """
    params = getattr(state, "params", state)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    found = program.update.lower(state, np.uint32(0), *inputs).cost_analysis() or {}
    rows = len(jax.tree.leaves(inputs[0])[0])
    flops = f"{parts * found.get('flops', 0.0) / 1e9:.3g} GFLOP"
    return f"{size:,} parameters; an update of {rows} examples is {flops}"


def load(method: Method, config: Any, workdir: str | Path, best: bool = False) -> tuple[int, Any]:
    """The (step, state) of the newest checkpoint, or of the best, to evaluate or sample from.

    Args:
        method: the method that was trained.
        config: as for `train`.
        workdir: where it was trained.
        best: the best evaluated one, where there is one.

    Raises:
        UserError: there is no checkpoint, it is of another model, or all are damaged.
    """
    target = compile(method, config).target
    found = checkpoints.restore(_folder(workdir), target, _say, best_first=best)
    if found is None:
        raise UserError(f"workdir={workdir} has no checkpoint; valid: a directory trained in")
    return found.step, found.state


def train(
    method: Method,
    batch: Batcher,
    config: Any,
    workdir: str | Path,
    evaluate: Evaluate | None = None,
    best: str = "loss",
) -> PyTree:
    """Trains to `train.steps`, from the newest checkpoint in `workdir` if there is one.

    Args:
        method: its `update` returns metrics with a key `loss`.
        batch: `(step, process_index, process_count)` -> this process's contiguous rows of the
            batch of that step, `{name: [batch_size / process_count, ...]}`.
        config: reads the keys of `DEFAULTS`, `train.steps` and `train.batch_size`.
        workdir: from `workdir.prepare`; the processes share it.
        evaluate: called by all processes every `train.evaluate_every` steps and at the end.
        best: the entry of what `evaluate` returns that ranks checkpoints; less is better.

    Returns:
        The final state.

    Raises:
        UserError: a bad configuration, or checkpoints that cannot be used.
        TrainingError: the loss or the parameters are not finite, the loss diverges, or a
            checkpoint cannot be written.
        Preempted: SIGTERM or SIGINT came; the state is saved.
    """
    check(config)
    program, total, folder = compile(method, config), config.train.steps, _folder(workdir)
    found = checkpoints.restore(folder, program.target, _say)
    if found:
        _say(f"{workdir}: resuming from step {found.step} of {total}")
        if found.step >= total:
            return found.state
        step, state, damaged = found.step, found.state, found.damaged
        monitor = monitors.from_json(found.meta["monitor"])
    else:
        step, state, damaged, monitor = 0, program.init(), (), monitors.start()
    with (
        _last_good(folder),
        checkpoints.opened(folder, config.train.keep, damaged) as store,
        reports.report(Path(workdir), step, total) as report,
        preemption.watch() as signal,
        contextlib.closing(_feed(_maker(batch, program, signal), range(step, total))) as feed,
    ):
        pending: Pending = deque()
        stopping = 0
        for index, inputs in feed:
            if index == 0:
                report.say(cost(program, state, inputs, config.train.get("accumulate", 1)))
            step = index + 1
            state, metrics, stop = program.update(state, np.uint32(index), *inputs)
            for leaf in (*metrics.values(), stop):
                leaf.copy_to_host_async()
            pending.append((step, metrics, stop))
            judge = evaluate is not None and (
                step == total or _due(step, config.train.evaluate_every)
            )
            save = judge or step == total or _due(step, config.train.checkpoint_every)
            monitor, agreed = _settle(pending, 0 if save else LAG, monitor, report, config)
            # Several processes must stop at the same step, so they wait until they agree.
            stopping = signal() if jax.process_count() == 1 else agreed
            if stopping:
                monitor, _ = _settle(pending, 0, monitor, report, config)
            value = None
            if judge and evaluate is not None:
                scores = {name: float(score) for name, score in evaluate(state, step).items()}
                report.evaluated(step, scores)
                value = scores[best] if np.isfinite(scores[best]) else None
            if stopping or step == total or (save and monitor.high < SUSPECT):
                memory = {
                    "config": workdirs.to_dict(config),
                    "monitor": monitors.to_json(monitor),
                }
                store.save(step, state, memory, value)
            if stopping:
                break
        store.wait()
        if stopping := stopping or signal():  # it may come after the last step
            report.say(f"stopped by a signal; step {step} is saved, the same command resumes")
            raise preemption.Preempted(128 + stopping)
    return state


def check(config: Any) -> None:
    """Raises `UserError` for a seed, or a number in `train`, that makes no sense."""
    if not 0 <= config.seed < SEEDS:
        raise UserError(f"config.seed={config.seed}; valid: 0 .. {SEEDS - 1}")
    least = {
        "steps": 1,
        "batch_size": 1,
        "log_every": 1,
        "checkpoint_every": 1,
        "evaluate_every": 0,
        "keep": 1,
        "patience": 0,
    }
    for name, bound in least.items():
        if (value := config.train[name]) < bound:
            raise UserError(f"config.train.{name}={value} is too small; valid: at least {bound}")


def _settle(
    pending: Pending,
    leave: int,
    monitor: monitors.Monitor,
    report: reports.Report,
    config: Any,
) -> tuple[monitors.Monitor, int]:
    """Reads the metrics of all pending steps but the last `leave`; also the signal they carry."""
    agreed = 0
    while len(pending) > leave:
        step, arrays, stop = pending.popleft()
        metrics = {name: float(value) for name, value in arrays.items()}
        monitor = monitors.observe(monitor, step, metrics, config.train.patience)
        report.progress(step, metrics["loss"])
        if step % config.train.log_every == 0 or step == config.train.steps:
            report.trained(step, monitors.means(monitor))
            monitor = monitors.emptied(monitor)
        agreed = max(agreed, int(stop))
    return monitor, agreed


@contextlib.contextmanager
def _last_good(folder: Path) -> Iterator[None]:
    """Adds to a `TrainingError` where one can start again."""
    try:
        yield
    except TrainingError as error:
        good = checkpoints.steps(folder)
        where = f"the last good checkpoint is step {good[-1]}" if good else "there is no checkpoint"
        raise TrainingError(f"{error}; {where} ({folder})") from error


def _maker(
    batch: Batcher, program: Program, signal: Callable[[], int]
) -> Callable[[int], tuple[dict[str, jax.Array], jax.Array]]:
    """step -> what `update` takes besides the state, on the devices."""
    rows = sharding.batch_sharding(program.mesh)
    devices = len(program.mesh.local_devices)

    def make(step: int) -> tuple[dict[str, jax.Array], jax.Array]:
        local = batch(step, jax.process_index(), jax.process_count())
        stop = {"stop": np.full(devices, signal(), np.int32)}
        return sharding.global_batch(local, rows), sharding.global_batch(stop, rows)["stop"]

    return make


def _feed(
    make: Callable[[int], Any], steps: Iterable[int]
) -> Generator[tuple[int, Any], None, None]:
    """(step, make(step)) in order, made by a thread AHEAD of their use."""
    ready: deque[tuple[int, Future]] = deque()
    with ThreadPoolExecutor(1, "gmjax-batches") as pool:
        try:
            for step in steps:
                ready.append((step, pool.submit(make, step)))
                if len(ready) > AHEAD:
                    first, future = ready.popleft()
                    yield first, future.result()
            while ready:
                first, future = ready.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _strong(state: PyTree) -> PyTree:
    """The state without weak types: a restored one has none, and must compile to the same."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), state)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _folder(workdir: str | Path) -> Path:
    return Path(workdir).resolve() / "checkpoints"


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)
