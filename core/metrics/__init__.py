"""Metrics: one signature for all, `metric(forecast, reference, *, reduce=...)`; `registry` lists them."""
