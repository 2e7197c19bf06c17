"""Physical terms beside the diffusion loss, on the temperature that a denoiser's output stands for.

Rosu et al., arXiv 2510.23866, add a loss on fluxes to the diffusion loss. Here it is taken of kelvins: the
estimate of the latent without noise is decoded, the UNet's mean is added, and the sum is brought to physical
units. How strongly a term counts is either given (its weight, lambda) or follows from the gradients: a share
of the norm that the diffusion loss has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from core.data.samples import Normalization
from core.domain import Domain
from core.physics.companions import divergence_loss, energy_loss, residual_loss
from core.physics.flux_error import CELL, fit_smoothing, flux_error
from core.physics.flux_ratio import VARIANTS, CellRule, flux_ratios
from core.physics.gradients import PhysicsError
from train.config import FLUX_ERROR, FluxTerm, PhysicsConfig
from train.run_folder import TrainError

HOURS_TO_FIT = 12
MEMORY = 0.9
"""Weight of the old average of gradient norms when a new one is measured."""


class Fields(NamedTuple):
    """What the terms are computed from, of N windows.

    Attributes
    ----------
    decoded : (N, T, H, W) decoded estimate of the residual, standardised
    output : the decoded output of the network, the same shape; None where no term asks for it
    mean : (N, T, H, W) the UNet's mean, standardised
    truth : (N, T, H, W), standardised
    coarse : (N, P, h, w) predictors, standardised
    rotation : (N, H, W) from the grid's east to true east [radian]; None where no term asks for it
    reconstructed : (N, T, H, W) decoded latent of the truth, standardised; None where no term asks for it
    """

    decoded: Tensor
    output: Tensor | None
    mean: Tensor
    truth: Tensor
    coarse: Tensor
    rotation: Tensor | None
    reconstructed: Tensor | None


class PhysicsTerms:
    """The terms of a config for a domain and the variables of a model.

    Parameters
    ----------
    crop : side of the training windows [fine pixels]
    smoothing : of the coarse field, for a flux error against it [coarse pixels]

    Raises
    ------
    TrainError
        where a term does not fit the variables, or the supergrid does not fit the windows.
    """

    def __init__(
        self,
        config: PhysicsConfig,
        normalization: Normalization,
        targets: tuple[str, ...],
        domain: Domain,
        crop: tuple[int, int],
        smoothing: float = 0.0,
    ) -> None:
        self.config = config
        self.normalization = normalization
        self.targets = targets
        self.spacing = (domain.fine.dy / 1e3, domain.fine.dx / 1e3)
        self.ratio = domain.ratio
        self.smoothing = smoothing
        needs = {
            "t2m": [name for name in ("flux", "energy", "residual") if name in config.terms],
            "u10": [name for name in ("divergence",) if name in config.terms],
        }
        needs["v10"] = needs["u10"]
        for target, terms in needs.items():
            if terms and target not in targets:
                raise TrainError(
                    f"The physical term {', '.join(terms)} needs the target {target}; this model makes "
                    f"{', '.join(targets)}."
                )
        self.cell: CellRule | None = None
        if config.flux is not None:
            self.cell = _cell_rule(config.flux, domain)
            _check_cells(config.flux, self.cell, crop, domain.ratio)

    @property
    def needs_output(self) -> bool:
        """Whether a term asks for the decoded network output."""
        flux = self.config.flux
        return (
            flux is not None
            and flux.formula != FLUX_ERROR
            and VARIANTS[flux.formula].tensor == "network_output"
        )

    def losses(self, fields: Fields) -> dict[str, Tensor]:
        """Every term's loss for every window, (N,) each."""
        kelvin = self._physical(fields.mean + fields.decoded)
        found: dict[str, Tensor] = {}
        if "t2m" in self.targets:
            channel = self.targets.index("t2m")
            own, truth = kelvin[:, channel], self._physical(fields.truth)[:, channel]
            coarse = self._coarse(fields.coarse)
        if self.config.flux is not None:
            found["flux"] = self._flux(fields, own, truth, coarse, channel)
        if self.config.energy is not None:
            found["energy"] = _each(energy_loss, own, coarse)
        if self.config.residual is not None:
            found["residual"] = _each(lambda o, c: residual_loss(o, c, spacing=self.spacing), own, coarse)
        if self.config.divergence is not None:
            assert fields.rotation is not None
            east, north = (kelvin[:, self.targets.index(name)] for name in ("u10", "v10"))
            metres = (self.spacing[0] * 1e3, self.spacing[1] * 1e3)
            found["divergence"] = _each(
                lambda e, n, r: divergence_loss(e, n, r[0], metres), east, north, fields.rotation
            )
        if self.config.reconstruction is not None:
            assert fields.reconstructed is not None
            error = fields.reconstructed - (fields.truth - fields.mean)
            found["reconstruction"] = error.abs().flatten(1).mean(1)
        return found

    def _flux(self, fields: Fields, own: Tensor, truth: Tensor, coarse: Tensor, channel: int) -> Tensor:
        flux = self.config.flux
        assert flux is not None
        reference = truth if flux.reference == "truth" else coarse
        if flux.formula == FLUX_ERROR:
            assert self.cell is not None
            assert self.cell.count is not None
            smoothing = self.smoothing if flux.reference == "coarse" else 0.0
            return flux_error(own, reference, spacing=self.spacing, cell=self.cell.count, smoothing=smoothing)
        if self.needs_output:
            assert fields.output is not None
            own = fields.output[:, channel]
            statistics = self.normalization.predictors["t2m"]
            reference = (
                fields.truth[:, channel]
                if flux.reference == "truth"
                else (coarse - statistics.mean) / statistics.std
            )
        return flux_ratios(own, reference, flux.formula, spacing=self.spacing, cells=self.cell).per_field

    def _physical(self, fields: Tensor) -> Tensor:
        return self.normalization.targets_from_tensor(fields, self.targets)

    def _coarse(self, coarse: Tensor) -> Tensor:
        """Coarse t2m [K], (N, h, w)."""
        names = list(self.normalization.predictors)
        statistics = self.normalization.predictors["t2m"]
        return coarse[:, names.index("t2m")] * statistics.std + statistics.mean


