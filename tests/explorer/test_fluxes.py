"""Fluxes of what is shown: those of core over the region, and what a session does with them."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from core.domain import Domain
from core.metrics.flux import FluxError, FluxLoss, flux_error, flux_ratio_maps
from core.physics import VARIANTS as FORMULAS
from core.physics.audit import Scorer
from core.physics.flux_error import fit_smoothing
from core.regions import Window, whole_window
from explorer.address import from_query, to_query
from explorer.fluxes import (
    FLUX_ERROR,
    FLUX_ERROR_TRUTH,
    LOSS_UNITS,
    RESIZABLE,
    VARIANTS,
    cell_sizes,
    compute_fluxes,
)
from explorer.library import COARSE, QUADRATIC, TRUTH, Library
from explorer.results import Results
from explorer.session import Session
from explorer.style import DIVERGING
from explorer.views.flux import linear_part, ratio_bar, signed_log_palette
from tests.explorer.small_store import DOMAIN, HOURS, fields

BIG = Domain.regular("Big land", left=4e6, top=2.5e6, shape=(72, 64), spacing=2000.0, ratio=2)
HOUR = np.datetime64("2021-03-16T12", "ns")


def store(domain: Domain, fine: np.ndarray, coarse: np.ndarray, *, truth: bool = True) -> SimpleNamespace:
    """What fluxes need of an open store whose every hour is the same."""
    groups = {COARSE: coarse, TRUTH: fine}

    def read(group: str, hour: np.datetime64, names: list[str]) -> dict[str, SimpleNamespace]:
        return {names[0]: SimpleNamespace(values=groups[group][None])}

    contents = SimpleNamespace(targets=("t2m",) if truth else ())
    held = SimpleNamespace(hours=HOURS, contents=contents)
    return SimpleNamespace(domain=domain, store=held, identity=("path", "fingerprint"), read=read)


def celsius(kelvin: np.ndarray) -> np.ndarray:
    return kelvin.astype("f4") - np.float32(273.15)


def random_fields(domain: Domain, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, coarse field and a model's field [K]."""
    draw = np.random.default_rng(seed).standard_normal
    truth = (285 + draw(domain.fine.shape).cumsum(0).cumsum(1) / 10).astype("f4")
    (height, width), ratio = domain.coarse.shape, domain.fine.shape[0] // domain.coarse.shape[0]
    coarse = truth.reshape(height, ratio, width, ratio).mean((1, 3))
    return truth, coarse, (truth + draw(truth.shape)).astype("f4")


def on_grid(values: np.ndarray, domain: Domain = DOMAIN) -> xr.DataArray:
    grid = domain.fine if values.shape == domain.fine.shape else domain.coarse
    return xr.DataArray(values, {"y": grid.y, "x": grid.x}, ("y", "x"))


def compute(domain: Domain, variant: str = "paper", cells: int = 0, window: Window | None = None, **options):
    truth, coarse, model = random_fields(domain)
    given = [(COARSE, "Coarse input", celsius(coarse)), (TRUTH, "Truth", celsius(truth))]
    given.append(("model", "Model", celsius(model)))
    if options.get("truth") is False:
        del given[1]
    opened = store(domain, truth, coarse, **options)
    window = window or whole_window(domain)
    return list(compute_fluxes(given, HOUR, opened, window, variant, cells, Results(10**8)))


