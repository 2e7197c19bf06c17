"""train.ldm_pde and physical terms in train.ldm: what is logged, what learns, resuming, and refusals."""

import numpy as np
import pytest
import torch

from core.checkpoint import Header, load, save
from core.data.samples import compute_normalization
from core.downscale import find_downscalers
from core.models.latent_diffusion import PARTS, LatentDiffusion
from core.variables import PREDICTORS
from tests.small_models import two_level_latent_diffusion
from tests.synthetic_store import make_store
from tests.train import small
from train.config import ConfigError
from train.data import STATICS_NEEDED
from train.diffusion import DiffusionTask
from train.ldm import train_ldm
from train.ldm_pde import restored, train_ldm_pde
from train.physics import PhysicsTerms
from train.run_folder import TrainError

DECODER = ("trainable=[vae.decoder, vae.to_decoder]", "physics.flux={weight: 1, cell: 2}")


@pytest.fixture(scope="module")
def whole(weather, ldm_file, tmp_path_factory):
    """An uninterrupted run."""
    return train_ldm_pde(small.pde_config(), weather.path, ldm_file, tmp_path_factory.mktemp("pde") / "run")


@pytest.fixture(scope="module")
def windy(tmp_path_factory):
    """A store with winds, and a model of it that has not learnt anything."""
    folder = tmp_path_factory.mktemp("windy")
    store = make_store(folder / "weather.zarr", fine=("t2m", "u10", "v10"))
    targets = ("t2m", "u10", "v10")
    sizes = two_level_latent_diffusion(latent=2, targets=3)
    torch.manual_seed(0)
    header = Header(
        kind="ldm_res",
        label="Untrained",
        models={part: getattr(sizes, part).model_dump(mode="json") for part in PARTS},
        predictors=PREDICTORS,
        statics=STATICS_NEEDED,
        targets=targets,
        normalization=compute_normalization(store, store.hours, targets=targets),
        domain=store.domain.to_dict(),
    )
    save(folder / "untrained.safetensors", header, LatentDiffusion(sizes).state_dict())
    return store, folder / "untrained.safetensors"


def history(path, name="last.ckpt"):
    return torch.load(path.parent / name, weights_only=True)["run"]["history"]


def a_step(config, store, parent, seed=0):
    """Gradients by name, at the network's output and of the parameters, in one step of training."""
    checkpoint = load(parent)
    header, network = checkpoint.header, restored(checkpoint)
    window = (config.crop, config.crop)
    physics = config.physics and PhysicsTerms(
        config.physics, header.normalization, header.targets, store.domain, window
    )
    static = header.normalization.statics_to_tensor(store.read_static())[None]
    hours = store.hours[:2]
    task = DiffusionTask(
        config,
        network,
        static,
        hours,
        None,
        header.normalization,
        header.targets,
        store.domain,
        physics,
    )
    task.sample_numbers = lambda index, count: range(count)
    coarse = header.normalization.predictors_to_tensor(store.read_coarse(hours))
    truth = header.normalization.targets_to_tensor(store.read_fine(hours), header.targets)
    with torch.no_grad():
        mean = network.mean(coarse, static)
        latent = network.vae.encode(truth - mean).mean
    outputs = []
    denoise = network.denoise

    def watched(*given):
        outputs.append(denoise(*given))
        if outputs[-1].requires_grad:
            outputs[-1].retain_grad()
        return outputs[-1]

    network.denoise = watched
    loss = task.training_step({"latent": latent, "coarse": coarse, "truth": truth, "mean": mean}, 0)
    # The norms have been measured with gradients that were retained as well.
    outputs[0].grad = None
    loss.backward()
    return task, float(loss.detach()), outputs[0].grad


# --- the file and the logs --------------------------------------------------------------------------


def test_the_file_says_what_it_is(whole, ldm_file, weather):
    header = load(whole).header
    assert (header.kind, header.label) == ("ldm_pde", "LDM_PDE (tiny)")
    said = header.provenance
    assert said["parents"]["ldm"]["sha256"] == load(ldm_file).file_hash
    assert "unet" in said["parents"]["ldm"]["parents"]["vae"]["parents"]
    assert said["config"]["physics"]["flux"]["share"] == 0.3
    assert set(said["physics"]) == {
        "physics_flux",
        "gradient_diffusion",
        "gradient_flux",
        "lambda_flux",
        "smoothing",
    }
    (downscaler,), unreadable = find_downscalers(whole.parent)
    assert unreadable == []
    assert downscaler.obstacles(weather.contents, weather.domain) == []


