"""Samplers against the published trajectories (tests/fixtures), diffusers, and where the answer is known."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler
from torch import Tensor

from core.diffusion.noise import member_noise
from core.diffusion.samplers import SAMPLERS, Step, Steps, ddim, dpmpp_2m, heun, time_steps
from core.diffusion.schedule import Parameterization, Schedule
from core.models.denoiser import Denoiser, DenoiserConfig, from_published_names
from tests.reference_weights import reference_weights

# diffusers makes arrays of tensors in an outdated way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SCHEDULE = Schedule()
HOUR = np.datetime64("2022-07-15T12", "h")
NAMES = tuple(SAMPLERS)


def normal(*shape: int, member: int = 0, step: int = 0) -> Tensor:
    return member_noise(shape, seed=11, hour=HOUR, member=member, step=step).double()


def final(steps: Steps) -> Tensor:
    return list(steps)[-1].z


class Gaussian:
    """The perfect network for independent normal latents with the given means and standard deviations.

    Then everything is known: E[z0 | z_t], and the solution of the probability flow (Karras et al., arXiv
    2206.00364, eq. 1), which keeps the standardised state.
    """

    def __init__(self, mean: Tensor, std: Tensor, parameterization: Parameterization = "v") -> None:
        self.mean, self.std, self.parameterization = mean, std, parameterization
        self.seen: list[float] = []

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        assert t.shape == z.shape[:1]
        assert len(t.unique()) == 1
        self.seen.append(float(t[0]))
        sigma = float(SCHEDULE.sigma(self.seen[-1]))
        mean, std = self.mean.to(z), self.std.to(z)
        z0 = mean + std**2 / (std**2 + sigma**2) * (z * (1 + sigma**2) ** 0.5 - mean)
        if self.parameterization == "x0":
            return z0
        eps = SCHEDULE.to_eps(z0, z, self.seen[-1], "x0")
        return eps if self.parameterization == "eps" else SCHEDULE.target(z0, eps, self.seen[-1], "v")

    def exact(self, z: Tensor, start: float, end: float) -> Tensor:
        """The state at noise level ``end`` on the path through ``z`` at noise level ``start``."""
        x = z * (1 + start**2) ** 0.5
        x = self.mean + (x - self.mean) * ((self.std**2 + end**2) / (self.std**2 + start**2)) ** 0.5
        return x / (1 + end**2) ** 0.5


GAUSSIAN = Gaussian(
    torch.linspace(-1.0, 1.0, 12, dtype=torch.float64), torch.logspace(-1.0, 0.3, 12, dtype=torch.float64)
)


# --- the published sampler ---


@dataclass(frozen=True)
class Published:
    """What the published sampler did, and our denoiser with its averaged weights and context.

    ``tolerance`` is four times what separates float32 from float64 in the reference itself.
    """

    values: dict[str, Tensor]
    tolerance: dict[str, float]
    denoise: Callable[[Tensor, Tensor], Tensor]


@pytest.fixture(scope="module", params=["io", "io_wide"])
def published(request: pytest.FixtureRequest, fixtures: Path) -> Published:
    stem = f"ldm_tiny_2mT.{request.param}"
    with np.load(fixtures / f"{stem}.npz") as file:
        names = [name for name in file.files if name.startswith(("ddim", "ctx_level", "x_T"))]
        values = {name: torch.from_numpy(file[name]) for name in names}
    table = json.loads((fixtures / f"{stem}.f32_vs_f64.json").read_text())
    tolerance = {name: 4 * table[name]["max_abs"] for name in ("ddim_x", "ddim_pred_x0", "ddim_model_out")}
    weights = from_published_names(reference_weights(fixtures / "ldm_tiny_2mT.weight_rules.json"))
    model = Denoiser(DenoiserConfig.from_weights(weights, truncate_modes="published")).eval()
    model.load_state_dict(weights)
    context = tuple(values[f"ctx_level{level}"] for level in range(3))
    return Published(values, tolerance, lambda z, t: model(z, t, context))


def test_every_published_selection_of_times(fixtures: Path) -> None:
    table = json.loads((fixtures / "ddim_timesteps.json").read_text())
    assert len(table) == 29
    for asked, row in table.items():
        times = time_steps(SCHEDULE, int(asked), "published")
        assert times.tolist() == row["timesteps"][::-1]
        assert len(times) == row["n"]


def test_traits_of_the_published_times() -> None:
    assert time_steps(SCHEDULE, 10, "published")[0] == 901
    assert time_steps(SCHEDULE, 4, "published")[0] == 751
    assert len(time_steps(SCHEDULE, 30, "published")) == 31


@pytest.mark.parametrize("steps", [4, 10, 30, 100])
def test_published_noise_levels(fixtures: Path, steps: int) -> None:
    """Every step leads where the recorded levels and random parts (eta 0.5) say."""
    with np.load(fixtures / "train_tiny_2mT.npz") as file:
        alphas, following, random = (
            torch.from_numpy(file[f"sched/S{steps}_{name}"][::-1].copy())
            for name in ("alphas", "alphas_prev", "sigmas_eta0.5")
        )
    assert float(following[-1]) == pytest.approx(0.9999, abs=1e-7)
    z = normal(2, 12)
    sampler = ddim(GAUSSIAN, z, SCHEDULE, steps=steps, eta=0.5, noise=lambda step: normal(2, 12, step=step))
    for index, step in enumerate(sampler):
        eps = (z - alphas[index].sqrt() * step.z0) / (1 - alphas[index]).sqrt()
        z = following[index].sqrt() * step.z0 + (1 - following[index] - random[index] ** 2).sqrt() * eps
        z = z + random[index] * normal(2, 12, step=index + 1)
        torch.testing.assert_close(step.z, z, rtol=1e-5, atol=1e-6)
        z = step.z
    assert index + 1 == len(alphas)


def test_deterministic_trajectory_equals_the_published_one(published: Published) -> None:
    outputs: list[Tensor] = []

    def record(z: Tensor, t: Tensor) -> Tensor:
        outputs.append(published.denoise(z, t))
        return outputs[-1]

    steps = list(ddim(record, published.values["x_T"], SCHEDULE, steps=10))
    assert [step.t for step in steps] == published.values["ddim_timesteps"].tolist()
    assert [step.step for step in steps] == list(range(1, 11))
    pairs = {
        "ddim_x": [step.z for step in steps],
        "ddim_pred_x0": [step.z0 for step in steps],
        "ddim_model_out": outputs,
    }
    for name, tensors in pairs.items():
        torch.testing.assert_close(
            torch.stack(tensors), published.values[name], rtol=0.0, atol=published.tolerance[name]
        )


def test_random_trajectory_equals_the_published_one(published: Published) -> None:
    values = published.values
    steps = list(
        ddim(
            published.denoise,
            values["x_T"],
            SCHEDULE,
            steps=4,
            eta=0.7,
            noise=lambda step: values["ddim4_eta07_noise"][step - 1],
        )
    )
    assert [step.t for step in steps] == values["ddim4_eta07_timesteps"].tolist()
    torch.testing.assert_close(
        torch.stack([step.z for step in steps]),
        values["ddim4_eta07_x"],
        rtol=0.0,
        atol=published.tolerance["ddim_x"],
    )


def test_published_end_leaves_noise_and_the_others_do_not() -> None:
    z = normal(3, 2)
    known = torch.tensor([[0.5, -2.0]], dtype=torch.float64)

    def network(z: Tensor, t: Tensor) -> Tensor:
        return known.expand_as(z)

    for spacing in ("trailing", "karras", "logsnr"):
        for sampler in SAMPLERS.values():
            result = final(sampler(network, z, SCHEDULE, steps=5, timesteps=spacing, parameterization="x0"))
            assert torch.equal(result, known.expand_as(z))
    last = list(ddim(network, z, SCHEDULE, steps=5, parameterization="x0"))[-1]
    first_eps = SCHEDULE.to_eps(known.expand_as(z), z, 801, "x0")
    torch.testing.assert_close(last.z, 0.9999**0.5 * known + 0.01 * first_eps, rtol=1e-9, atol=1e-9)


# --- where the steps lie ---


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 15, 16, 30, 1000])
@pytest.mark.parametrize("spacing", ["trailing", "karras", "logsnr"])
def test_other_spacings_start_at_pure_noise(steps: int, spacing: Any) -> None:
    times = time_steps(SCHEDULE, steps, spacing)
    assert len(times) == steps
    assert times[0] == 999
    assert np.all(np.diff(times) < 0)
    assert times[-1] >= 0
    if spacing != "trailing" and steps > 1:
        assert times[-1] == 0


def test_evenly_spaced_quantities() -> None:
    sigmas = SCHEDULE.sigma(time_steps(SCHEDULE, 9, "karras"))
    np.testing.assert_allclose(np.diff(sigmas ** (1 / 7), n=2), 0.0, atol=1e-9)
    sigmas = SCHEDULE.sigma(time_steps(SCHEDULE, 9, "logsnr"))
    np.testing.assert_allclose(np.diff(np.log(sigmas), n=2), 0.0, atol=1e-9)
    assert time_steps(SCHEDULE, 5, "trailing").tolist() == [999, 799, 599, 399, 199]


# --- diffusers ---

BETAS = {"trained_betas": SCHEDULE.betas.tolist(), "num_train_timesteps": 1000}
PREDICTION = {"v": "v_prediction", "eps": "epsilon", "x0": "sample"}
# Its levels are in float32, and it knows pure noise only through them.
CLOSE = {"rtol": 2e-4, "atol": 2e-4}


@pytest.mark.parametrize("parameterization", ["v", "eps", "x0"])
@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("spacing", ["published", "trailing"])
def test_ddim_equals_diffusers(parameterization: Parameterization, eta: float, spacing: Any) -> None:
    network = Gaussian(GAUSSIAN.mean, GAUSSIAN.std, parameterization)
    options: dict[str, Any] = (
        {"timestep_spacing": "trailing"}
        if spacing == "trailing"
        else {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}
    )
    scheduler = DDIMScheduler(
        **BETAS, clip_sample=False, prediction_type=PREDICTION[parameterization], **options
    )
    scheduler.set_timesteps(10)
    z = normal(4, 12)
    steps = ddim(
        network,
        z,
        SCHEDULE,
        steps=10,
        eta=eta,
        timesteps=spacing,
        noise=lambda step: normal(4, 12, step=step),
        parameterization=parameterization,
    )
    for number, (t, ours) in enumerate(zip(scheduler.timesteps, steps, strict=True), 1):
        noise = normal(4, 12, step=number) if eta else None
        z = scheduler.step(network(z, t.expand(4)), int(t), z, eta=eta, variance_noise=noise).prev_sample
        assert ours.t == int(t)
        torch.testing.assert_close(ours.z, z, **CLOSE)


@pytest.mark.parametrize("parameterization", ["v", "eps", "x0"])
@pytest.mark.parametrize("count", [1, 2, 10, 20])
def test_dpmpp_2m_equals_diffusers(parameterization: Parameterization, count: int) -> None:
    network = Gaussian(GAUSSIAN.mean, GAUSSIAN.std, parameterization)
    scheduler = DPMSolverMultistepScheduler(**BETAS, prediction_type=PREDICTION[parameterization])
    times = time_steps(SCHEDULE, count, "trailing").astype(int).tolist()
    scheduler.set_timesteps(timesteps=times)
    z = normal(4, 12)
    steps = dpmpp_2m(
        network, z, SCHEDULE, steps=count, timesteps="trailing", parameterization=parameterization
    )
    for t, ours in zip(scheduler.timesteps, steps, strict=True):
        z = scheduler.step(network(z, t.expand(4)), t, z).prev_sample
        torch.testing.assert_close(ours.z, z, **CLOSE)


def test_logsnr_levels_equal_those_of_diffusers() -> None:
    scheduler = DPMSolverMultistepScheduler(**BETAS, use_lu_lambdas=True)
    scheduler.set_timesteps(12)
    ours = SCHEDULE.sigma(time_steps(SCHEDULE, 12, "logsnr"))
    np.testing.assert_allclose(ours, scheduler.sigmas[:-1].numpy(), rtol=1e-4)


@pytest.mark.parametrize("parameterization", ["v", "eps"])
@pytest.mark.parametrize("spacing", ["karras", "trailing"])
def test_heun_equals_diffusers(parameterization: Parameterization, spacing: Any) -> None:
    """With the sigmas of Karras et al. at fractional times, and at whole times."""
    network = Gaussian(GAUSSIAN.mean, GAUSSIAN.std, parameterization)
    scheduler = HeunDiscreteScheduler(
        **BETAS,
        prediction_type=PREDICTION[parameterization],
        use_karras_sigmas=spacing == "karras",
        timestep_spacing="linspace" if spacing == "karras" else spacing,
    )
    scheduler.set_timesteps(10)
    start = normal(4, 12)
    x = start * (1 + scheduler.sigmas[0].double() ** 2) ** 0.5
    theirs = []
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t), t.expand(4))
        x = scheduler.step(output, t, x).prev_sample
        theirs.append(float(t))
    network.seen.clear()
    result = final(
        heun(network, start, SCHEDULE, steps=10, timesteps=spacing, parameterization=parameterization)
    )
    np.testing.assert_allclose(network.seen, theirs, atol=0.02)
    torch.testing.assert_close(result, x, **CLOSE)


# --- where the answer is known ---


@pytest.mark.parametrize(
    ("name", "spacing", "order"),
    [
        ("ddim", "logsnr", 1),
        ("ddim", "trailing", 1),
        ("dpmpp_2m", "logsnr", 2),
        ("dpmpp_2m", "karras", 2),
        ("heun", "karras", 2),
        ("heun", "logsnr", 2),
    ],
)
def test_order_of_convergence(name: str, spacing: Any, order: int) -> None:
    """Twice the steps, a half or a quarter of the error, before the last step to z0."""
    z = normal(8, 12)
    errors = []
    for count in (80, 160, 320):
        times = time_steps(SCHEDULE, count, spacing)
        sampler = SAMPLERS[name](GAUSSIAN, z, SCHEDULE, steps=count, timesteps=spacing)
        # Half-way, since evenly spaced times reach the small levels at no fixed rate.
        index = count // 2
        state = [next(sampler) for _ in range(index)][-1].z
        exact = GAUSSIAN.exact(z, *SCHEDULE.sigma(times[[0, index]]))
        errors.append(float((state - exact).square().mean().sqrt()))
    rates = np.log2(errors[:-1]) - np.log2(errors[1:])
    assert np.all(np.abs(rates - order) < 0.25), rates


@pytest.mark.parametrize(
    ("name", "count", "bound"), [("ddim", 100, 0.08), ("dpmpp_2m", 15, 0.06), ("heun", 25, 0.08)]
)
def test_samples_have_the_right_statistics(name: str, count: int, bound: float) -> None:
    """Means and standard deviations over 4096 samples, and their distance from the exact solution."""
    z = normal(4096, 12)
    options: dict[str, Any] = {"timesteps": "logsnr"} if name == "ddim" else {}
    result = final(SAMPLERS[name](GAUSSIAN, z, SCHEDULE, steps=count, **options))
    sampling = 5 / 4096**0.5
    assert float(((result.mean(0) - GAUSSIAN.mean) / GAUSSIAN.std).abs().max()) < bound + sampling
    assert float((result.std(0) / GAUSSIAN.std - 1).abs().max()) < bound + sampling
    exact = GAUSSIAN.exact(z, float(SCHEDULE.sigma(999)), 0.0)
    assert float(((result - exact) / GAUSSIAN.std).square().mean().sqrt()) < bound


def test_random_steps_sample_the_same_distribution() -> None:
    z = normal(4096, 12)
    quiet = final(ddim(GAUSSIAN, z, SCHEDULE, steps=200, timesteps="logsnr"))
    result = final(
        ddim(
            GAUSSIAN,
            z,
            SCHEDULE,
            steps=200,
            eta=1.0,
            timesteps="logsnr",
            noise=lambda step: normal(4096, 12, step=step),
        )
    )
    assert float((result.std(0) / GAUSSIAN.std - 1).abs().max()) < 0.1
    assert float(((result.mean(0) - GAUSSIAN.mean) / GAUSSIAN.std).abs().max()) < 0.1
    # New noise in each step leaves little of the first.
    correlation = torch.corrcoef(torch.stack([quiet[:, -1], result[:, -1]]))[0, 1]
    assert abs(float(correlation)) < 0.1


def test_the_default_is_better_than_the_published_sampler_with_more_steps() -> None:
    """15 evaluations of dpmpp_2m against 50 of published ddim."""
    z = normal(64, 12)
    exact = GAUSSIAN.exact(z, float(SCHEDULE.sigma(999)), 0.0)
    ours, published = (
        float((final(steps) - exact).square().mean())
        for steps in (
            dpmpp_2m(GAUSSIAN, z, SCHEDULE, steps=15),
            ddim(GAUSSIAN, z, SCHEDULE, steps=50),
        )
    )
    assert ours < published


# --- as generators ---


def run(name: str, z: Tensor, **options: Any) -> Steps:
    settings: dict[str, Any] = {"steps": 6, "timesteps": "trailing"} | options
    return SAMPLERS[name](settings.pop("network", GAUSSIAN), z, SCHEDULE, **settings)


@pytest.mark.parametrize("name", NAMES)
def test_evaluations_and_progress(name: str) -> None:
    network = Gaussian(GAUSSIAN.mean, GAUSSIAN.std)
    steps = list(run(name, normal(2, 12), network=network))
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    assert {step.steps for step in steps} == {6}
    times = time_steps(SCHEDULE, 6, "trailing").tolist()
    assert [step.t for step in steps] == times
    if name == "heun":
        doubled = [times[0], *(t for t in times[1:] for _ in range(2))]
        assert network.seen == doubled
    else:
        assert network.seen == times
    assert torch.equal(steps[-1].z, steps[-1].z0)


def test_progress_counts_the_steps_taken() -> None:
    assert next(ddim(GAUSSIAN, normal(1, 12), SCHEDULE, steps=30)).steps == 31
    assert len(list(heun(GAUSSIAN, normal(1, 12), SCHEDULE, steps=30, timesteps="published"))) == 31
    assert len(list(dpmpp_2m(GAUSSIAN, normal(1, 12), SCHEDULE, steps=99, timesteps=[800, 20.5]))) == 2


@pytest.mark.parametrize("name", NAMES)
def test_it_computes_no_more_than_it_is_asked_for(name: str) -> None:
    network = Gaussian(GAUSSIAN.mean, GAUSSIAN.std)
    sampler = run(name, normal(2, 12), network=network)
    assert network.seen == []
    next(sampler)
    assert len(network.seen) == (2 if name == "heun" else 1)
    sampler.close()
    assert next(sampler, None) is None
    assert len(network.seen) == (2 if name == "heun" else 1)


@pytest.mark.parametrize("name", NAMES)
def test_samples_do_not_depend_on_their_batch(name: str) -> None:
    z = normal(5, 12)
    together = final(run(name, z))
    assert torch.equal(torch.cat([final(run(name, one)) for one in z.split(2)]), together)
    assert torch.equal(final(run(name, z.flip(0))).flip(0), together)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_differentiated_and_the_start_is_left_alone(name: str) -> None:
    weight = torch.ones(12, requires_grad=True)
    z = normal(2, 12).float().requires_grad_()
    before = z.detach().clone()
    enabled = []

    def network(z: Tensor, t: Tensor) -> Tensor:
        enabled.append(torch.is_grad_enabled())
        return weight * z

    for step in run(name, z, network=network):
        assert not step.z.requires_grad
        assert not step.z0.requires_grad
        assert torch.is_grad_enabled()
    assert not any(enabled)
    assert torch.equal(z, before)


@pytest.mark.parametrize("name", NAMES)
def test_steps_that_are_kept_do_not_change(name: str) -> None:
    sampler = run(name, normal(2, 12))
    first = next(sampler)
    z, z0 = first.z.clone(), first.z0.clone()
    list(sampler)
    assert torch.equal(first.z, z)
    assert torch.equal(first.z0, z0)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_float32_whatever_the_network_computes_in(name: str) -> None:
    def half(z: Tensor, t: Tensor) -> Tensor:
        assert z.dtype == t.dtype == torch.float32
        return GAUSSIAN(z, t).to(torch.bfloat16)

    for start in (torch.float32, torch.bfloat16):
        steps: list[Step] = list(run(name, normal(2, 12).to(start), network=half))
        assert {step.z.dtype for step in steps} == {step.z0.dtype for step in steps} == {torch.float32}
    assert final(run(name, normal(2, 12))).dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_it_works_where_the_latents_are(name: str) -> None:
    """On the meta device, which has shapes and no numbers: so nothing is read back from a device either."""
    options: dict[str, Any] = (
        {"eta": 1.0, "noise": lambda step: torch.empty(2, 4, 8, 8, device="meta")} if name == "ddim" else {}
    )
    z = torch.empty(2, 4, 8, 8, device="meta")
    for step in run(name, z, network=lambda z, t: z * t.view(-1, 1, 1, 1), **options):
        assert step.z.device.type == step.z0.device.type == "meta"
        assert step.z.shape == z.shape


def test_noise_is_asked_for_once_in_each_random_step() -> None:
    asked: list[int] = []

    def noise(step: int) -> Tensor:
        asked.append(step)
        return normal(2, 12, step=step)

    z = normal(2, 12)
    list(run("ddim", z, eta=0.5, noise=noise))
    # The step to z0 is not random.
    assert asked == [1, 2, 3, 4, 5]
    asked.clear()
    list(run("ddim", z, eta=0.5, noise=noise, timesteps="published", steps=4))
    assert asked == [1, 2, 3, 4]
    asked.clear()
    for name in NAMES:
        list(run(name, z, noise=noise))
    assert asked == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 0}, "takes 1 to 1000 steps; got 0"),
        ({"steps": 1001}, "takes 1 to 1000 steps; got 1001"),
        ({"timesteps": "quadratic"}, "spaced published, trailing, karras or logsnr, not quadratic"),
        ({"timesteps": []}, "fall from step to step"),
        ({"timesteps": [1, 2]}, "fall from step to step"),
        ({"timesteps": [1000, 2]}, "has the times 0 to 999"),
        ({"eta": 1.5}, "eta"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_impossible_options_are_refused_at_once(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run(name, normal(1, 12), **options)


def test_noise_must_be_given_where_it_is_used() -> None:
    with pytest.raises(ValueError, match="give the noise of the steps"):
        run("ddim", normal(1, 12), eta=0.5)
    for name in ("dpmpp_2m", "heun"):
        with pytest.raises(ValueError, match=f"{name} has no random steps"):
            run(name, normal(1, 12), eta=0.5, noise=lambda step: normal(1, 12))


def test_a_network_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"made \(2, 1\) of latents \(2, 12\)"):
        next(run("ddim", normal(2, 12), network=lambda z, t: z[:, :1]))
