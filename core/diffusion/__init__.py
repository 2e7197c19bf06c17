"""Diffusion: noise schedule, training loss, moving average, samplers and the noise of ensemble members."""
