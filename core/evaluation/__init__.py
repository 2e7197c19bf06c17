"""Evaluation of downscalers against the fine truth: scores of every hour, maps, spectra, intervals.

``run`` goes through models and hours and keeps what it has on disk, ``field_scores`` says what is computed of
one hour, ``tally`` sums it, ``bootstrap`` gives confidence intervals, ``result`` puts everything into one
dataset.
"""
