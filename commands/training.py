"""Training of models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from commands.console import err, say

train = typer.Typer(help="Train models.", no_args_is_help=True)
ConfigOption = Annotated[str, typer.Option(help="Name of a shipped config, or a YAML file.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Change one value: key=value.")]
RunFolder = Annotated[Path, typer.Option("--out", help="Folder of the run.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Do not continue an interrupted run.")]
TrainStore = Annotated[Path, typer.Argument(help="Store with fine truth.")]


def follow_training(run: Callable[[Any], Any], out_path: Path) -> Any:
    """Show the progress of a training run, which is called with the report to send it to."""
    from train.progress import terminal_progress

    try:
        with terminal_progress(err) as progress:
            return run(progress)
    except KeyboardInterrupt:
        say(f"Stopped. The same command continues the run in {out_path}.", err)
        raise typer.Exit(130) from None


def run_training(run: Callable[[Any], Path], out_path: Path) -> None:
    """Follow the training of one model and say where it is."""
    path = follow_training(run, out_path)
    say(f"Wrote {path}. See it with `tramontana explore --checkpoints` and its folder.")


@train.command("unet")
def train_unet(
    store: TrainStore,
    config: ConfigOption = "unet-demo",
    set_: SetOption = None,
    out_path: RunFolder = Path("runs/unet"),
    fresh: FreshOption = False,
) -> None:
    """Train a UNet; the same command continues a run that was stopped."""
    from train.config import load_config
    from train.unet import train_unet as run

    settings = load_config(config, set_ or [])
    run_training(lambda report: run(settings, store, out_path, resume=not fresh, progress=report), out_path)


@train.command("gan")
def train_gan(
    store: TrainStore,
    unet: Annotated[Path | None, typer.Option(help="UNet to start from; by default from nothing.")] = None,
    config: ConfigOption = "gan-demo",
    set_: SetOption = None,
    out_path: RunFolder = Path("runs/gan"),
    fresh: FreshOption = False,
) -> None:
    """Train a UNet against a discriminator; the same command continues a run that was stopped."""
    from train.config import GANTrainConfig, load_config
    from train.gan import train_gan as run

    settings = load_config(config, set_ or [], GANTrainConfig)
    run_training(
        lambda report: run(settings, store, out_path, unet=unet, resume=not fresh, progress=report), out_path
    )


@train.command("vae")
def train_vae(
    store: TrainStore,
    unet: Annotated[Path, typer.Option(help="UNet whose residuals it learns.")],
    config: ConfigOption = "vae-demo",
    set_: SetOption = None,
    out_path: RunFolder = Path("runs/vae"),
    fresh: FreshOption = False,
) -> None:
    """Train a VAE on the residuals of a UNet; the same command continues a run that was stopped."""
    from train.config import VAETrainConfig, load_config
    from train.vae import train_vae as run

    settings = load_config(config, set_ or [], VAETrainConfig)
    run_training(
        lambda report: run(settings, store, unet, out_path, resume=not fresh, progress=report), out_path
    )


@train.command("ldm")
def train_ldm(
    store: TrainStore,
    vae: Annotated[Path, typer.Option(help="VAE in whose latents it works; the file holds its UNet.")],
    config: ConfigOption = "ldm-demo",
    set_: SetOption = None,
    out_path: RunFolder = Path("runs/ldm"),
    fresh: FreshOption = False,
) -> None:
    """Train latent diffusion (LDM_res); the same command continues a run that was stopped."""
    from train.config import LDMTrainConfig, load_config
    from train.ldm import train_ldm as run

    settings = load_config(config, set_ or [], LDMTrainConfig)
    run_training(
        lambda report: run(settings, store, vae, out_path, resume=not fresh, progress=report), out_path
    )


@train.command("ldm-pde")
def train_ldm_pde(
    store: TrainStore,
    ldm: Annotated[Path, typer.Option(help="Latent diffusion model to fine-tune.")],
    config: ConfigOption = "ldm-pde-demo",
    set_: SetOption = None,
    out_path: RunFolder = Path("runs/ldm-pde"),
    fresh: FreshOption = False,
) -> None:
    """Fine-tune latent diffusion with the PDE loss (LDM_PDE); the same command continues a stopped run."""
    from train.config import LDMPDETrainConfig, load_config
    from train.ldm_pde import train_ldm_pde as run

    settings = load_config(config, set_ or [], LDMPDETrainConfig)
    run_training(
        lambda report: run(settings, store, ldm, out_path, resume=not fresh, progress=report), out_path
    )


@train.command("zoo")
def train_zoo(
    store: TrainStore,
    config: Annotated[str, typer.Option(help="Size of all models: tiny, demo or published.")] = "demo",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change one value of a stage, as in ldm.steps=100, or of all: key=value."),
    ] = None,
    out_path: Annotated[Path, typer.Option("--out", help="Folder of all runs.")] = Path("runs/zoo"),
    fresh: FreshOption = False,
) -> None:
    """Train UNet, GAN, VAE, LDM_res and LDM_PDE; the same command continues what was stopped."""
    from train.zoo import train_zoo as run

    zoo = follow_training(
        lambda report: run(config, store, out_path, overrides=set_ or [], resume=not fresh, progress=report),
        out_path,
    )
    say(f"Wrote {zoo.models}. See them with: tramontana explore {store} --checkpoints {zoo.models}")
