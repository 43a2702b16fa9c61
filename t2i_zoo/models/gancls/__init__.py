"""GAN-CLS and GAN-INT (Reed et al. 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from t2i_zoo.lazy import lazily

if TYPE_CHECKING:
    from t2i_zoo.models.gancls.module import GANCLS

__all__ = ["GANCLS"]
__getattr__ = lazily(__name__, {"GANCLS": "module"})
