"""Any frozen Hugging Face text encoder: BERT, MiniLM, T5's encoder, the text tower of CLIP or SigLIP.

transformers is imported when an encoder is built.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from t2i_zoo.errors import T2IError
from t2i_zoo.text.features import EncoderWithWeights, TextFeatures, check_not_blank

Pooling = Literal["mean", "cls", "eos", "pooler"]

_PUNCTUATION = ".,;:!?\"'()"
_CHUNK = 64  # captions in one forward pass: 64 x 64 tokens fit beside a training run
# Entries that depend on where and by which version a folder was written, and do not change the features.
_VOLATILE = frozenset(
    "_name_or_path name_or_path transformers_version dtype torch_dtype is_local local_files_only".split()  # noqa: SIM905
)


class TransformersEncoder(EncoderWithWeights):
    """Frozen text model with one of four poolings; its features are not rescaled.

    Args:
        model: a local folder, or a name on the Hugging Face hub, which is downloaded once.
        pooling: how the last hidden states become the sentence embedding: their ``mean`` over real tokens, the first
            (``cls``), the last real one (``eos``, as in CLIP), or the model's own ``pooler`` output.
        max_words: the largest number of tokens of a caption, special tokens included; limited by the model.
        assets: files of ``assets()``; with them ``model`` is not opened, and a state dict brings the weights.

    Raises:
        T2IError: the model cannot be found or read, or lacks weights that the pooling needs.
    """

    def __init__(
        self, model: str, pooling: Pooling = "mean", max_words: int = 64, assets: dict[str, str] | None = None
    ) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise T2IError(
                f"Text encoder pooling is {pooling!r} and must be one of {', '.join(get_args(Pooling))}: "
                "change the pooling of text_encoder."
            )
        self.model = model
        self.pooling = pooling
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn and replaced: keep the random state
            self.tower, self.tokenizer, config = _load(model, pooling) if assets is None else _rebuild(assets)
        self.tower.float().requires_grad_(False)
        self.tokenizer.padding_side = "right"
        if self.tokenizer.pad_token is None:
            # GPT-like models have no padding token; the mask hides the one that replaces it.
            self.tokenizer.pad_token = self.tokenizer.eos_token
        # Saved before the first call: fast tokenizers write their last padding and length into the files.
        self._assets = dict(assets) if assets is not None else _text_files(config, self.tokenizer)
        # SigLIP was trained on captions padded to full length, without a mask, and pools at the last token.
        self._full_length = str(config.model_type).startswith("siglip")
        limits = [max_words, getattr(self.tower.config, "max_position_embeddings", None) or max_words]
        self.max_words = int(min(*limits, self.tokenizer.model_max_length))
        self.dim = self.word_dim = int(self.tower.config.hidden_size)
        self.eval()

    def encode(self, captions: Sequence[str], *, words: bool = False) -> TextFeatures:
        """Encode captions in float32, also under autocast, without gradients.

        Args:
            captions: B texts, none of them blank.
            words: also return the last hidden states, one for each token, special tokens included.

        Returns:
            sentence (B, dim), words (B, T, dim) and mask (B, T), where T is the longest caption of this call.

        Raises:
            T2IError: a caption is blank, or the model lacks the pooler that ``pooling`` asks for.
        """
        check_not_blank(captions)
        # Sorted by length, real captions need about a third less padding.
        order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
        return self._encode(order, _CHUNK, words, lambda chosen: self._read([captions[i] for i in chosen]))

    def _read(self, captions: list[str]) -> TextFeatures:
        device = next(self.tower.parameters()).device
        tokens = self.tokenizer(
            captions,
            padding="max_length" if self._full_length else True,
            truncation=True,
            max_length=self.max_words,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(device)
        mask = tokens["attention_mask"].bool()
        seen = None if self._full_length else tokens["attention_mask"]
        output = self.tower(input_ids=tokens["input_ids"], attention_mask=seen)
        hidden = output.last_hidden_state.float()
        if self.pooling == "mean":
            pooled = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        elif self.pooling == "cls":
            pooled = hidden[:, 0]
        elif self.pooling == "eos":
            pooled = hidden[torch.arange(len(hidden), device=device), mask.sum(1).clamp(min=1) - 1]
        else:
            pooled = getattr(output, "pooler_output", None)
            if pooled is None:
                raise T2IError(
                    f"Text encoder {self.model!r} has no pooler output, which pooling=pooler asks for: "
                    "set the pooling of text_encoder to mean, cls or eos."
                )
        return TextFeatures(pooled.float(), hidden, mask)

    def tokens(self, caption: str) -> list[str]:
        """The tokenizer's tokens of a caption, special ones included."""
        found = self.tokenizer([caption], truncation=True, max_length=self.max_words)["input_ids"][0]
        return [str(piece) for piece in self.tokenizer.convert_ids_to_tokens(found)]

    def unknown_words(self, caption: str) -> list[str]:
        """Words of the caption with the tokenizer's unknown token, which byte-level tokenizers never give."""
        words = [word for part in caption.split() if (word := part.strip(_PUNCTUATION))]
        unknown = self.tokenizer.unk_token_id
        if unknown is None or not words:
            return []
        ids = self.tokenizer(words, add_special_tokens=False)["input_ids"]
        return [word for word, row in zip(words, ids, strict=True) if unknown in row]

    def assets(self) -> dict[str, str]:
        """Configuration and tokenizer files, name to content, which replace ``model`` together with the state dict."""
        return dict(self._assets)

    def _identity(self) -> Iterator[bytes | memoryview]:
        yield f"{self.pooling} {self.max_words}".encode()
        for name, content in sorted(self._assets.items()):
            yield f"\0{name}\0{_lasting(name, content)}".encode()
        for name, tensor in sorted(self.tower.state_dict().items()):
            if "pooler." in name and self.pooling != "pooler":
                continue  # often not in the file, then random in each process, and not used here
            yield f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode()
            yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _lasting(name: str, content: str) -> str:
    """The content without the entries that change whenever it is saved."""
    if not name.endswith(".json"):
        return content
    entries = json.loads(content)
    if isinstance(entries, dict):
        drop = _VOLATILE | {"truncation", "padding"} if name == "tokenizer.json" else _VOLATILE
        entries = {key: value for key, value in entries.items() if key not in drop}
    return json.dumps(entries, sort_keys=True)


