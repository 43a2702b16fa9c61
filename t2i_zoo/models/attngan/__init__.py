"""AttnGAN (Xu et al. 2018, arXiv 1711.10485)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from t2i_zoo.lazy import lazily

if TYPE_CHECKING:
    from t2i_zoo.models.attngan.module import AttnGAN

__all__ = ["AttnGAN"]
__getattr__ = lazily(__name__, {"AttnGAN": "module"})
