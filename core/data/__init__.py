"""The store, what fills it, and what reads samples from it."""
