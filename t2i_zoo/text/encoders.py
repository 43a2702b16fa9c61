"""Text encoders from a plain specification, as written in a config."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from pkgutil import resolve_name
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.text.features import TextEncoder

#: import paths, since an encoder is imported only when it is built
ENCODERS = {
    "char_cnn_rnn": "t2i_zoo.text.char_cnn_rnn:CharCNNRNNEncoder",
    "hashing": "t2i_zoo.text.hashing:HashingEncoder",
    "none": "t2i_zoo.text.none:NoText",
    "precomputed": "t2i_zoo.text.precomputed:PrecomputedEncoder",
    "rnn": "t2i_zoo.text.rnn:RNNEncoder",
    "skip_thought": "t2i_zoo.text.skip_thought:SkipThoughtEncoder",
    "transformers": "t2i_zoo.text.transformers_encoder:TransformersEncoder",
}


def build_text_encoder(spec: str | dict[str, Any]) -> TextEncoder:
    """Build a text encoder.

    Args:
        spec: the name of a kind (``"hashing"``) or a dict with ``kind`` and the arguments of that encoder
            (``{"kind": "transformers", "model": "path/to/folder", "pooling": "mean"}``).

    Returns:
        The encoder, on the CPU, in eval mode.

    Raises:
        T2IError: the kind or an argument is unknown, or a required argument is missing.
    """
    arguments = {"kind": spec} if isinstance(spec, str) else dict(spec)
    kind = arguments.pop("kind", None)
    if kind not in ENCODERS:
        raise T2IError(
            f"Text encoder kind {kind!r} is unknown{_did_you_mean(str(kind), ENCODERS)}: set text_encoder to "
            f"{_listed(ENCODERS)}, or to a dict with such a kind and its arguments."
        )
    encoder: type[TextEncoder] = resolve_name(ENCODERS[kind])
    allowed = inspect.signature(encoder).parameters
    for name in arguments:
        if name not in allowed:
            raise T2IError(
                f"Text encoder {kind!r} has no argument {name!r}{_did_you_mean(name, allowed)}: "
                f"text_encoder takes {_listed(allowed)} for this kind."
            )
    for name, parameter in allowed.items():
        if parameter.default is inspect.Parameter.empty and name not in arguments:
            raise T2IError(
                f"Text encoder {kind!r} needs the argument {name!r}: write text_encoder as "
                f"{{kind: {kind}, {name}: ...}}, where {_listed(allowed)} are allowed."
            )
    return encoder(**arguments)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
