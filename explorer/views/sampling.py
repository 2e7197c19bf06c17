"""The controls of sampling: how many members, how they are drawn, and how far they are."""

from __future__ import annotations

from typing import Any

import panel as pn
import panel_material_ui as pmui

from explorer.jobs import CANCELLED, FAILED, MOST_SEED, SAMPLERS, WAITING
from explorer.session import Session
from explorer.snapshot import show_hour
from explorer.style import block, text

READ_ONLY = "This page is read-only: it shows members that were sampled before, and samples no others."
INNER = {"sizing_mode": "stretch_width", "margin": (4, 16)}


class SamplingControls(pn.viewable.Viewer):
    """Shown while a generative model is ticked."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self._following = False
        settings = session.library.settings
        most_members, most_steps = settings.most_members, settings.most_steps
        self.generator = pmui.Select(
            label="Model", size="small", description="The generative model that Sample and Ensemble are about.",
            **INNER,
        )  # fmt: skip
        self.members = pmui.IntInput(
            label="Members", start=1, end=most_members, size="small", **_half(left=True),
            description=f"Fields of the ensemble, 1 to {most_members}. The maps show the first, member 0; press "
            "Sample for the others.",
        )  # fmt: skip
        self.seed = pmui.IntInput(
            label="Seed", start=0, end=MOST_SEED, size="small", **_half(left=False),
            description="Decides the noise that members are made of, a whole number. The same seed gives the same "
            "members.",
        )  # fmt: skip
        self.sampler = pmui.Select(
            label="Sampler", options={name: key for key, name in SAMPLERS.items()}, size="small",
            description="How noise becomes a field. DPM-Solver++ (2M) needs the fewest steps, DDIM is the "
            "published one, Heun asks the network twice per step.",
            **_half(left=True),
        )  # fmt: skip
        self.steps = pmui.IntInput(
            label="Steps", start=1, end=most_steps, size="small", **_half(left=False),
            description=f"Steps of the sampler, 1 to {most_steps}. More take longer; the first dozen matter most.",
        )  # fmt: skip
        self.button = pmui.Button(label="Sample", variant="contained", size="small", **INNER)
        self.bar = pmui.LinearProgress(
            value=0, variant="determinate", sizing_mode="stretch_width", margin=(6, 16, 0, 16)
        )
        self.status = block(margin=(2, 16, 0, 16), min_height=34)
        self._layout = pn.Column(
            block("<div class='section'>Sampling</div>", margin=(14, 16, 2, 16)),
            self.generator,
            pn.Row(self.members, self.seed, sizing_mode="stretch_width", margin=0),
            pn.Row(self.sampler, self.steps, sizing_mode="stretch_width", margin=0),
            self.button, self.bar, self.status,
            sizing_mode="stretch_width", margin=0,
        )  # fmt: skip
        session.param.watch(
            self._update, ["choices", "models", "generator", "members", "seed", "sampler", "steps", "opened"]
        )
        session.param.watch(self._update_progress, ["progress", "snapshot", "members", "generator"])
        for name in ("generator", "members", "seed", "sampler", "steps"):
            getattr(self, name).param.watch(lambda event, name=name: self._choose(name, event.new), "value")
        self.button.on_click(lambda _: self._press())
        if settings.read_only:
            for widget in (self.seed, self.sampler, self.steps, self.button):
                widget.param.update(disabled=True, description=READ_ONLY)
        self._update()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def _update(self, *_: object) -> None:
        session = self.session
        following, self._following = self._following, True
        try:
            generators = session.generators
            self._layout.visible = bool(generators)
            self.generator.visible = len(generators) > 1
            self.generator.param.update(
                options={choice.label: choice.key for choice in generators},
                value=session.generating.key if generators else None,
            )
            for name in ("members", "seed", "sampler", "steps"):
                getattr(self, name).value = getattr(session, name)
        finally:
            self._following = following
        self._update_progress()

    def _choose(self, name: str, value: Any) -> None:
        if not self._following and value is not None:
            setattr(self.session, name, value)

    def _press(self) -> None:
        progress = self.session.progress
        if progress is not None and progress.active:
            self.session.cancel_sampling()
        else:
            self.session.sample()

    def _update_progress(self, *_: object) -> None:
        session, progress = self.session, self.session.progress
        active = progress is not None and progress.active
        many = f"{session.members} members" if session.members > 1 else "1 member"
        self.button.param.update(
            label="Cancel" if active else f"Sample {many}",
            color="default" if active else "primary",
            variant="outlined" if active else "contained",
            # It is the name of the button for a screen reader, so it begins with the label.
            description="Cancel: stop after the step at work; finished members are kept." if active
            else f"Sample {many}: {READ_ONLY}" if session.library.settings.read_only
            else f"Sample {many}: make those of this hour that are not there yet.",
        )  # fmt: skip
        self.bar.visible = active
        self.bar.value = round(100 * progress.share) if active else 0
        words = describe(session)
        read_only = session.library.settings.read_only
        failed = progress is not None and progress.state == FAILED and not read_only
        self.status.object = (
            f"<div class='{'failure' if failed else 'caption'}' aria-live='polite'>{text(words)}</div>"
        )


def describe(session: Session) -> str:
    """What is being sampled for this visitor and for how long, or what is there of the ensemble."""
    progress, choice = session.progress, session.generating
    if progress is not None and progress.active:
        parts = []
        piece = progress.piece
        if piece is not None and piece.hour != session.current:
            parts.append(show_hour(piece.hour, weekday=False))
        if progress.state == WAITING and progress.ahead:
            others = f"{progress.ahead} other visitors" if progress.ahead > 1 else "another visitor"
            return f"Waiting for the sampling of {others}."
        if progress.fields > 1:
            # A job may be of several hours.
            most = session.library.settings.most_members
            what = "member" if progress.fields <= most else "field"
            parts.append(f"{what} {min(len(progress.made) + 1, progress.fields)} of {progress.fields}")
        parts.append(f"step {progress.step} of {progress.steps}" if progress.steps else "preparing")
        if progress.left is not None:
            parts.append(f"{show_seconds(progress.left)} left")
        words = " · ".join(parts)
        return words[0].upper() + words[1:]
    if progress is not None and progress.state == FAILED and not session.library.settings.read_only:
        return progress.problem
    if choice is None:
        return ""
    ready = len(session.ready_members())
    stopped = "Stopped. " if progress is not None and progress.state == CANCELLED else ""
    if ready >= session.members:
        there = (
            f"All {ready} members of this hour are there." if ready > 1 else "Member 0 of this hour is there."
        )
        return there + (" See Ensemble." if ready > 1 else "")
    verb = "is" if ready == 1 else "are"
    why_not = f" {READ_ONLY}" if session.library.settings.read_only else ""
    return f"{stopped}{ready or 'None'} of {session.members} members of this hour {verb} there.{why_not}"


def show_seconds(seconds: float) -> str:
    """A time to wait, for people."""
    if seconds < 1:
        return "less than 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _half(*, left: bool) -> dict[str, Any]:
    return {
        "sizing_mode": "stretch_width",
        "margin": (4, 4, 4, 16) if left else (4, 16, 4, 4),
        "min_width": 60,
    }
