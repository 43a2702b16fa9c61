"""Any dual encoder of Hugging Face, such as CLIP or SigLIP; transformers is imported only when one is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.pictures import to_uint8


class TransformersDual(nn.Module):
    """Image and caption codes of a frozen dual encoder, each with the model's own preprocessing.

    Images are rounded to 8 bits first, as if they came from files. Captions longer than the model's limit are cut.

    Args:
        name: a local folder, or a name on the Hugging Face hub that is downloaded once.

    Raises:
        T2IError: if it cannot be found, or is no dual encoder.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        processors: Any = AutoImageProcessor

        try:
            self.model: Any = AutoModel.from_pretrained(name)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name)
            self.processor: Any = processors.from_pretrained(name)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise T2IError(
                f"cannot load the dual encoder {name} ({reason}): correct --network transformers:NAME, or download it "
                "once while online"
            ) from error
        if not hasattr(self.model, "get_image_features") or not hasattr(self.model, "get_text_features"):
            raise T2IError(
                f"found {name}, a {type(self.model).__name__} without codes of images and captions, expected a dual "
                "encoder such as openai/clip-vit-base-patch32: correct --network"
            )
        self.requires_grad_(False).eval()
        self.full_length = str(self.model.config.model_type).startswith("siglip")  # trained on captions padded so
        text = getattr(self.model.config, "text_config", None)
        longest = getattr(text, "max_position_embeddings", None) or 512
        self.longest = int(min(longest, self.tokenizer.model_max_length))

    @torch.no_grad()
    def image_codes(self, images: Tensor) -> Tensor:
        """Codes (B, D) of images (B, 3, S, S) in [-1, 1]."""
        pixels = list(to_uint8(images).cpu())
        ready = self.processor(images=pixels, return_tensors="pt", input_data_format="channels_first")
        return _tensor(self.model.get_image_features(pixel_values=ready["pixel_values"].to(self.model.device)))

    @torch.no_grad()
    def sentence_codes(self, captions: Sequence[str]) -> Tensor:
        """Codes (B, D) of B captions."""
        padding = "max_length" if self.full_length else True
        options = {"truncation": True, "max_length": self.longest, "return_tensors": "pt"}
        tokens = self.tokenizer(list(captions), padding=padding, **options)
        names = ("input_ids",) if self.full_length else ("input_ids", "attention_mask")
        return _tensor(self.model.get_text_features(**{name: tokens[name].to(self.model.device) for name in names}))


def _tensor(found: Any) -> Tensor:
    """Codes of transformers 4, a bare tensor, or of transformers 5, an output with a ``pooler_output``."""
    codes: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return codes.float()
