"""One step of ours against one of diffusers' schedulers, on the same network and noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.paths.gaussian import PATHS
from gmjax.samplers import gaussian, gaussian_flow, gaussian_multistep, gaussian_noise
from gmjax.samplers.gaussian_steps import reader
from gmjax.samplers.grids import path_grid

diffusers = pytest.importorskip("diffusers", reason="an independent reference, not installed")
torch = pytest.importorskip("torch", reason="diffusers runs on it")

PATH = PATHS["ddpm"]()
STEPS = 20
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # theirs keep the schedule in float32
OWN = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
FREE = {"clip_sample": False}
X = np.random.default_rng(0).normal(size=(4, 3))
NOISE = np.random.default_rng(1).normal(size=(STEPS, 4, 3))
MATRIX = np.array([[0.5, 0.2, 0], [-0.1, 0.6, 0.1], [0, 0.3, 0.4]])


def network(x, index, like=np):
    """A smooth function of state and noise level that predicts eps, and keeps x of order one."""
    return 0.3 * like.sin(x @ MATRIX) + (0.8 + 0.1 * like.cos(index / 300.0)) * x * level(index)


def level(index):
    """sigma at an index of the schedule, in a straight line: what eps is of x."""
    return 0.05 + 0.95 * index / 999


def theirs(scheduler, noisy):
    """The states after every step of a diffusers scheduler."""
    scheduler.set_timesteps(STEPS)
    x, out = torch.tensor(X), []
    for i, index in enumerate(scheduler.timesteps):
        eps = torch.tensor(network(x.numpy(), float(index)))
        extra = {"variance_noise": torch.tensor(NOISE[i])} if noisy == "variance_noise" else {}
        if noisy == "generator":
            held = torch.tensor(NOISE[i])
            module = __import__(type(scheduler).__module__, fromlist=["randn_tensor"])
            module.randn_tensor = lambda *a, held=held, **k: held
        x = scheduler.step(eps, index, x, **extra).prev_sample
        out.append(x.numpy())
    return np.stack(out), [int(i) for i in scheduler.timesteps]


def ours(name, indices, monkeypatch, t_last=0.0, **options):
    """The states after every step of ours at the same noise levels."""
    held = {}
    for module in (gaussian_flow, gaussian_multistep, gaussian_noise):
        monkeypatch.setattr(module, "normal", lambda key, x: held["z"])
    with jax.enable_x64(True):
        stepper = gaussian.SOLVERS[name](PATH, reader(PATH, "eps"), **options)
        predict = lambda x, t, cond: network(x, 1000 * t[0] - 1, jnp)
        times = jnp.asarray([(i + 1) / 1000 for i in indices] + [t_last])

        def body(state, inputs):
            (x, carry), (t, t_next, z) = state, inputs
            held["z"] = z
            full = lambda t: jnp.full(len(X), t)
            state = stepper.step(predict, jax.random.key(0), x, full(t), full(t_next), carry, None)
            return state, state[0]

        x = jnp.asarray(X)
        inputs = times[:-1], times[1:], jnp.asarray(NOISE)
        run = jax.jit(lambda x: jax.lax.scan(body, (x, stepper.init(x)), inputs)[1])
        return np.asarray(run(x))


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ancestral(variance, spacing, monkeypatch):
    kind = f"fixed_{variance}"
    scheduler = diffusers.DDPMScheduler(**OWN, **FREE, variance_type=kind, timestep_spacing=spacing)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", None)
    want, indices = theirs(scheduler, "generator")
    got = ours("ancestral", indices, monkeypatch, variance=variance)
    # Theirs adds the large noise to the data itself where the last level is not the first.
    last = STEPS - 1 if (variance, spacing) == ("large", "trailing") else STEPS
    np.testing.assert_allclose(got[:last], want[:last], **CLOSE)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(eta, monkeypatch):
    scheduler = diffusers.DDIMScheduler(**OWN, **FREE, timestep_spacing="leading")
    scheduler.set_timesteps(STEPS)
    step = scheduler.step
    scheduler.step = lambda *a, variance_noise: step(*a, eta=eta, variance_noise=variance_noise)
    want, indices = theirs(scheduler, "variance_noise")
    got = ours("ddim", indices, monkeypatch, eta=eta)
    np.testing.assert_allclose(got, want, **CLOSE)


@pytest.mark.parametrize(
    "name, make, own, noisy",
    [
        ("dpmpp_2m", "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}, ""),
        (
            "dpmpp_sde",
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++"},
            "variance_noise",
        ),
        ("unipc", "UniPCMultistepScheduler", {"solver_type": "bh2"}, ""),
        ("unipc 3", "UniPCMultistepScheduler", {"solver_type": "bh2", "solver_order": 3}, ""),
    ],
)
def test_multistep(name, make, own, noisy, monkeypatch):
    scheduler = getattr(diffusers, make)(
        **OWN,
        **{"solver_order": 2, "lower_order_final": True, "final_sigmas_type": "zero", **own},
        timestep_spacing="leading",
    )
    want, indices = theirs(scheduler, noisy)
    options = {"order": int(name.split()[1])} if " " in name else {}
    got = ours(name.split()[0], indices, monkeypatch, **options)
    # Near the end theirs lower the order by design, for short runs; ours only in the last step.
    np.testing.assert_allclose(got[:-3], want[:-3], **CLOSE)
    np.testing.assert_allclose(got[-1], want[-1], atol=0.05)


def test_respaced_indices_are_theirs():
    for spacing in ("leading", "trailing", "linspace"):
        scheduler = diffusers.DDIMScheduler(**OWN, timestep_spacing=spacing)
        scheduler.set_timesteps(STEPS)
        times = path_grid("discrete", STEPS, PATH, spacing=spacing)
        np.testing.assert_allclose(
            np.asarray(times[:-1]) * 1000 - 1, scheduler.timesteps.numpy(), atol=1e-3
        )
