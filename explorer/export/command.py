"""The command line that makes the fields of the page again."""

from __future__ import annotations

import shlex

import numpy as np

from explorer.export.scene import ExportError, Scene
from explorer.library import Library


def make_command(scene: Scene, library: Library) -> list[str]:
    """The words of ``tramontana downscale`` that give the fields of all downscalers of a scene.

    With the hour, members, seed, sampler and steps of the page the fields are the same, to rounding. Raises
    ExportError where no downscaler is shown.
    """
    models = []
    held = {output.key for output in scene.opened.outputs}
    for key in scene.models:
        if key in held:
            continue  # the store has its fields; no command makes them
        downscaler = library.downscaler(scene.opened, key)
        if downscaler is None:
            raise ExportError(f"The downscaler {key!r} is not there any more.")
        models.append(str(getattr(downscaler, "path", key)))
    if not models:
        raise ExportError("No downscaler is shown; the coarse input and the truth are in the store itself.")
    hour = str(np.datetime_as_string(scene.hour, unit="m"))
    words = ["tramontana", "downscale", str(scene.opened.path)]
    for model in models:
        words += ["--model", model]
    words += ["--hours", hour, hour]
    if scene.members:
        last = max(piece.member for pieces in scene.members.values() for piece in pieces)
        words += ["--members", str(last + 1), "--seed", str(scene.draw.seed)]
        words += ["--steps", str(scene.draw.steps), "--sampler", scene.draw.sampler]
    return [*words, "--out", f"{scene.store_and_hour}.nc"]


def in_lines(words: list[str]) -> str:
    """A command as a shell reads it, an option per line."""
    quoted = [shlex.quote(word) for word in words]
    lines = [" ".join(quoted[:3])]
    for original, word in zip(words[3:], quoted[3:], strict=True):
        if original.startswith("--"):
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return " \\\n  ".join(lines)
