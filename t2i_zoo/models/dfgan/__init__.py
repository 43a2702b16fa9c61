"""DF-GAN (Tao et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from t2i_zoo.lazy import lazily

if TYPE_CHECKING:
    from t2i_zoo.models.dfgan.module import DFGAN

__all__ = ["DFGAN"]
__getattr__ = lazily(__name__, {"DFGAN": "module"})
