"""Batches, a pure function of (seed, step).

The training stream is the infinite concatenation of shuffled epochs: position p holds
example pi_e(p mod n) of epoch e = floor(p / n), where pi_e is the permutation drawn by
``default_rng((seed, e))``. Batch number ``step`` is the positions step B .. step B + B - 1. So
every example comes exactly once an epoch, batches run over the ends of epochs, a resumed
run sees what it would have seen, and no iterator has a state to save. Of
several processes each takes its own contiguous slice of the same batch.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import lru_cache, partial

import numpy as np

from gmjax.types import Source, UserError

Batch = dict[str, np.ndarray]
Batcher = Callable[..., Batch]  # (step, process_index, process_count) -> batch


def batch(
    source: Source,
    batch_size: int,
    seed: int,
    step: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Batch:
    """Batch number `step` of the shuffled stream, or one process's share of it.

    Args:
        source: n examples.
        batch_size: B, over all processes; it may exceed n.
        seed: of the permutations, any integer.
        step: 0, 1, ...
        process_index: which slice to take.
        process_count: number of slices; it divides B.

    Returns:
        {"x": [B / process_count, *S], ...}, as `take` gives them; the slices in the order of their
        index are the batch of a single process.

    Raises:
        UserError: a batch size below 1, or not divisible by the number of processes.
    """
    rows = _share(batch_size, process_index, process_count)
    positions = np.arange(batch_size * step + rows.start, batch_size * step + rows.stop)
    epochs, within = np.divmod(positions, source.size)
    indices = np.empty(len(positions), np.int64)
    for e in np.unique(epochs):
        here = epochs == e
        indices[here] = permutation(source.size, seed, int(e))[within[here]]
    return source.take(indices)


@lru_cache(maxsize=4)
def permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the examples in one epoch: [size] int64, read-only."""
    high, low = divmod(seed, 2**32)  # words of 32 bits, which no other pair spells alike
    more = (abs(high), int(high < 0)) if high else ()
    order = np.random.default_rng((low, epoch, *more)).permutation(size)
    order.flags.writeable = False
    return order


def batcher(source: Source, batch_size: int, seed: int, workers: int = 0) -> Batcher:
    """`batch` of one source, perhaps made ahead of time by other processes.

    Args:
        source: n examples.
        batch_size: as in `batch`.
        seed: as in `batch`.
        workers: 0: the batch is made in the call, which is right wherever `take` is quick.
            Otherwise that many of Grain's worker processes make the following batches
            meanwhile, for records that are slow to decode. What is in a batch stays the same.

    Returns:
        (step, process_index = 0, process_count = 1) -> batch. With workers, ask for steps in
        order: any other step starts the workers anew.

    Raises:
        UserError: `workers` without Grain or below 0, and as in `batch`.
    """
    if workers < 0:
        raise UserError(f"config.train.workers={workers} must be 0 (none) or more")
    _share(batch_size, 0, 1)
    make = partial(batch, source, batch_size, seed)
    return _made_ahead(make, workers) if workers else make


def epoch(
    source: Source,
    batch_size: int,
    limit: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """One ordered pass, for evaluation, in batches of one shape.

    Args:
        source: n examples.
        batch_size: B, over all processes.
        limit: stop after the first `limit` examples; None: take all.
        process_index: which slice of every batch to take.
        process_count: number of slices; it divides B.

    Returns:
        Batches of `take` with "index" [B / process_count] int32, the examples' places in the
        source, and "mask" bool: False on the rows that fill up the last batch, which repeat the
        last example.

    Raises:
        UserError: a batch size below 1, or not divisible by the number of processes.
    """
    rows = _share(batch_size, process_index, process_count)
    size = source.size if limit is None else min(limit, source.size)
    return (
        {**source.take(at.clip(max=size - 1)), "index": at.astype(np.int32), "mask": at < size}
        for first in range(0, size, batch_size)
        for at in [np.arange(first + rows.start, first + rows.stop)]
    )


def in_turn(label: np.ndarray, n: int) -> np.ndarray:
    """n labels as often as in `label`, to within one, every class in its turn: [n] int32."""
    classes, counts = np.unique(label, return_counts=True)
    ends = np.round(np.cumsum(counts) / counts.sum() * n).astype(int)
    share = np.diff(ends, prepend=0)
    places = np.concatenate([(np.arange(k) + 0.5) / k for k in share if k])
    order = np.argsort(places, kind="stable")
    return np.repeat(classes, share)[order].astype(np.int32)


def _made_ahead(make: Batcher, workers: int) -> Batcher:
    from absl import flags

    try:
        import grain
    except ImportError as error:
        raise UserError(
            f"config.train.workers={workers} needs Grain: pip install gmjax[tfds]; valid without: 0"
        ) from error
    if not flags.FLAGS.is_parsed():  # Grain reads flags of its own, which have defaults
        flags.FLAGS.mark_as_parsed()
    few = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    pool = grain.MultiprocessingOptions(workers, per_worker_buffer_size=2)

    workshop = ExitStack()  # closes the processes of the present iterator
    upcoming: tuple[tuple[int, ...], Iterator[Batch]] = (), iter(())

    def following(step: int, *share: int) -> Iterator[Batch]:
        steps = grain.MapDataset.range(step, 2**40).map(lambda k: make(k, *share))
        made = iter(steps.to_iter_dataset(few).mp_prefetch(pool))
        workshop.close()
        workshop.callback(made.close)
        return made

    def ahead(step: int, process_index: int = 0, process_count: int = 1) -> Batch:
        nonlocal upcoming
        asked = step, process_index, process_count
        expected, made = upcoming
        made = made if expected == asked else following(*asked)
        upcoming = (step + 1, process_index, process_count), made
        return next(made)

    weakref.finalize(ahead, workshop.close)  # when it is dropped, or Python ends
    return ahead


def _share(batch_size: int, process_index: int, process_count: int) -> slice:
    """The rows of a batch that one process takes."""
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"config.train.batch_size={batch_size}; valid: a positive multiple of "
            f"{process_count}, the number of processes"
        )
    share = batch_size // process_count
    return slice(process_index * share, (process_index + 1) * share)
