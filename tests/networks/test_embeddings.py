import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.networks import embeddings

KEY = jax.random.key(0)


def test_time_features_are_the_stated_waves():
    t = jnp.array([0.001, 0.3, 1.0])
    w = np.geomspace(1, 1000, 4)
    want = np.sqrt(2) * np.concatenate([np.sin(np.outer(t, w)), np.cos(np.outer(t, w))], 1)
    np.testing.assert_allclose(embeddings.time_features(t, 8), want, atol=2e-4)
    np.testing.assert_allclose((want**2).mean(1), 1)
    assert embeddings.time_features(t, 9).shape == (3, 9)


def test_time_features_tell_times_apart_at_every_scale():
    t = jnp.asarray(np.geomspace(1e-3, 1, 40), jnp.float32)
    f = embeddings.time_features(t, 32) / np.sqrt(16)  # unit vectors
    gap = jnp.linalg.norm(f[1:] - f[:-1], axis=1)
    assert gap.min() > 0.02  # casting t to an integer would give zero
    far = jnp.linalg.norm(f[:, None] - f[None], axis=-1) + 2 * np.eye(40)
    assert far.min() > 0.02


def test_smoothing_matrix_is_the_row_normalised_gaussian():
    m = embeddings.smoothing_matrix(5, 1.5)
    row = np.array([np.exp(-((2 - j) ** 2) / (2 * 1.5**2)) for j in range(5)])
    np.testing.assert_allclose(m[2], row / row.sum(), rtol=1e-6)
    np.testing.assert_allclose(m.sum(1), 1, rtol=1e-6)
    assert (embeddings.smoothing_matrix(5, 0.0) == np.eye(5)).all()


def test_smoothing_matrix_leaves_the_mask_alone():
    m = embeddings.smoothing_matrix(5, 1.5, 4)
    np.testing.assert_allclose(m[:4, :4], embeddings.smoothing_matrix(4, 1.5))
    assert (m[4] == np.eye(5)[4]).all() and (m[:, 4] == np.eye(5)[4]).all()


def test_scaled_levels():
    u = embeddings.scaled_levels(jnp.array([0, 2, 4, 5]), 5)
    np.testing.assert_allclose(u, [-1, 0, 1, 0])
    assert embeddings.scaled_levels(jnp.array([0]), 1).item() == -1


@pytest.mark.parametrize("num_values", [1, 2, 3, 17, 256])
def test_level_features_differ_by_level_and_vanish_on_the_mask(num_values):
    f = embeddings.level_features(num_values + 1, num_values)
    assert f.shape[0] == num_values + 1 and np.isfinite(f).all() and not f[-1].any()
    gaps = np.linalg.norm(f[:-1, None] - f[None, :-1], axis=-1) + 9 * np.eye(num_values)
    assert gaps.min() > 0.5


def test_ordinal_embedding_is_a_dense_layer_on_the_smoothed_one_hot_and_the_features():
    x = jnp.array([[0, 3, 6], [6, 5, 1]])
    module = embeddings.OrdinalEmbedding(7, 6, 4, 1.5)
    params = module.init(KEY, x)["params"]
    one_hot = jax.nn.one_hot(x, 7) @ embeddings.smoothing_matrix(7, 1.5, 6)
    waves = embeddings.level_features(7, 6)[x]
    want = one_hot @ params["table"] + waves @ params["Dense_0"]["kernel"]
    np.testing.assert_allclose(module.apply({"params": params}, x), want, atol=1e-5)


@pytest.mark.parametrize("ordinal", [False, True])
def test_value_embedding_has_unit_scale(ordinal):
    x = jnp.arange(18)
    module = embeddings.value_embedding(18, 17, 256, ordinal, 1.5 * ordinal, jnp.float32)
    out, _ = module.init_with_output(KEY, x)
    assert out.shape == (18, 256) and 0.8 < float(out.std()) < 1.5


def test_condition_without_a_label_is_the_null_class():
    module = embeddings.Condition(16, 3)
    t = jnp.array([0.1, 0.7])
    params = module.init(KEY, t, None)
    out = lambda label: module.apply(params, t, {"label": jnp.array(label)})
    np.testing.assert_allclose(module.apply(params, t, None), out([3, 3]), rtol=1e-6)
    np.testing.assert_allclose(module.apply(params, t, {}), out([3, 3]), rtol=1e-6)
    rows = jnp.stack([out([label, 3])[0] for label in range(4)])
    assert jnp.abs(rows[:, None] - rows).max(-1)[~np.eye(4, dtype=bool)].min() > 0.1
    assert (out([0, 3])[1] == out([1, 3])[1]).all()


def test_condition_ignores_labels_where_the_data_have_none():
    module = embeddings.Condition(16, 0)
    t = jnp.array([0.1, 0.7])
    params = module.init(KEY, t, None)
    same = module.apply(params, t, {"label": jnp.array([0, 1])}) == module.apply(params, t, None)
    assert same.all()


@pytest.mark.parametrize("grid", [(12,), (4, 5)])
def test_rotary_product_depends_on_the_offset_only(grid):
    angles = embeddings.rotary_angles(grid, 8)
    q, k = jax.random.normal(KEY, (2, 8))
    turn = lambda v: embeddings.rotate(jnp.broadcast_to(v, (len(angles), 8)), angles)
    product = np.asarray(turn(q) @ turn(k).T)
    cells = np.indices(grid).reshape(len(grid), -1).T
    seen: dict[tuple[int, ...], float] = {}
    for i, a in enumerate(cells):
        for j, b in enumerate(cells):
            value = seen.setdefault(tuple(a - b), product[i, j])
            assert abs(value - product[i, j]) < 1e-4
    assert product[0, 0] == pytest.approx(float(q @ k), abs=1e-5)
    assert len(np.unique(np.round(list(seen.values()), 4))) == len(seen)


def test_rotate_turns_the_stated_pairs_and_keeps_the_dtype():
    x = jnp.array([[1.0, 2.0, 3.0, 4.0]])
    angles = jnp.array([[np.pi / 2, 0.0]])
    np.testing.assert_allclose(embeddings.rotate(x, angles), [[-3, 2, 1, 4]], atol=1e-6)
    assert embeddings.rotate(x.astype(jnp.bfloat16), angles).dtype == jnp.bfloat16
