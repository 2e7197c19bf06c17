"""Scores: one signature for all, `metric(forecast, reference, *, reduce=...)`."""
