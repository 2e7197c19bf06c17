"""Pictures of a validation hour after every round, in the logs of a run and for TensorBoard."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from core.variables import VARIABLES
from train.run_folder import replacing
from train.scene import Scene

PICTURES = "pictures"
INCHES = (11.0, 4.7)
DPI = 100
PERCENTILES = (0.5, 99.5)
"""Of the truth, between which the colours lie."""
ZERO_CELSIUS = 273.15


def draw_scene(scene: Scene, steps: int) -> NDArray[np.uint8]:
    """The three fields side by side in one colour scale, (height, width, 3); temperatures in degrees Celsius.

    ``steps`` is how many the model has been trained for.
    """
    variable = VARIABLES[scene.target]
    kelvin = variable.units == "K"
    zero, units = (ZERO_CELSIUS, "°C") if kelvin else (0.0, variable.units)
    low, high = (np.percentile(scene.truth, PERCENTILES) - zero).tolist()
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    panels = (
        (scene.given, scene.given_title),
        (scene.truth, "Truth"),
        (scene.made, scene.made_title),
    )
    for axis, (field, title) in zip(axes, panels, strict=True):
        image = axis.imshow(field - zero, cmap="turbo", vmin=low, vmax=high)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    figure.colorbar(image, ax=axes, shrink=0.85, label=f"{scene.target} [{units}]", extend="both")
    hour = np.datetime_as_string(scene.hour, unit="h").replace("T", " ")
    figure.suptitle(
        f"{variable.long_name}, {hour} UTC, step {steps}: RMSE {scene.rmse:.3g} {variable.units}", fontsize=11
    )
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of 256 colours: a byte for each pixel at the most, whatever the weather."""
    file = io.BytesIO()
    Image.fromarray(pixels).quantize(256).save(file, format="png", optimize=True)
    return file.getvalue()


class Pictures(Callback):
    """Draws the scene that a validation has left, if it has left one.

    Files are ``pictures/step-000500.png`` in the folder of the CSV log; a TensorBoard log gets the same image
    under the name "pictures".
    """

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        scene, pl_module.scene = pl_module.scene, None
        # All processes have to ask for it together, or they wait for each other for ever.
        logs = trainer.log_dir
        if scene is None or not trainer.is_global_zero or logs is None:
            return
        steps = pl_module.steps_done
        pixels = draw_scene(scene, steps)
        folder = Path(logs) / PICTURES
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"step-{steps:06d}.png") as temporary:
            temporary.write_bytes(as_png(pixels))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(PICTURES, pixels, steps, dataformats="HWC")
