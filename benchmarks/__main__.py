"""Print the table of ratios; the exit status is 1 where a required ratio is missed or results differ.

``python -m benchmarks`` runs all, ``python -m benchmarks interpolation`` one group. Sampling at published
width takes some twenty minutes on two cores; ``--quick`` measures two steps of it, scales them up and says
so.
"""

from __future__ import annotations

import math
import sys

from benchmarks import flux, interpolation, networks, sampling, spectra
from benchmarks.comparison import Outcome, measure


def _line(outcome: Outcome) -> tuple[str, ...]:
    comparison = outcome.comparison
    return (
        comparison.what,
        comparison.reference_name,
        f"{outcome.ratio:.2f} ({outcome.spread[0]:.2f}-{outcome.spread[1]:.2f})",
        f"{comparison.required:g}" if comparison.required is not None else "-",
        f"{1e3 * outcome.ours_seconds:.3g}",
        "-" if outcome.memory is None else "{:.2f} / {:.2f}".format(*outcome.memory),
        f"{outcome.difference:.1e} (at most {comparison.tolerance:g})"
        if math.isfinite(comparison.tolerance)
        else "not comparable",
        "yes" if outcome.passed else "NO",
    )


GROUPS = {"flux": flux, "interpolation": interpolation, "networks": networks, "spectra": spectra}
SAMPLING = "sampling"


def main() -> int:
    """Measure every comparison of the groups named on the command line (all by default), one row each."""
    words = sys.argv[1:]
    quick = "--quick" in words
    known = [*GROUPS, SAMPLING]
    names = [word for word in words if word != "--quick"] or known
    if strangers := set(names) - set(known):
        print(f"There is no group {', '.join(sorted(strangers))}; choose from {', '.join(known)}.")
        return 2
    head = (
        "what",
        "reference",
        "times faster (range)",
        "required",
        "ours, processor ms",
        "peak memory, ours / reference [GiB]",
        "largest difference",
        "holds",
    )
    outcomes: list[Outcome] = []
    for name in names:
        if name == SAMPLING:
            outcomes += sampling.outcomes(quick=quick)
        else:
            outcomes += [measure(row) for row in GROUPS[name].comparisons()]
    rows = [head, *map(_line, outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    for row in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
