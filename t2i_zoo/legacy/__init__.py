"""Safe readers of the data files that were published with the original code."""

from t2i_zoo.legacy.files import (
    AttnGANCaptions,
    ReedRecord,
    StackGANFiles,
    TACGANFiles,
    ValCaptions,
    read_attngan_captions,
    read_reed_t7,
    read_stackgan,
    read_tacgan,
    read_val_captions_t7,
)
from t2i_zoo.legacy.pickles import load_pickle
from t2i_zoo.legacy.torch7 import load_t7

__all__ = [
    "AttnGANCaptions",
    "ReedRecord",
    "StackGANFiles",
    "TACGANFiles",
    "ValCaptions",
    "load_pickle",
    "load_t7",
    "read_attngan_captions",
    "read_reed_t7",
    "read_stackgan",
    "read_tacgan",
    "read_val_captions_t7",
]