def test_gradient_norms_and_weights_are_logged_every_round(whole):
    for entry in history(whole):
        assert entry["gradient_diffusion"] > 0
        assert entry["gradient_flux"] > 0
        assert entry["physics_flux"] > 0
        expected = 0.3 * entry["gradient_diffusion"] / entry["gradient_flux"]
        assert entry["lambda_flux"] == pytest.approx(expected, rel=1e-5)
    header = (whole.parent / "logs" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    for name in ("gradient_diffusion", "gradient_flux", "lambda_flux", "physics_flux"):
        assert name in header.split(",")


def test_the_share_is_that_of_the_gradient_at_the_output(weather, ldm_file):
    plain = a_step(small.pde_config("physics.flux={weight: 0, cell: 2}"), weather, ldm_file)[2]
    for share in (0.3, 2.0):
        settings = small.pde_config(f"physics.flux={{share: {share}, cell: 2}}")
        gradient = a_step(settings, weather, ldm_file)[2]
        assert float((gradient - plain).norm() / plain.norm()) == pytest.approx(share, rel=1e-3)


def test_a_weight_of_nothing_is_plain_fine_tuning(weather, ldm_file):
    plain = a_step(small.pde_config("physics.flux={weight: 0, cell: 2}"), weather, ldm_file)
    published = a_step(small.pde_config("physics.flux={weight: 1e-11, cell: 2}"), weather, ldm_file)
    assert published[1] == plain[1]
    torch.testing.assert_close(published[2], plain[2], rtol=1e-5, atol=0)
    heavy = a_step(small.pde_config("physics.flux={weight: 3, cell: 2}"), weather, ldm_file)
    flux = heavy[0]._physical_losses["flux"][0]
    assert heavy[1] == pytest.approx(plain[1] + 3 * flux, rel=1e-5)


# --- terms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flux",
    [
        "{formula: paper, cell: 2}",
        "{formula: centred, cell: 2}",
        "{formula: published_metric}",
        "{formula: published_training, cell: 2}",
        "{formula: flux_error, reference: coarse}",
        "{formula: flux_error, reference: truth}",
    ],
)
def test_every_formula_teaches_the_denoiser(weather, ldm_file, flux):
    settings = small.pde_config(f"physics.flux={flux[:-1]}, share: 0.5}}")
    plain = a_step(small.pde_config("physics.flux={weight: 0, cell: 2}"), weather, ldm_file)[2]
    task, loss, gradient = a_step(settings, weather, ldm_file)
    assert task.balance.norms["flux"] > 0
    assert np.isfinite(loss)
    assert float((gradient - plain).norm() / plain.norm()) == pytest.approx(0.5, rel=1e-3)


def test_companion_terms_with_winds(windy, tmp_path):
    store, parent = windy
    settings = small.pde_config(
        "physics.flux=null",
        "physics.energy={share: 0.1}",
        "physics.residual={share: 0.1}",
        "physics.divergence={share: 0.1}",
        "steps=2",
    )
    (entry,) = history(train_ldm_pde(settings, store.path, parent, tmp_path / "run"))
    for name in ("energy", "residual", "divergence"):
        assert entry[f"gradient_{name}"] > 0
        assert entry[f"lambda_{name}"] > 0


def test_noisy_samples_count_less_or_not_at_all(weather, ldm_file):
    def flux(*overrides):
        task, _, _ = a_step(small.pde_config(*overrides), weather, ldm_file)
        return task._physical_losses.get("flux", [0.0])[0]

    task, _, _ = a_step(small.pde_config(), weather, ldm_file)
    t, _ = task._draws(range(2), torch.Size([4, 4, 4]))
    whole = flux("physics.noise_weighting=none")
    lower, upper = sorted(t.tolist())
    one = flux("physics.noise_weighting=none", f"physics.largest_time={lower}")
    assert 0 < one < whole
    assert flux("physics.noise_weighting=none", f"physics.largest_time={upper}") == whole
    assert flux(f"physics.largest_time={lower - 1}") == 0
    signal = torch.from_numpy(task.diffusion.alpha_bar.copy())[[lower, upper]]
    assert flux() == pytest.approx(float(signal[0] * one + signal[1] * (whole - one)), rel=1e-5)


def test_terms_may_be_looked_at_now_and_then(weather, ldm_file, tmp_path, monkeypatch):
    seen = []
    losses = PhysicsTerms.losses
    monkeypatch.setattr(PhysicsTerms, "losses", lambda *given: seen.append(1) or losses(*given))
    settings = small.pde_config("physics.every=2")
    train_ldm_pde(settings, weather.path, ldm_file, tmp_path / "run")
    assert len(seen) == 2


# --- what learns ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trainable", "learns"),
    [
        ("[denoiser]", ("denoiser.",)),
        ("[denoiser.output_blocks, denoiser.middle_block]", ("denoiser.output_blocks", "denoiser.middle_")),
        ("[vae.decoder, vae.to_decoder]", ("vae.decoder.", "vae.to_decoder.")),
        (
            "[denoiser.output_blocks, denoiser.middle_block, vae.decoder]",
            ("denoiser.output_blocks", "denoiser.middle_", "vae.decoder."),
        ),
    ],
)
def test_only_the_named_parts_change(weather, ldm_file, tmp_path, trainable, learns):
    decoder = "vae" in trainable
    settings = small.pde_config(
        f"trainable={trainable}",
        "physics.flux={weight: 1, cell: 2}",
        "physics.reconstruction={weight: 1}" if decoder else "physics.reconstruction=null",
        "steps=2",
        "keep=last",
    )
    after = load(train_ldm_pde(settings, weather.path, ldm_file, tmp_path / "run")).tensors
    changed = {
        name for name, tensor in load(ldm_file).tensors.items() if not torch.equal(tensor, after[name])
    }
    assert all(name.startswith(learns) for name in changed)
    for part in learns:
        assert any(name.startswith(part) for name in changed), part


