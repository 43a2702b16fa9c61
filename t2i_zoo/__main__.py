"""Entry point of the ``t2i-zoo`` command: quick commands do without torch, and every mistake is one sentence."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from t2i_zoo.errors import LOST, T2IError
from t2i_zoo.version import __version__

TRAINING = {
    "fit": "train a model from a config, resume it (--ckpt_path last) or fine-tune it (--model.weights FILE)",
    "validate": "losses on held-out images",
    "test": "losses on the test split",
    "predict": "one generated image for each image of the test split, as files",
}
VERBS = {
    "pipeline": "train a config and all runs that it builds on, or resume them",
    "sample": "images for your own captions, or paths between two",
    "attention": "an image, and which of its regions attended to which words",
    "prepare": "pack a data set and encode its captions ahead of training",
    "evaluate": "scores of a checkpoint by a named protocol",
    "leaderboard": "all runs side by side: scores, and images of the same captions and noise",
    "report": "one run as one page: curves, samples over time, scores, config and speed",
    "study": "train variants with equal budgets, and score each by the same protocols",
    "app": "a page in the browser to draw with",
    "export": "the generator of a run as one small file, to draw with and to share",
    "push": "a generator with its card to the Hugging Face hub, or as a folder",
    "convert": "official weight files to files of the zoo, and back",
    "benchmark": "speed of the training step, beside a bare loop of the same networks",
    "list": "models, packaged configs and data sources",
}


def overview() -> str:
    """The text of ``t2i-zoo --help``."""
    lines = ["usage: t2i-zoo COMMAND [options]    (t2i-zoo COMMAND --help lists the options)", ""]
    lines += [f"  {name:<11} {about}" for name, about in {**TRAINING, **VERBS}.items()]
    lines += [
        "",
        "  t2i-zoo fit --config gancls_synthetic      trains on built-in data in about two minutes",
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
    shown = "--traceback" in words
    try:
        return run([word for word in words if word != "--traceback"])
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        sentence = None if shown else _sentence(error)
        if sentence is None:  # asked for, or a bug of ours
            raise
    # several processes make the same mistake; one says so, or the next where that one was lost
    if os.environ.get("LOCAL_RANK", "0") in ("0", "1" if sentence == LOST else "0"):
        print(f"error: {sentence}", file=sys.stderr)
    return 2


def _sentence(error: Exception) -> str | None:
    """A mistake of the user in one sentence; None for anything else."""
    from t2i_zoo.mistakes import own_error

    if (own := own_error(error)) is not None:
        return str(own)
    if type(error).__name__.startswith("Dist") or (isinstance(error, RuntimeError) and "gloo/transport" in str(error)):
        return LOST
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        place = f" of {error.filename}" if error.filename else ""
        return f"the disk{place} is full: make room, and repeat the command, for fit with --ckpt_path last"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError | MemoryError):
        return f"{type(error).__name__}: {error}"
    # the Trainer looks at some of its options only when it starts
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    options = "trainer/connectors" in last.replace(os.sep, "/") or type(error).__name__ == "MisconfigurationException"
    return " ".join(str(error).split()) if options else None


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
        _train(verb, rest)
    elif verb in VERBS:
        _call(verb, rest)
    elif verb.startswith("--print_completion"):
        from t2i_zoo.overview import completion

        completion(words, TRAINING, list(VERBS))
    else:
        near = difflib.get_close_matches(verb, [*TRAINING, *VERBS], 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join([*TRAINING, *VERBS])}"
        raise T2IError(f"found no command {verb!r}: {hint}")
    return 0


def _train(verb: str, words: list[str]) -> None:
    """Answer help and mistyped flags at once; everything else needs Lightning."""
    from t2i_zoo.overview import check_flags, training_help

    if asked := [place for place, word in enumerate(words) if word in ("-h", "--help")]:
        print(training_help(verb, TRAINING[verb], words, everything=words[asked[0] + 1 :][:1] == ["all"]))
        return
    check_flags(words)
    from t2i_zoo.cli import main as train

    train([verb, *words])


def _call(verb: str, words: list[str]) -> None:
    """Parse the words for the typed function of a command; what it imports is not needed before they are right."""
    from t2i_zoo.overview import check_flags, command_help, function_name, sketch_of
    from t2i_zoo.parsing import arguments, command_parser, hands_on

    sketch = sketch_of(verb)
    if {"-h", "--help"} & set(words):
        print(command_help(command_parser(sketch), verb, words))
        return
    given, named = arguments(sketch, words)
    if hands_on(sketch):
        check_flags(named["words"], steps=verb == "pipeline")
    getattr(importlib.import_module(f"t2i_zoo.commands.{verb}"), function_name(verb))(*given, **named)


if __name__ == "__main__":
    sys.exit(main())
