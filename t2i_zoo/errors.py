"""The errors that users see: single sentences that say what was found, what was expected and what to change."""

from __future__ import annotations

LOST = (  #: said by a process whose fellow was killed
    "another process of this run has ended or cannot be reached, so this one ends too: repeat the command with "
    "--ckpt_path last, which goes on from the last checkpoint"
)


class T2IError(Exception):
    """A mistake that the user can mend; the command line prints its sentence without a traceback and exits with 2."""
