import numpy as np
import pytest

from gmjax.data import batches
from gmjax.data.sources import arrays
from gmjax.types import UserError


def numbers(n):
    """A source whose example i is the number i."""
    return arrays({"x": np.arange(n)[:, None], "label": np.arange(n) % 3})


def xs(batch):
    return batch["x"][:, 0]


def stream(n, size, seed, steps):
    return np.concatenate([xs(batches.batch(numbers(n), size, seed, s)) for s in range(steps)])


@pytest.mark.parametrize(("n", "size"), [(10, 4), (10, 10), (10, 1), (10, 33), (1, 3)])
def test_stream_is_epoch_after_epoch_each_a_permutation(n, size):
    epochs = 6
    flow = stream(n, size, 3, -(-epochs * n // size))[: epochs * n].reshape(epochs, n)
    np.testing.assert_array_equal(np.sort(flow, axis=1), np.tile(np.arange(n), (epochs, 1)))
    for e in range(epochs):
        np.testing.assert_array_equal(flow[e], np.random.default_rng((3, e)).permutation(n))
    if n > 1:
        assert len({tuple(row) for row in flow}) == epochs, "every epoch in another order"


def test_batch_size_does_not_change_the_stream():
    np.testing.assert_array_equal(stream(10, 4, 0, 15), stream(10, 15, 0, 4))


def test_batch_is_a_pure_function_of_seed_and_step():
    source = numbers(1000)
    first = [xs(batches.batch(source, 64, 5, s)) for s in range(40)]
    batches.permutation.cache_clear()
    for s in reversed(range(40)):
        np.testing.assert_array_equal(xs(batches.batch(source, 64, 5, s)), first[s])
    assert (xs(batches.batch(source, 64, 6, 0)) != first[0]).any()
    far = batches.batch(source, 64, 5, 10**9)
    assert len(set(xs(far))) > 32
    assert len(batches.batch(source, 64, -1, 0)["x"]) == 64


def test_columns_stay_together():
    batch = batches.batch(numbers(50), 20, 0, 7)
    np.testing.assert_array_equal(batch["label"], xs(batch) % 3)


@pytest.mark.parametrize("count", [1, 2, 4, 12])
def test_processes_share_one_batch(count):
    source = numbers(17)
    for step in range(5):
        whole = batches.batch(source, 12, 1, step)
        parts = [batches.batch(source, 12, 1, step, i, count) for i in range(count)]
        for column, values in whole.items():
            np.testing.assert_array_equal(np.concatenate([p[column] for p in parts]), values)


def test_a_process_takes_only_its_own_share():
    taken = []
    source = numbers(100)
    spy = source._replace(take=lambda rows: taken.append(len(rows)) or source.take(rows))
    batches.batch(spy, 12, 0, 0, 1, 4)
    assert taken == [3]


@pytest.mark.parametrize(("size", "count"), [(0, 1), (-4, 1), (10, 4)])
def test_bad_batch_size(size, count):
    message = rf"config.train.batch_size={size}; valid: a positive multiple of {count}"
    with pytest.raises(UserError, match=message):
        batches.batch(numbers(100), size, 0, 0, 0, count)
    with pytest.raises(UserError, match=message):
        batches.epoch(numbers(100), size, process_count=count)


def test_permutation_is_cached_and_read_only():
    order = batches.permutation(100, 0, 0)
    assert batches.permutation(100, 0, 0) is order
    with pytest.raises(ValueError, match="read-only"):
        order[0] = 1


@pytest.mark.parametrize("limit", [None, 7, 8, 100])
@pytest.mark.parametrize("count", [1, 2])
def test_epoch(limit, count):
    source = numbers(10)
    passes = [list(batches.epoch(source, 4, limit, i, count)) for i in range(count)]
    size = min(limit or 10, 10)
    assert all(len(p) == -(-size // 4) for p in passes)
    together = [np.concatenate([p[k]["mask"] for p in passes]) for k in range(len(passes[0]))]
    values = [np.concatenate([xs(p[k]) for p in passes]) for k in range(len(passes[0]))]
    assert all(len(v) == 4 for v in values), "one shape"
    mask, value = np.concatenate(together), np.concatenate(values)
    assert mask.dtype == bool
    np.testing.assert_array_equal(value[mask], np.arange(size))
    assert (value[~mask] == size - 1).all()


def test_batcher_without_workers_is_batch():
    source = numbers(30)
    make = batches.batcher(source, 8, 2)
    for step in (3, 0):
        np.testing.assert_array_equal(xs(make(step)), xs(batches.batch(source, 8, 2, step)))
        part = xs(make(step, 1, 2))
        np.testing.assert_array_equal(part, xs(batches.batch(source, 8, 2, step, 1, 2)))


def test_workers_below_none_are_named():
    with pytest.raises(UserError, match="config.train.workers=-1 must be 0"):
        batches.batcher(numbers(30), 8, 2, workers=-1)


@pytest.mark.slow
def test_batcher_with_workers_gives_the_same_batches():
    pytest.importorskip("grain")
    source = numbers(30)
    make = batches.batcher(source, 8, 2, workers=2)
    for step in (4, 5, 6, 7, 5):
        np.testing.assert_array_equal(xs(make(step)), xs(batches.batch(source, 8, 2, step)))


def test_batches_and_epochs_of_trees():
    tree = {"numeric": np.arange(10.0)[:, None], "classes": np.arange(10)[:, None]}
    source = arrays({"x": tree})
    whole = batches.batch(source, 6, 0, 1)["x"]
    np.testing.assert_array_equal(whole["numeric"], whole["classes"])
    halves = [batches.batch(source, 6, 0, 1, i, 2)["x"]["classes"] for i in range(2)]
    np.testing.assert_array_equal(np.concatenate(halves), whole["classes"])
    passes = list(batches.epoch(source, 4))
    rows = np.concatenate([b["x"]["classes"][b["mask"]] for b in passes])
    np.testing.assert_array_equal(rows[:, 0], np.arange(10))
    assert all(b["x"]["numeric"].shape == (4, 1) for b in passes)


def test_every_seed_has_batches_of_its_own():
    orders = [tuple(batches.permutation(50, seed, 0)) for seed in (0, 1, 2**32, 2**32 + 1, -1)]
    assert len(set(orders)) == 5
