"""Ratios against references, measured in one run: ``python -m benchmarks``."""
