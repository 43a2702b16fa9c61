"""DM-GAN (Zhu et al. 2019, arXiv 1904.01310)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from t2i_zoo.lazy import lazily

if TYPE_CHECKING:
    from t2i_zoo.models.dmgan.module import DMGAN

__all__ = ["DMGAN"]
__getattr__ = lazily(__name__, {"DMGAN": "module"})