@pytest.fixture(autouse=True)
def few_hours_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fit takes most of the time, and its result is that of core whatever it is given."""
    monkeypatch.setattr("explorer.fluxes.HOURS_TO_FIT", 2)


def started(library: Library, **state: object) -> Session:
    session = Session(library, **state)
    session.start()
    return session


# ---------------------------------------------------------------- computing


def test_names_and_units_are_those_of_core():
    assert list(VARIANTS) == list(FORMULAS)
    written = {"km2": "km²", "km": "km", "1": "pixels"}
    assert {name: written[FluxLoss(variant=name).units_for("K")] for name in FORMULAS} == LOSS_UNITS
    assert [n for n, f in FORMULAS.items() if f.cells.unit == "coarse_pixels"] == list(RESIZABLE)


@pytest.mark.parametrize("variant", ["paper", "published_metric", "centred"])
def test_maps_and_losses_are_those_of_core(variant: str):
    truth, coarse, model = random_fields(DOMAIN)
    shown = compute(DOMAIN, variant)[-1]
    known = flux_ratio_maps(on_grid(model), on_grid(coarse), variant=variant)
    np.testing.assert_array_equal(shown.get("model").values, known["fine"].values)
    np.testing.assert_array_equal(shown.get(COARSE).values, known["coarse"].values)
    assert [one.key for one in shown.maps] == [COARSE, TRUTH, "model"]
    row = next(row for row in shown.rows if row.key == "model")
    for name in ("paper", "published_metric", "centred"):
        loss = FluxLoss(variant=name)(on_grid(model), on_grid(coarse))
        assert row.losses[name] == pytest.approx(float(loss), rel=1e-12)
    assert row.losses[FLUX_ERROR_TRUTH] == pytest.approx(float(flux_error(on_grid(model), on_grid(truth))))
    error = FluxError(smoothing=shown.constants.smoothing)(on_grid(model), on_grid(coarse))
    assert row.losses[FLUX_ERROR] == pytest.approx(float(error))


def test_published_training_is_that_of_the_audit():
    """Standardised temperature, and the largest piece that 8 x 8 cells cover."""
    _, coarse, model = random_fields(BIG)
    shown = compute(BIG, "published_training")[-1]
    assert shown.constants.mean == pytest.approx(coarse.mean(), rel=1e-6)
    assert shown.constants.deviation == pytest.approx(coarse.std(), rel=1e-5)
    scorer = Scorer((2.0, 2.0), 0.0, shown.constants.mean, shown.constants.deviation)
    pair = [torch.from_numpy(f.astype("f8"))[None] for f in (model, coarse)]
    row = next(row for row in shown.rows if row.key == "model")
    known = float(scorer.score("published_training", *pair, 2))
    assert row.losses["published_training"] == pytest.approx(known, rel=1e-6)
    assert shown.get("model").values.shape == (8, 8)
    assert "its last 4 rows and 0 columns" in shown.remark


def test_linear_field_has_the_ratio_computed_by_hand():
    """T = b x: only the sides count, 14 pixels each of T differing by 15 steps, over 60 boundary pixels."""
    x = 280 + 0.25 * np.arange(48) * np.ones((64, 1))
    coarse = x.reshape(8, 8, 6, 8).mean((1, 3))
    given = [(COARSE, "Coarse input", celsius(coarse)), (TRUTH, "Truth", celsius(x))]
    opened = store(DOMAIN, x, coarse)
    shown = list(compute_fluxes(given, HOUR, opened, whole_window(DOMAIN), "paper", 0, Results(10**8)))[-1]
    np.testing.assert_allclose(shown.get(TRUTH).values, np.full((4, 3), 14 * 15 * 2 / 60), rtol=1e-4)
    # Cells of 2 x 2 coarse pixels have no sides in the paper's boundary.
    np.testing.assert_allclose(shown.get(COARSE).values, 0, atol=1e-9)
    assert shown.rows[0].losses["paper"] == pytest.approx(49, rel=1e-3)
    assert shown.rows[0].losses[FLUX_ERROR_TRUTH] == 0
    assert shown.extent == DOMAIN.fine.extent


def test_cells_of_another_size_are_those_of_the_maps_and_their_loss_alone():
    _, coarse, model = random_fields(DOMAIN)
    own, wide = compute(DOMAIN, "paper")[-1], compute(DOMAIN, "paper", cells=3)[-1]
    assert wide.get("model").values.shape == (2, 2)
    known = flux_ratio_maps(on_grid(model), on_grid(coarse), cells=3)
    np.testing.assert_array_equal(wide.get("model").values, known["fine"].values)
    assert wide.remark == "The last 16 rows and 0 columns of fine pixels are in no whole cell."
    assert "16 rows and 0 columns" in known.attrs["left_out"]
    left, right, _, top = DOMAIN.fine.extent
    assert wide.extent == (left, right, top - 96e3, top)
    (one, other) = (next(row for row in shown.rows if row.key == "model") for shown in (own, wide))
    assert one.losses["paper"] != other.losses["paper"]
    assert one.losses["centred"] == other.losses["centred"]


def test_variants_with_cells_of_their_own_ignore_a_size():
    assert compute(DOMAIN, "published_metric", cells=3)[-1].cells == 0


def test_cells_that_do_not_fit_are_a_sentence():
    shown = compute(DOMAIN, "published_training")[-1]
    assert shown.maps == ()
    assert "Supergrid cells of 8 x 6 fine pixels are not made of whole coarse pixels" in shown.problem
    assert "published_training" not in shown.rows[0].losses
    assert np.isfinite(shown.rows[0].losses["paper"])
    assert "No supergrid cell" in compute(DOMAIN, "paper", cells=24)[-1].problem


def test_sizes_on_offer_fit_the_region():
    assert cell_sizes(DOMAIN, whole_window(DOMAIN)) == [2, 3, 4, 6]
    left, _, _, top = DOMAIN.fine.extent
    assert cell_sizes(DOMAIN, Window("c", "Corner", left, left + 64e3, top - 64e3, top)) == [2, 3, 4]


def test_a_region_has_fluxes_of_its_window():
    _, coarse, model = random_fields(DOMAIN)
    left, _, _, top = DOMAIN.fine.extent
    window = Window("corner", "Corner", left, left + 64e3, top - 64e3, top)
    shown = compute(DOMAIN, "centred", window=window)[-1]
    cut = [on_grid(f).isel(y=slice(n), x=slice(n)) for f, n in ((model, 32), (coarse, 4))]
    known = flux_ratio_maps(*cut, variant="centred")
    np.testing.assert_array_equal(shown.get("model").values, known["fine"].values)


def test_smoothing_is_fitted_once_and_maps_do_not_wait_for_it():
    truth, coarse, _ = random_fields(DOMAIN)
    first, second, last = compute(DOMAIN)
    assert len(first.maps) == 3
    assert list(first.rows[0].losses) == ["paper"]
    assert first.pending == (FLUX_ERROR_TRUTH, FLUX_ERROR, *list(VARIANTS)[1:])
    assert second.constants.smoothing is None
    assert second.pending == (FLUX_ERROR,)
    assert last.pending == ()
    pair = [torch.from_numpy(f)[None] for f in (truth, coarse)]
    assert last.constants.smoothing == fit_smoothing([pair], spacing=(2.0, 2.0))
    assert last.constants.fitted
    results, opened = Results(10**8), store(DOMAIN, truth, coarse)
    given = [(COARSE, "Coarse input", celsius(coarse)), (TRUTH, "Truth", celsius(truth))]
    for expected in (3, 2):
        found = list(compute_fluxes(given, HOUR, opened, whole_window(DOMAIN), "paper", 0, results))
        assert len(found) == expected


def test_without_truth_there_is_no_smoothing_and_no_error_against_the_truth():
    shown = compute(DOMAIN, truth=False)[-1]
    assert (shown.constants.smoothing, shown.constants.fitted) == (0, False)
    assert FLUX_ERROR_TRUTH not in shown.rows[0].losses
    assert shown.reasons[FLUX_ERROR_TRUTH] == "This store has no fine truth."
    assert np.isfinite(shown.rows[0].losses[FLUX_ERROR])


def test_hours_with_gaps_are_not_fitted_to():
    truth, coarse, _ = random_fields(DOMAIN)
    gappy = np.where(np.arange(48) < 3, np.nan, truth).astype("f4")
    given = [(COARSE, "Coarse input", celsius(coarse)), (TRUTH, "Truth", celsius(gappy))]
    opened = store(DOMAIN, gappy, coarse)
    shown = list(compute_fluxes(given, HOUR, opened, whole_window(DOMAIN), "paper", 0, Results(10**6)))[-1]
    assert (shown.constants.smoothing, shown.constants.fitted) == (0, False)
    assert np.isnan(shown.get(TRUTH).values).any()
    assert np.isfinite(shown.rows[0].losses["paper"])


def test_the_coarse_field_alone_asks_for_a_downscaler():
    _, coarse, _ = random_fields(DOMAIN)
    given = [(COARSE, "Coarse input", celsius(coarse))]
    opened = store(DOMAIN, coarse, coarse, truth=False)
    shown = list(compute_fluxes(given, HOUR, opened, whole_window(DOMAIN), "paper", 0, Results(10**6)))[-1]
    assert "Tick a downscaler" in shown.problem


def test_ratios_are_computed_once_per_content(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def counted(fine: xr.DataArray, coarse: xr.DataArray, **options: object) -> xr.Dataset:
        calls.append(options["variant"])
        return flux_ratio_maps(fine, coarse, **options)

    monkeypatch.setattr("core.metrics.flux.flux_ratio_maps", counted)
    truth, coarse, _ = random_fields(BIG)
    results, opened = Results(10**8), store(BIG, truth, coarse)
    given = [(COARSE, "Coarse input", celsius(coarse)), (TRUTH, "Truth", celsius(truth))]
    for variant in VARIANTS:
        list(compute_fluxes(given, HOUR, opened, whole_window(BIG), variant, 0, results))
    assert sorted(calls) == sorted(VARIANTS)


# ---------------------------------------------------------------- the session


def test_session_maps_the_ratio_of_every_field_shown(library: Library):
    session = started(library, view="flux")
    shown = session.fluxes
    assert [one.key for one in shown.maps] == [COARSE, TRUTH, QUADRATIC, "lapse_rate"]
    fine, coarse = fields(12)
    known = flux_ratio_maps(on_grid(fine), on_grid(coarse))
    np.testing.assert_allclose(shown.get(TRUTH).values, known["fine"].values, rtol=1e-6)
    assert shown.constants.fitted
    assert session.spectra is None


def test_fluxes_follow_hour_models_variant_cells_and_region(library: Library):
    session = started(library, view="flux")
    before = session.fluxes
    session.step(1)
    assert session.fluxes.hour == session.snapshot.hour != before.hour
    session.models = [QUADRATIC]
    assert [row.key for row in session.fluxes.rows] == [TRUTH, QUADRATIC]
    session.variant = "centred"
    assert session.fluxes.variant == "centred"
    assert not np.array_equal(session.fluxes.get(TRUTH).values, before.get(TRUTH).values)
    session.cells = 3
    assert session.fluxes.get(TRUTH).values.shape == (2, 2)


def test_fluxes_are_those_of_temperature_only(library: Library):
    session = started(library, view="flux", variable="wind")
    assert session.fluxes is None
    session.variable = "t2m"
    assert session.fluxes is not None


def test_variant_and_cells_are_in_the_address(library: Library):
    session = started(library, view="flux", variant="centred", cells=4)
    assert "variant=centred&cells=4" in to_query(session)
    again = started(library, **from_query(to_query(session)))
    assert (again.variant, again.cells, again.fluxes.cells) == ("centred", 4, 4)


@pytest.mark.parametrize("query", ["variant=mine", "cells=many", "cells=-3", "cells=2.5", "variant="])
def test_nonsense_falls_back(library: Library, query: str):
    session = started(library, **from_query(f"?view=flux&{query}"))
    assert (session.variant, session.cells) == ("paper", 0)
    assert session.fluxes.maps


def test_colours_are_logarithmic_and_equal_in_both_signs():
    palette = signed_log_palette(1000, 10, 2001)
    place = {colour: i for i, colour in enumerate(DIVERGING)}
    at = [place[colour] for colour in palette]
    assert at == sorted(at)
    assert (at[0], at[-1]) == (0, len(DIVERGING) - 1)
    middle = (len(DIVERGING) - 1) / 2
    assert at[1000] == pytest.approx(middle, abs=1)
    # asinh(100 / 10) / asinh(1000 / 10) = 2.998 / 5.298
    assert at[1100] - middle == pytest.approx(middle * 0.566, abs=1)
    assert middle - at[900] == pytest.approx(middle * 0.566, abs=1)


def test_the_linear_part_is_that_of_the_field_with_the_least_values():
    rough, smooth = np.array([-3.0, 5.0, 4.0]), np.array([np.nan, -400.0, 300.0])
    assert linear_part([smooth, rough], 1000) == 4
    assert linear_part([np.full(3, np.nan)], 1000) == 1
    assert linear_part([np.full(3, 900.0)], 1000) == 500


def test_the_bar_has_powers_of_ten_where_the_colours_have_them():
    bar = ratio_bar(2000, 15, "km")
    assert re.findall(r">(−?\d+)</span>", bar) == ["0", "1000", "100", "−1000", "−100"]
    # 50 (1 + asinh(100 / 15) / asinh(2000 / 15)) = 50 (1 + 2.596 / 5.586)
    assert "bottom:73.2" in bar


def test_a_store_that_is_being_written_has_new_constants_with_more_hours():
    truth, coarse, _ = random_fields(DOMAIN)
    given = [(COARSE, "Coarse input", celsius(coarse)), (TRUTH, "Truth", celsius(truth))]
    opened, results = store(DOMAIN, truth, coarse), Results(10**8)
    whole = opened.read

    def read(group: str, hour: np.datetime64, names: list[str]) -> dict[str, SimpleNamespace]:
        found = whole(group, hour, names)
        if hour == HOURS[0]:  # an hour with a gap, to which nothing can be fitted
            found[names[0]].values = np.where(
                np.arange(found[names[0]].values.shape[-1]) < 3, np.nan, found[names[0]].values
            )
        return found

    opened.read = read
    means = set()
    for count, fitted in ((1, False), (2, True)):
        opened.store.hours = HOURS[:count]
        shown = list(compute_fluxes(given, HOUR, opened, whole_window(DOMAIN), "paper", 0, results))[-1]
        assert shown.constants.fitted == fitted
        means.add(shown.constants.mean)
    assert len(means) == 2
