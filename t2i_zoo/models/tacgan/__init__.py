"""TAC-GAN (Dash et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from t2i_zoo.lazy import lazily

if TYPE_CHECKING:
    from t2i_zoo.models.tacgan.module import TACGAN

__all__ = ["TACGAN"]
__getattr__ = lazily(__name__, {"TACGAN": "module"})
