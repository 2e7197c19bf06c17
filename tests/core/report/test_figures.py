"""Every figure: what is drawn, in which units and colours, and when it is left out."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from core.metrics.deterministic import rmse
from core.report import boxes, cycles, distributions, ensembles, fluxes, maps, panels, power, snapshots
from core.report.contents import PALETTE, Absent, models_of
from core.report.figures import figures_of
from core.report.style import png

NEEDS = {
    "scores": boxes.PANELS,
    "slopes": ("spectral_slope_loss",),
    "spectra": ("ralsd",),
    "bias": ("bias_map",),
    "rmse": ("rmse_map",),
    "snapshot-1": ("snapshot",),
    "snapshot-1-zoom": ("snapshot",),
    "snapshot-1-ensemble": ("snapshot_mean",),
    "distributions": ("histogram",),
    "ranks": ("rank_histogram",),
    "spread": ("spread_of_bin", "reliability_forecast"),
    "spread-maps": ("spread_map",),
    "fluxes": (*fluxes.FORMULATIONS, "summary"),
    "cycles": ("rmse",),
}


def kinds(evaluation):
    return {kind.key: kind for kind in figures_of(evaluation, "t2m")}


def test_there_is_a_figure_of_every_kind_and_snapshot(evaluation):
    assert set(kinds(evaluation)) == set(NEEDS) | {"snapshot-2", "snapshot-2-zoom", "snapshot-2-ensemble"}


@pytest.mark.parametrize("key", NEEDS)
def test_figures_are_left_out_where_their_variable_is_missing_or_empty(evaluation, key):
    names = NEEDS[key]
    gone = evaluation.drop_vars(names)
    for name in names:
        evaluation[name] = evaluation[name] * np.nan
    for bare in (gone, evaluation):
        kind = kinds(bare)[key]
        with pytest.raises(Absent) as caught:
            kind.draw(bare, "t2m")
        assert str(caught.value.args[0]).endswith(".")


@pytest.mark.parametrize("key", NEEDS)
def test_captions_say_what_hours_and_synthetic(evaluation, key):
    caption = kinds(evaluation)[key].caption(evaluation, "t2m")
    assert caption.endswith("The data is synthetic.")
    assert "temperature" in caption
    assert "24 hours" in caption or "UTC" in caption
    evaluation.attrs["synthetic"] = 0
    assert "ynthetic" not in kinds(evaluation)[key].caption(evaluation, "t2m")


def test_boxes_hold_the_quartiles_of_the_hours(evaluation):
    figure = boxes.score_boxes(evaluation, "t2m")
    axis = figure.axes[0]
    assert [axis.get_title(loc="left") for axis in figure.axes[:5]] == [
        "RMSE [K]",
        "R²",
        "Bias [K]",
        "Pearson r",
        "Flux error, against coarse",
    ]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "Quadratic\ninterpolation",
        "UNet",
        "LDM_res",
    ]
    values = evaluation["rmse"].sel(model="unet", target="t2m").values
    edges = axis.patches[1].get_path().vertices[:, 0]
    assert edges.min() == pytest.approx(np.quantile(values, 0.25))
    assert edges.max() == pytest.approx(np.quantile(values, 0.75))
    assert to_hex(axis.patches[1].get_facecolor()) == PALETTE[1]


def test_slopes_show_the_truth_first(evaluation):
    figure = boxes.slope_boxes(evaluation, "t2m")
    assert figure.axes[0].get_yticklabels()[0].get_text() == "truth"
    without = boxes.slope_boxes(evaluation.drop_vars("spectral_slope"), "t2m")
    assert len(without.axes) == 1


def test_spectra_are_means_of_the_logarithm_and_fall_to_the_right(evaluation):
    figure = power.spectra(evaluation, "t2m")
    axis = figure.axes[0]
    left, right = axis.get_xlim()
    assert left > right
    assert axis.get_xscale() == axis.get_yscale() == "log"
    truth = evaluation["ralsd"].sel(source="truth", target="t2m")
    black = next(line for line in axis.lines if line.get_color() == "black")
    np.testing.assert_allclose(black.get_ydata(), np.exp(np.log(truth).mean("time")))
    np.testing.assert_allclose(black.get_xdata(), truth["wavelength"] / 1e3)


def test_power_is_shown_at_the_wavelengths_that_the_field_has(evaluation):
    density = evaluation["ralsd"].sel(target="t2m")
    shown = power.powers(density.sel(wavelength=density["wavelength"] < 30e3))
    assert list(shown) == [20e3, 9e3, 5e3]


def test_bias_maps_share_a_scale_centred_on_zero(evaluation):
    figure = maps.bias_maps(evaluation, "t2m")
    images = [axis.images[0] for axis in figure.axes if axis.images]
    assert len(images) == 3
    assert len({image.norm for image in images}) == 1
    assert images[0].norm.vmin == -images[0].norm.vmax
    np.testing.assert_array_equal(
        images[1].get_array(), evaluation["bias_map"].sel(model="unet", target="t2m")
    )


def test_maps_lie_where_their_coordinates_say(evaluation):
    figure = maps.rmse_maps(evaluation, "t2m")
    x, y = evaluation["x"].values / 1e3, evaluation["y"].values / 1e3
    image = figure.axes[0].images[0]
    assert image.get_extent() == pytest.approx([x[0] - 1, x[-1] + 1, y[-1] - 1, y[0] + 1])
    assert image.origin == "upper"
    upside_down = evaluation.isel(y=slice(None, None, -1))
    assert maps.rmse_maps(upside_down, "t2m").axes[0].images[0].origin == "lower"


def test_the_coast_is_where_half_is_land(evaluation):
    evaluation["land_fraction"][:] = 0
    evaluation["land_fraction"].loc[{"x": evaluation["x"][32:]}] = 1
    (line,) = panels.coastline(evaluation)
    np.testing.assert_allclose(line[:, 0], evaluation["x"].values[31:33].mean())
    assert panels.coastline(evaluation.drop_vars("land_fraction")) == []


def test_snapshots_are_in_degrees_celsius_with_the_error_of_what_is_shown(evaluation):
    figure = snapshots.snapshots(evaluation, "t2m", hour=1)
    axes = [axis for axis in figure.axes if axis.images]
    assert len(axes) == 5
    fields = evaluation["snapshot"].sel(target="t2m").isel(snapshot_time=1)
    truth = fields.sel(source="truth")
    np.testing.assert_allclose(axes[1].images[0].get_array(), truth - 273.15, atol=1e-4)
    assert len({axis.images[0].norm for axis in axes}) == 1
    error = float(rmse(fields.sel(source="unet"), truth))
    assert [text.get_text() for text in axes[3].texts] == [f"RMSE {error:.3f} K"]
    assert any("°C" in axis.get_ylabel() for axis in figure.axes)


def test_a_zoom_is_clipped_to_the_domain_and_left_out_elsewhere(evaluation):
    figure = snapshots.snapshots(evaluation, "t2m", zoom=True)
    left, right, bottom, top = snapshots.TYRRHENIAN
    axis = figure.axes[0]
    x, y = evaluation["x"].values, evaluation["y"].values
    assert axis.get_xlim() == pytest.approx((max(left, x[0] - 1e3) / 1e3, min(right, x[-1] + 1e3) / 1e3))
    assert axis.get_ylim() == pytest.approx((max(bottom, y[-1] - 1e3) / 1e3, min(top, y[0] + 1e3) / 1e3))
    away = evaluation.assign_coords(x=evaluation["x"] + 1e6)
    with pytest.raises(Absent, match="Tyrrhenian"):
        snapshots.snapshots(away, "t2m", zoom=True)


def test_ensemble_snapshots_show_mean_spread_and_error(evaluation):
    figure = snapshots.ensemble_snapshots(evaluation, "t2m")
    images = [axis.images[0] for axis in figure.axes if axis.images]
    mean = evaluation["snapshot_mean"].sel(model="ldm_res", target="t2m").isel(snapshot_time=0)
    truth = evaluation["snapshot"].sel(source="truth", target="t2m").isel(snapshot_time=0)
    np.testing.assert_allclose(images[1].get_array(), mean - 273.15, atol=1e-4)
    np.testing.assert_allclose(images[3].get_array(), abs(mean - truth), atol=1e-4)
    assert images[2].norm is images[3].norm


def test_distributions_are_frequencies_and_their_ratio_to_the_truth(evaluation):
    figure = distributions.distributions(evaluation, "t2m")
    assert [axis.get_title(loc="left") for axis in figure.axes[:2]] == ["over sea", "over land"]
    sea = evaluation["histogram"].sel(surface="sea", target="t2m")
    unet = next(line for line in figure.axes[0].lines if line.get_color() == PALETTE[1])
    shown = np.nan_to_num(np.asarray(unet.get_ydata()))
    np.testing.assert_allclose(shown, sea.sel(source="unet"))
    np.testing.assert_allclose(unet.get_xdata(), evaluation["bin_value"].sel(target="t2m") - 273.15)
    ratio = next(line for line in figure.axes[2].lines if line.get_color() == PALETTE[1])
    both = (sea.sel(source="unet").values > 0) & (sea.sel(source="truth").values > 0)
    expected = (sea.sel(source="unet") / sea.sel(source="truth")).values[both]
    np.testing.assert_allclose(np.asarray(ratio.get_ydata())[both], expected)


def test_rank_histograms_compare_with_the_flat_line(evaluation):
    figure = ensembles.rank_histograms(evaluation, "t2m")
    (axis,) = figure.axes
    frequency = evaluation["rank_histogram"].sel(model="ldm_res", target="t2m").values
    np.testing.assert_allclose([bar.get_height() for bar in axis.patches], frequency)
    assert axis.lines[0].get_ydata()[0] == pytest.approx(1 / 5)


def test_either_half_of_the_ensemble_curves_may_be_missing(evaluation):
    assert len(ensembles.spread_and_reliability(evaluation, "t2m").axes) == 2
    half = evaluation.drop_vars("reliability_forecast")
    (axis,) = ensembles.spread_and_reliability(half, "t2m").axes
    assert axis.get_ylabel() == "RMSE of the ensemble mean [K]"
    assert "frost" not in ensembles.spread_and_reliability_caption(half, "t2m")


def test_fluxes_say_which_model_each_formulation_prefers(evaluation):
    caption = fluxes.flux_table_caption(evaluation, "t2m")
    assert "Only the flux error passes the project's audit" in caption
    assert "LDM_res by flux error against coarse" in caption
    assert "Quadratic interpolation by ratio loss paper" in caption
    bold = [
        t.get_text() for t in fluxes.flux_table(evaluation, "t2m").axes[0].texts if t.get_weight() == "bold"
    ]
    assert len(bold) == 6


def test_cycles_are_means_by_hour_and_by_month(evaluation):
    figure = cycles.cycles(evaluation, "t2m")
    values = evaluation["rmse"].sel(model="unet", target="t2m")
    by_hour, by_month = (axis.lines[1].get_ydata() for axis in figure.axes[:2])
    assert by_hour[5] == pytest.approx(float(values.where(values["time"].dt.hour == 5).mean()))
    assert by_month[0] == pytest.approx(float(values.where(values["time"].dt.month == 1).mean()))
    some = evaluation.sel(time=evaluation["time"].dt.month == 4)
    assert np.isnan(cycles.cycles(some, "t2m").axes[1].lines[1].get_ydata()[0])
    assert "1 of the 12 months" in cycles.cycles_caption(some, "t2m")


def test_hostile_labels_are_drawn_as_they_are_written(evaluation):
    evaluation = evaluation.assign_coords(label=("model", [r"$\frac{", "_hidden", "x" * 400]))
    figure = cycles.cycles(evaluation, "t2m")
    png(figure, dpi=40)
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 3
    assert len(models_of(evaluation)[2].label) <= 60


def test_pictures_are_the_same_every_time_and_cut_to_what_is_drawn(evaluation):
    first, second = (png(maps.bias_maps(evaluation, "t2m"), dpi=50) for _ in range(2))
    assert first == second
    with Image.open(io.BytesIO(first)) as image:
        picture = np.asarray(image.convert("L"))
    dark = np.argwhere(picture < 250)
    assert dark.min() <= 10
    assert picture.shape[0] - 1 - dark[:, 0].max() <= 10


def test_colours_of_maps_survive_the_reduction(evaluation):
    with Image.open(io.BytesIO(png(maps.bias_maps(evaluation, "t2m")))) as image:
        assert image.mode == "P"
        colours = {colour for _, colour in image.convert("RGB").getcolors(1000)}
    assert (255, 255, 255) in colours
    assert len(colours) > 100


def test_paper_stays_white_beside_a_colour_map_that_starts_with_white(evaluation):
    with Image.open(io.BytesIO(png(maps.rmse_maps(evaluation, "t2m")))) as image:
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