def _load(model: str, pooling: str) -> tuple[Any, Any, Any]:
    """Tower, tokenizer and configuration of a local folder or a hub name."""
    folder = Path(model).expanduser()
    source = str(folder) if folder.is_dir() else model
    try:
        config, tokenizer, options = _opened(source, local=folder.is_dir())
        whole, info = _factory(config).from_pretrained(
            source, config=config, weights_only=True, output_loading_info=True, **options
        )
    except Exception as error:  # transformers, huggingface_hub and their HTTP clients share no base class
        looks_local = model.startswith((".", "~")) or Path(model).is_absolute() or model.count("/") > 1
        sentence = " ".join(str(error).split()).split(". ")[0].rstrip(".")[:200]
        missing = looks_local and not folder.is_dir()
        reason = "there is no such folder" if missing else f"{type(error).__name__}: {sentence}"
        raise T2IError(
            f"Text encoder {model!r} cannot be loaded ({reason}): set --model.text_encoder.model to a local "
            "folder with config.json, tokenizer files and weights, or connect to the Hugging Face hub once "
            "(without HF_HUB_OFFLINE=1) so that it is downloaded."
        ) from error
    tower, prefix = _text_tower(whole)
    absent = [name for name in info["missing_keys"] if name.startswith(prefix)]
    if needed := [name for name in absent if pooling == "pooler" or "pooler." not in name]:
        raise T2IError(
            f"Text encoder {model!r} lacks {len(needed)} weights such as {min(needed)!r}, which would be "
            "random: choose another pooling or set --model.text_encoder.model to a complete model."
        )
    return tower, tokenizer, _smallest_config(tower, config)


def _rebuild(assets: dict[str, str]) -> tuple[Any, Any, Any]:
    """Tower with arbitrary weights, tokenizer and configuration from the files of ``assets()``."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in assets.items():
            (Path(folder) / Path(name).name).write_text(content, encoding="utf-8", newline="")
        config, tokenizer, options = _opened(folder, local=True)
    options.pop("local_files_only")
    return _text_tower(_factory(config).from_config(config, **options))[0], tokenizer, config


def _opened(source: str, local: bool) -> tuple[Any, Any, dict[str, Any]]:
    """Configuration and tokenizer, and the options for the model, which runs no code of its author."""
    from transformers import AutoConfig, AutoTokenizer

    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": local}
    config = AutoConfig.from_pretrained(source, **options)
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    dtype = "dtype" if hasattr(config, "dtype") else "torch_dtype"  # renamed in transformers 4.56
    return config, tokenizer, {**options, dtype: torch.float32}


def _factory(config: Any) -> Any:
    """The auto class of the encoder alone if transformers has one (T5), else of the whole model."""
    from transformers import AutoModel, AutoModelForTextEncoding

    known = type(config) in AutoModelForTextEncoding._model_mapping
    return AutoModelForTextEncoding if known else AutoModel


def _text_tower(whole: Any) -> tuple[Any, str]:
    """The part that reads text, and the prefix of its weights' names in the whole model."""
    if isinstance(getattr(whole, "text_model", None), nn.Module):
        return whole.text_model, "text_model."
    if isinstance(getattr(whole, "decoder", None), nn.Module):  # such as BART
        return whole.encoder, "encoder."
    return whole, ""


def _smallest_config(tower: Any, config: Any) -> Any:
    """The tower's own configuration if it rebuilds the tower, so that the image half of CLIP is left out."""
    from transformers import AutoModel

    own = tower.config
    classes: Any = AutoModel._model_mapping
    known = type(own) is not type(config) and type(own) in classes
    return own if known and classes[type(own)] is type(tower) else config


def _text_files(config: Any, tokenizer: Any) -> dict[str, str]:
    """The files that ``_rebuild`` reads."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        config.save_pretrained(folder)
        files = {}
        for path in sorted(Path(folder).iterdir()):
            try:
                files[path.name] = path.read_bytes().decode("utf-8")
            except (UnicodeDecodeError, IsADirectoryError):
                continue  # a sentencepiece model beside tokenizer.json, which has the same content
        for name in {"config.json", "tokenizer_config.json"} & files.keys():
            entries = json.loads(files[name])
            kept = {key: value for key, value in entries.items() if key.lstrip("_") != "name_or_path"}
            files[name] = json.dumps(kept, indent=2)  # keep the user's paths out of checkpoints
    return files
