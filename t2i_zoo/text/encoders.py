"""From a plain specification, as written in a config, to a text encoder."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.text.features import TextEncoder


def _char_cnn_rnn() -> type[TextEncoder]:
    from t2i_zoo.text.char_cnn_rnn import CharCNNRNNEncoder

    return CharCNNRNNEncoder


def _hashing() -> type[TextEncoder]:
    from t2i_zoo.text.hashing import HashingEncoder

    return HashingEncoder


def _none() -> type[TextEncoder]:
    from t2i_zoo.text.none import NoText

    return NoText


def _precomputed() -> type[TextEncoder]:
    from t2i_zoo.text.precomputed import PrecomputedEncoder

    return PrecomputedEncoder


def _rnn() -> type[TextEncoder]:
    from t2i_zoo.text.rnn import RNNEncoder

    return RNNEncoder


def _skip_thought() -> type[TextEncoder]:
    from t2i_zoo.text.skip_thought import SkipThoughtEncoder

    return SkipThoughtEncoder


def _transformers() -> type[TextEncoder]:
    from t2i_zoo.text.transformers_encoder import TransformersEncoder

    return TransformersEncoder


ENCODERS: dict[str, Callable[[], type[TextEncoder]]] = {
    "char_cnn_rnn": _char_cnn_rnn,
    "hashing": _hashing,
    "none": _none,
    "precomputed": _precomputed,
    "rnn": _rnn,
    "skip_thought": _skip_thought,
    "transformers": _transformers,
}


def build_text_encoder(spec: str | dict[str, Any]) -> TextEncoder:
    """Build a text encoder.

    Args:
        spec: the name of a kind (``"hashing"``) or a dict with ``kind`` and the arguments of that encoder
            (``{"kind": "transformers", "model": "path/to/folder", "pooling": "mean"}``).

    Returns:
        The encoder, on the CPU, in eval mode.

    Raises:
        T2IError: where the kind or an argument is unknown, or a required argument is missing.
    """
    arguments = {"kind": spec} if isinstance(spec, str) else dict(spec)
    kind = arguments.pop("kind", None)
    if kind not in ENCODERS:
        raise T2IError(
            f"Text encoder kind {kind!r} is unknown{_did_you_mean(str(kind), ENCODERS)}: set text_encoder to "
            f"{_listed(ENCODERS)}, or to a dict with such a kind and its arguments."
        )
    encoder = ENCODERS[kind]()
    parameters = list(inspect.signature(encoder).parameters.values())
    allowed = [parameter.name for parameter in parameters]
    unknown = [name for name in arguments if name not in allowed]
    if unknown:
        raise T2IError(
            f"Text encoder {kind!r} has no argument {unknown[0]!r}{_did_you_mean(unknown[0], allowed)}: "
            f"text_encoder takes {_listed(allowed)} for this kind."
        )
    required = [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
    missing = [name for name in required if name not in arguments]
    if missing:
        raise T2IError(
            f"Text encoder {kind!r} needs the argument {missing[0]!r}: write text_encoder as "
            f"{{kind: {kind}, {missing[0]}: ...}}, where {_listed(allowed)} are allowed."
        )
    return encoder(**arguments)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
