"""The one error that users see: a single sentence that says what was found, what was expected and what to change."""


class T2IError(Exception):
    """A mistake that the user can mend; the command line prints its sentence without a traceback and exits with 2."""
