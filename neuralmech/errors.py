"""Errors meant for people: one line that names the key or file, what is wrong, and the remedy."""


class UserError(ValueError):
    """Wrong usage, configuration or input file; the command line exits with code 2."""


class RunError(RuntimeError):
    """A run that could not be finished; the command line exits with code 1."""
