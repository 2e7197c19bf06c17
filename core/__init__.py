"""Data, models, diffusion, physics and metrics of Tramontana; no screen and no command line."""

__version__ = "0.1.0"
