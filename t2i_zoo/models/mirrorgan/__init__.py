"""MirrorGAN (Qiao et al. 2019, arXiv 1903.05854)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from t2i_zoo.lazy import lazily

if TYPE_CHECKING:
    from t2i_zoo.models.mirrorgan.module import MirrorGAN

__all__ = ["MirrorGAN"]
__getattr__ = lazily(__name__, {"MirrorGAN": "module"})
