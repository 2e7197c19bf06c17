"""The error of everything that reads data from elsewhere."""


class InputError(ValueError):
    """A file or address that can't be used; the message names it, the fault and the way out."""
