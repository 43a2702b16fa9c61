"""StackGAN (Zhang et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from t2i_zoo.lazy import lazily

if TYPE_CHECKING:
    from t2i_zoo.models.stackgan.module import StackGAN

__all__ = ["StackGAN"]
__getattr__ = lazily(__name__, {"StackGAN": "module"})
