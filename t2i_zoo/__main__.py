"""Entry of the ``t2i-zoo`` command: quick verbs answer without torch, and every mistake becomes one sentence."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from t2i_zoo.errors import T2IError
from t2i_zoo.version import __version__

TRAINING = {
    "fit": "train a model from a config, resume it (--ckpt_path last) or fine-tune it (--model.weights FILE)",
    "validate": "losses on held-out pictures",
    "test": "losses on the test split",
    "predict": "one picture for each caption of the test split, as files",
}
VERBS = {
    "pipeline": "train a config and all runs that it builds on, or go on with them",
    "sample": "pictures of your own sentences, or the path between two",
    "attention": "a picture, and which of its places looked at which words",
    "prepare": "pack a data set and encode its captions ahead of training",
    "evaluate": "numbers of a checkpoint by a named protocol",
    "leaderboard": "all runs side by side: numbers, and pictures of the same captions and noise",
    "export": "the generator of a run as one small file, to draw with and to share",
    "convert": "official weight files to ours, and back",
    "benchmark": "speed of the training step, beside a bare loop of the same networks",
    "list": "models, packaged configs and data sources",
}


def overview() -> str:
    """The text of ``t2i-zoo --help``."""
    lines = ["usage: t2i-zoo COMMAND [options]    (t2i-zoo COMMAND --help says more)", ""]
    lines += [f"  {name:<11} {about}" for name, about in {**TRAINING, **VERBS}.items()]
    lines += [
        "",
        "  t2i-zoo fit --config gancls_synthetic      trains on built-in data in under two minutes",
        "  --traceback                                shows where an error came from",
        f"\nt2i-zoo {__version__}",
    ]
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: the words after ``t2i-zoo``; by default those of the process.

    Returns:
        The exit code: 0, or 2 after a mistake that the printed sentence explains.
    """
    words = list(sys.argv[1:] if args is None else args)
    traceback = "--traceback" in words
    words = [word for word in words if word != "--traceback"]
    try:
        return run(words)
    except T2IError as error:
        if traceback:
            raise
        return _say(str(error))
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, MemoryError) as error:
        if traceback:
            raise
        if isinstance(error, OSError) and error.filename is not None and error.strerror:
            return _say(f"{error.filename}: {error.strerror}")
        return _say(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        sentence = None if traceback else _sentence(error)
        if sentence is None:  # a bug of ours, which shows itself
            raise
        return _say(sentence)


def _sentence(error: Exception) -> str | None:
    """A user's mistake that a library found: in the Trainer's options, or around an error of our own."""
    from t2i_zoo.mistakes import own_error

    if (own := own_error(error)) is not None:
        return str(own)
    options = "trainer/connectors" in str(getattr(_last_frame(error), "f_code", ""))
    return " ".join(str(error).split()) if options or type(error).__name__ == "MisconfigurationException" else None


def _last_frame(error: Exception) -> object:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place.tb_frame if place is not None else None


def _say(sentence: str) -> int:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # several processes make the same mistake; one says so
        print(f"error: {sentence}", file=sys.stderr)
    return 2


def run(words: list[str]) -> int:
    """Hand the words to the command that they name."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("--version", "-V"):
        print(__version__)
        return 0
    verb, rest = words[0], words[1:]
    if verb in TRAINING:
        from t2i_zoo.cli import main as train

        train([verb, *rest])
        return 0
    if verb in VERBS:
        module = importlib.import_module(f"t2i_zoo.commands.{verb}")
        module.main(rest)
        return 0
    near = difflib.get_close_matches(verb, [*TRAINING, *VERBS], 1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join([*TRAINING, *VERBS])}"
    raise T2IError(f"found no command {verb!r}: {hint}")


if __name__ == "__main__":
    sys.exit(main())
