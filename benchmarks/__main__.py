"""Print the table of ratios; the exit status is 1 where a required ratio is missed or results differ.

``python -m benchmarks`` runs all, ``python -m benchmarks interpolation`` one group.
"""

from __future__ import annotations

import sys

from benchmarks import flux, interpolation, networks, spectra
from benchmarks.comparison import Outcome, measure


def _line(outcome: Outcome) -> tuple[str, ...]:
    comparison = outcome.comparison
    return (
        comparison.what,
        comparison.reference_name,
        f"{outcome.ratio:.2f} ({outcome.spread[0]:.2f}-{outcome.spread[1]:.2f})",
        f"{comparison.required:g}" if comparison.required is not None else "-",
        f"{1e3 * outcome.ours_seconds:.3g}",
        f"{outcome.difference:.1e} (at most {comparison.tolerance:g})",
        "yes" if outcome.passed else "NO",
    )


GROUPS = {"flux": flux, "interpolation": interpolation, "networks": networks, "spectra": spectra}


def main() -> int:
    """Measure every comparison of the groups named on the command line (all by default), one row each."""
    names = sys.argv[1:] or list(GROUPS)
    if strangers := set(names) - set(GROUPS):
        print(f"There is no group {', '.join(sorted(strangers))}; choose from {', '.join(GROUPS)}.")
        return 2
    head = (
        "what",
        "reference",
        "times faster (range)",
        "required",
        "ours, processor ms",
        "largest difference",
        "holds",
    )
    outcomes = [measure(row) for name in names for row in GROUPS[name].comparisons()]
    rows = [head, *map(_line, outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    for row in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
