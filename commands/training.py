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


def train_model(
    run: Callable[..., Path],
    kind: type[Any],
    config: str,
    changes: list[str] | None,
    store: Path,
    out_path: Path,
    fresh: bool,
    **start: Path | None,
) -> None:
    """Train one model with a config of its kind, follow the training and say where the model is."""
    from train.config import load_config

    settings = load_config(config, changes or [], kind)
    path = follow_training(
        lambda report: run(settings, store, out_dir=out_path, resume=not fresh, progress=report, **start),
        out_path,
    )
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
    from train.config import UNetTrainConfig
    from train.unet import train_unet as run

    train_model(run, UNetTrainConfig, config, set_, store, out_path, fresh)


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
    from train.config import GANTrainConfig
    from train.gan import train_gan as run

    train_model(run, GANTrainConfig, config, set_, store, out_path, fresh, unet=unet)


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
    from train.config import VAETrainConfig
    from train.vae import train_vae as run

    train_model(run, VAETrainConfig, config, set_, store, out_path, fresh, unet=unet)


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
    from train.config import LDMTrainConfig
    from train.ldm import train_ldm as run

    train_model(run, LDMTrainConfig, config, set_, store, out_path, fresh, vae=vae)


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
    from train.config import LDMPDETrainConfig
    from train.ldm_pde import train_ldm_pde as run

    train_model(run, LDMPDETrainConfig, config, set_, store, out_path, fresh, ldm=ldm)


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
