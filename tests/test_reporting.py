"""What the report asks of the data before anything is trained."""

import importlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax import data as datasets
from gmjax import methods, reporting
from gmjax.data import batches, sources
from gmjax.spaces.sphere import sphere
from gmjax.training import loop, reports
from gmjax.types import DataSpec, UserError


def test_every_point_is_held_against_its_space():
    x = np.tile(np.eye(3), (10_000, 1))
    x[17_501] *= 1.5
    data = sources.build({"x": x}, {"x": x[:9]}, kind="sphere")
    config = SimpleNamespace(data=SimpleNamespace(name="npz"))
    method = SimpleNamespace(check=sphere(2).check)
    with pytest.raises(
        UserError, match="config.data.name='npz', train: norms differ .* 0.5; valid"
    ):
        reporting.check(method, data, config)
    reporting.check(method, data._replace(train=data.test), config)


# -- held-out figures: a function of the model and the data, not of the batches -------------------

JOBS = {
    "vae": "smoke",
    "discrete_diffusion": "smoke",
    "gaussian_diffusion": "smoke",
    "flow_matching": "smoke",
    "markov_diffusion": "smoke",
    "vr_iwae": "smoke",
    "classical": "autoencoder",
}
SLOW = [job if job == "vae" else pytest.param(job, marks=pytest.mark.slow) for job in JOBS]


@pytest.mark.parametrize("job", SLOW)
def test_held_out_figures_do_not_depend_on_the_batches(job):
    config = importlib.import_module(f"configs.{job}").get_config(JOBS[job]).unlock()
    config.evaluate.limit = 20
    dataset = datasets.load(config.data)
    method = methods.build(config, dataset.spec)
    state = jax.jit(method.init)(jax.random.key(0))
    found = []
    for size in (7, 16):
        config.evaluate.batch_size = size
        mesh = loop.compile(method, config).mesh
        found.append(reporting.evaluator(method, dataset, config, mesh)(state))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        np.testing.assert_allclose(value, found[1][name], rtol=1e-6, err_msg=name)


def test_draws_of_one_example_spread_over_the_times():
    """K draws of an example have one time in each of K equal shares of the law."""
    from gmjax.losses import times

    sampler = times.uniform_in_t(0.0)
    draw = lambda key, j: sampler(key, 1, (j, 16))[0][0]
    t = jax.vmap(draw)(jax.random.split(jax.random.key(0), 16), jnp.arange(16))
    np.testing.assert_array_equal(np.floor(16 * t), np.arange(16))


def test_labels_are_asked_for_as_often_as_they_occur():
    np.testing.assert_array_equal(batches.in_turn(np.arange(50) % 5, 10), np.arange(10) % 5)
    rare = batches.in_turn(np.repeat([3, 7], [95, 5]), 40)
    assert np.unique(rare, return_counts=True)[1].tolist() == [38, 2] and set(rare) == {3, 7}
    for n in (1, 7, 1000):
        label = np.repeat([0, 4, 9], [1, 5, 11])
        asked = np.bincount(batches.in_turn(label, n), minlength=10)
        assert asked.sum() == n
        assert np.all(np.abs(asked - np.bincount(label, minlength=10) * n / 17) < 1)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_the_density_of_a_noisy_bound_integrates_to_what_the_bound_does(
    noise, tmp_path, monkeypatch
):
    """A bound .1 below a normal density, with normal noise: exp(-.1), where the exponential of
    one draw would have exp(-.1 + noise^2 / 2). The noise left in a cell has a standard deviation
    of .35, in the mean over 4 pi / .043 = 290 cells that count .019: .075 is four of it. The
    square cuts off less than .001."""
    found = []
    draw = reporting.maps.density
    monkeypatch.setattr(
        reporting.maps, "density", lambda *args: found.append((args[4], draw(*args)[1]))
    )

    def evaluate(state, key, batch):
        x = batch["x"]
        nats = 0.5 * (x**2).sum(1) + jnp.log(2 * jnp.pi) + 0.1
        return {"nats": nats + noise * jax.random.normal(key, nats.shape)}

    method = SimpleNamespace(evaluate=evaluate, field=None, views=None, profile=None)
    spec = DataSpec((2,), 0, "euclidean")
    config = SimpleNamespace(seed=0, evaluate=SimpleNamespace(likelihood="elbo"))
    test = {"x": np.array([[-3.0, -3.0], [3.0, 3.0]])}
    drawn = {"trajectory": None}
    reporting.judged_pictures(
        method, None, SimpleNamespace(spec=spec), config, tmp_path, drawn, test
    )
    ((title, mass),) = found
    assert "lower bound" in title
    assert mass == pytest.approx(np.exp(-0.1), abs=0.075 * noise + 1e-3)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "null", '{"nll": "a"}', '{"settings": 3}', "\x00", "[" * 100_000]
)
def test_a_damaged_report_is_made_anew(tmp_path, text, capfd):
    path = tmp_path / "results.json"
    assert reports.read(path) == {}
    path.write_text(text)
    assert reports.read(path) == {} and "made anew" in capfd.readouterr().err
    reports.write(path, {"nll": 1.5, "settings": {"sample": {}}})
    assert reports.read(path)["nll"] == 1.5


def test_damaged_rows_of_metrics_are_left_out(tmp_path):
    path = tmp_path / reports.METRICS
    row = '{"step": %d, "loss": 1.0}'
    bad = [b"", b"\xff\xfe{", b"[3]", b'{"step": "a"}', b'{"step": 2, "loss": "x"}', b"{" * 9000]
    lines = [(row % 1).encode(), *bad, (row % 2).encode(), b'{"step": 3, "lo']
    path.write_bytes(b"\n".join(lines))
    assert [r["step"] for r in reports.rows(path)] == [1, 2]
    reports.truncate(path, 2)
    assert path.read_text().splitlines() == [row % 1, row % 2]
