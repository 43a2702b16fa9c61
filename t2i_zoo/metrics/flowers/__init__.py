"""Metrics that know flowers: their colours in captions and pixels, and the masks of drawn ones."""
