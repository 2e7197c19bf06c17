"""The commands of the command line; each is a thin call of a function that can also be called from Python.

Modules of the packages are imported inside the commands, so that `tramontana --help` answers at once.
"""