def _each(loss: object, *fields: Tensor) -> Tensor:
    """A loss that averages over fields, of each one alone."""
    assert callable(loss)
    return torch.stack([loss(*one) for one in zip(*(field.split(1) for field in fields), strict=True)])


def _cell_rule(flux: FluxTerm, domain: Domain) -> CellRule:
    """The supergrid's cells in pixels of the reference, or as the formula has them."""
    scale = domain.ratio if flux.reference == "truth" else 1
    if flux.formula == FLUX_ERROR:
        return CellRule(count=scale * (flux.cell or CELL))
    rule = VARIANTS[flux.formula].cells
    if rule.unit != "coarse_pixels":
        return rule if flux.cell is None else CellRule(count=scale * flux.cell)
    return CellRule(count=scale * (flux.cell or rule.count or domain.supergrid_cell))


def _check_cells(flux: FluxTerm, rule: CellRule, crop: tuple[int, int], ratio: int) -> None:
    """Raise TrainError where whole cells do not fill a training window."""
    scale = 1 if flux.reference == "truth" else ratio
    shape = (crop[0] // scale, crop[1] // scale)
    native = flux.formula == FLUX_ERROR or VARIANTS[flux.formula].coarse == "native"
    try:
        cells = rule.cells(shape, scale)
        if scale > 1 and native:
            cells.in_blocks(scale)
    except PhysicsError as error:
        given = "the formula's cells" if flux.cell is None else f"physics.flux.cell = {flux.cell}"
        raise TrainError(
            f"The supergrid of the flux loss ({flux.formula}, {given}) does not fit windows of {crop[0]} x "
            f"{crop[1]} fine pixels. {error}"
        ) from error
    if cells.left_out is not None:
        side = cells.height
        raise TrainError(
            f"The supergrid of the flux loss has cells of {cells.height} x {cells.width} pixels, which do "
            f"not fill windows of {crop[0]} x {crop[1]}. Set crop to a multiple of {side}, for example "
            f"{max(1, round(crop[0] / side)) * side}, or physics.flux.cell to a number of coarse pixels that "
            f"divides {crop[0] // ratio}."
        )


class Balance:
    """Weights of the terms, and the norms of their gradients at the network's output.

    A term with a share gets the weight that makes the norm of its gradient that share of the diffusion
    loss's; both norms are averaged over the steps.
    """

    def __init__(self, config: PhysicsConfig) -> None:
        self.terms = config.terms
        self.norms: dict[str, float] = {}

    def measure(self, norms: Mapping[str, float]) -> None:
        """Take the norms of one step in: "diffusion" and every term."""
        for name, norm in norms.items():
            before = self.norms.get(name)
            self.norms[name] = norm if before is None else MEMORY * before + (1 - MEMORY) * norm

    def weight(self, name: str) -> float:
        """lambda of a term."""
        term = self.terms[name]
        if term.weight is not None:
            return term.weight
        assert term.share is not None
        norm = self.norms[name]
        return term.share * self.norms["diffusion"] / norm if norm > 0 else 0.0

    def scores(self) -> dict[str, float]:
        """Norms and weights for the logs: ``gradient_<name>`` and ``lambda_<name>``."""
        return {f"gradient_{name}": norm for name, norm in self.norms.items()} | {
            f"lambda_{name}": self.weight(name) for name in self.terms if name in self.norms
        }


def gradient_norm(loss: Tensor | None, output: Tensor) -> float:
    """Norm of the gradient of ``loss`` with respect to ``output``; 0 where it does not depend on it."""
    if loss is None or not (loss.requires_grad and output.requires_grad):
        return 0.0
    (gradient,) = torch.autograd.grad(loss, output, retain_graph=True, allow_unused=True)
    return 0.0 if gradient is None else float(gradient.norm())


def fitted_smoothing(pairs: Iterable[tuple[Tensor, Tensor]], domain: Domain) -> float:
    """Width of the Gaussian between truth (N, H, W) and coarse field (N, h, w) [K], in coarse pixels."""
    return fit_smoothing(pairs, spacing=(domain.fine.dy / 1e3, domain.fine.dx / 1e3))
