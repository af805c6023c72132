"""The error that ends a command with one sentence."""


class SetupError(Exception):
    """Why the environment cannot be used, in one sentence for the user."""
