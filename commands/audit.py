"""Flux formulations, put to the test."""

from __future__ import annotations

from pathlib import Path

from commands.console import progress_bar, say


def show_audit(path: Path, split: str, count: int, draws: int, ratio: int, csv: Path | None) -> None:
    """Print what the flux formulations make of fields of known quality."""
    import numpy as np
    import torch

    from core.data.pairs import averaged_pairs, read_temperature, store_pairs
    from core.data.samples import SampleError, split_hours
    from core.data.store import Store
    from core.physics.audit import audit, markdown
    from core.physics.flux_error import fit_smoothing
    from core.plural import counted

    def spread(length: int) -> np.ndarray:
        return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int))

    if path.is_dir():
        store = Store.open(path)
        hours = split_hours(store.hours, split)
        try:
            known = split_hours(store.hours, "train")
        except SampleError:  # there are no others to fit the smoothing to
            known = hours
        chosen, known = hours[spread(hours.size)], known[spread(known.size)]
        fine = store.domain.fine
        spacing = (fine.dy / 1e3, fine.dx / 1e3)
        pairs, fitted = store_pairs(store, chosen), list(store_pairs(store, known))
        total = chosen.size
        what = f"{counted(total, 'hour')} of the {split} split of {path}"
    else:
        field, spacing = read_temperature(path)
        field = field.isel(time=spread(field.sizes["time"]))
        pairs, fitted = averaged_pairs(field, ratio), list(averaged_pairs(field, ratio))
        total = field.sizes["time"]
        what = f"{total} hours of {path}, the coarse field is its average over {ratio} x {ratio} pixels"
    coarse = torch.cat([coarse.double() for _, coarse in fitted])
    with progress_bar("Audit") as progress:
        progress(0, total)
        smoothing = fit_smoothing(fitted, spacing=spacing)
        scores = audit(
            pairs,
            spacing=spacing,
            smoothing=smoothing,
            standard=(float(coarse.mean()), float(coarse.std()) or 1.0),
            seeds=draws,
            progress=lambda done: progress(done, total),
        )
    say(
        f"{what}; spacing {spacing[0]:.3g} x {spacing[1]:.3g} km; "
        f"smoothing of the coarse field {smoothing:g} coarse pixels (fitted).\n"
    )
    say(markdown(scores))
    if csv is not None:
        scores.to_dataframe().to_csv(csv)