def test_the_reconstruction_holds_the_decoder(weather, ldm_file):
    task, _, gradient = a_step(
        small.pde_config(*DECODER, "physics.reconstruction={weight: 1}"), weather, ldm_file
    )
    assert gradient is None
    free, _, _ = a_step(small.pde_config(*DECODER, "physics.reconstruction={weight: 0}"), weather, ldm_file)
    tied = dict(task.model.vae.named_parameters())
    for name, parameter in free.model.vae.named_parameters():
        if name == "to_decoder.weight":
            assert not torch.equal(parameter.grad, tied[name].grad)
    assert task._physical_losses["reconstruction"][0] > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (DECODER, r"decoder, .* only physical terms would move.* set physics.reconstruction.weight: 1 is"),
        (("trainable=[denoiser.middle]",), "no part of the network; did you mean denoiser.middle_block"),
        (("trainable=[denoisr]",), "names denoisr, which is no part of the network; did you mean denoiser"),
        (("trainable=[unet]",), "trainable names unet, but latents are encoded once, before training"),
        (
            ("trainable=[denoiser, vae.encoder]", "physics.reconstruction={weight: 1}"),
            "names vae.encoder, but .* only vae.decoder and vae.to_decoder can learn",
        ),
        (
            ("trainable=[vae.decoder]", "physics.reconstruction={weight: 1}"),
            r"no gradient of which flux could have a share; give physics.flux.weight",
        ),
        (("physics.reconstruction={share: 1}",), "does not depend on the denoiser.*reconstruction.weight"),
        (("physics.divergence={weight: 1}",), "divergence needs the target u10; this model makes t2m"),
        (("physics.flux.cell=3",), "cells of 24 x 24 pixels, which do not fill windows of 32 x 32"),
        (("physics.flux.cell=1",), r"physics.flux.cell = 1\) does not fit windows of 32 x 32"),
        (("physics.flux={cell: 2}",), r"physics.flux = .*needs a weight .* or a share"),
        (("physics.flux={share: 1, weight: 1}",), "physics.flux = .*and not both"),
        (
            ("physics.flux={share: -1}",),
            "physics.flux.share = -1: Input should be greater than or equal to 0",
        ),
        (("physics.flux.formula=papr",), "physics.flux.formula = 'papr': Input should be .*'paper'"),
        (("physics.flux.shre=1",), r"Unknown key physics.flux.shre: did you mean share\?"),
        (("physics.flx.share=1",), r"Unknown key physics.flx: did you mean flux\?"),
        (("physics=null",), "physics = None:"),
        (("physics={}",), "physics = {}: physics needs a term"),
    ],
)
def test_what_can_not_be_is_one_sentence(weather, ldm_file, tmp_path, overrides, message):
    with pytest.raises((ConfigError, TrainError), match=message) as caught:
        train_ldm_pde(small.pde_config(*overrides), weather.path, ldm_file, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_parents_of_another_kind_are_refused(weather, vae_file, tmp_path):
    with pytest.raises(TrainError, match=r"holds a model of kind vae; .* of kind ldm_res or ldm_pde"):
        train_ldm_pde(small.pde_config(), weather.path, vae_file, tmp_path / "run")


# --- resuming, and from the first step --------------------------------------------------------------


def test_a_stopped_run_ends_with_the_same_weights(weather, ldm_file, whole, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(small.Killed):
        train_ldm_pde(small.pde_config(), weather.path, ldm_file, folder, progress=small.kill_at(3))
    path = train_ldm_pde(small.pde_config(), weather.path, ldm_file, folder)
    assert small.same_state(folder, whole.parent)
    assert small.same_file(path, whole)
    last = [{k: v for k, v in history(one)[-1].items() if k != "seconds"} for one in (path, whole)]
    assert last[0] == last[1]


def test_physical_terms_from_the_first_step(weather, vae_file, ldm_file, tmp_path):
    settings = small.ldm_config(
        "physics={flux: {share: 0.3, cell: 2}, energy: {weight: 1e-4}}", "sample_every=null", "steps=4"
    )
    path = train_ldm(settings, weather.path, vae_file, tmp_path / "run")
    header = load(path).header
    assert header.kind == "ldm_res"
    assert header.provenance["physics"]["lambda_energy"] == 1e-4
    assert all(entry["gradient_flux"] > 0 for entry in history(path))
    assert not small.same_file(path, ldm_file)
