"""Training: one validated config and one entry function per stage."""
