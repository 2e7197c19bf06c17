"""The nature run: hours of synthetic, physically based weather over a real map.

A small numerical model on the fine grid, driven by prescribed travelling pressure systems, and a coarse
model that sees the same weather through smoother mountains and its own errors. It stands in for data too
large to ship: a demonstration and a test bed, and it says so in every store ("synthetic").

Weather comes in episodes of one ISO week (Monday 00 UTC to Sunday 23 UTC), each with its own spin-up: any
week can be made alone and comes out the same, whatever else is made.
"""

from core.data.nature_run.config import NatureRunConfig
from core.data.nature_run.run import NatureRunError, episodes, simulate
from core.data.nature_run.write import write_nature_run

__all__ = ["NatureRunConfig", "NatureRunError", "episodes", "simulate", "write_nature_run"]
