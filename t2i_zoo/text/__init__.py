"""Captions to features: the contract, the encoders, the cache."""

from t2i_zoo.text.cache import TextCache
from t2i_zoo.text.encoders import build_text_encoder
from t2i_zoo.text.features import TextEncoder, TextFeatures
from t2i_zoo.text.tokens import words_of

__all__ = ["TextCache", "TextEncoder", "TextFeatures", "build_text_encoder", "words_of"]
