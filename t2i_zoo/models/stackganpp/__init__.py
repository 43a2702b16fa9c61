"""StackGAN++ (Zhang et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from t2i_zoo.lazy import lazily

if TYPE_CHECKING:
    from t2i_zoo.models.stackganpp.module import StackGANPlusPlus

__all__ = ["StackGANPlusPlus"]
__getattr__ = lazily(__name__, {"StackGANPlusPlus": "module"})
