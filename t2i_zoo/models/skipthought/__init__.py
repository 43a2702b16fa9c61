"""Skip-thought vectors (Kiros et al. 2015)."""

from t2i_zoo.models.skipthought.module import SkipThought

__all__ = ["SkipThought"]
