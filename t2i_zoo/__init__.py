"""t2i-zoo: text-to-image GANs in PyTorch Lightning.

``load_model(path).generate(["a flower with red petals"])`` draws (B, 3, S, S) images in [-1, 1]. Everything here is
imported on first use, so that ``import t2i_zoo`` and the quick commands do not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from t2i_zoo.lazy import lazily
from t2i_zoo.version import __version__

if TYPE_CHECKING:
    from t2i_zoo.batch import Batch, Fakes
    from t2i_zoo.data import (
        CUB200,
        CaptionDataModule,
        CaptionFolder,
        COCOCaptions,
        Flowers102,
        HFDataset,
        Record,
        Source,
        StreamDataModule,
        SyntheticFlowers,
        WebDataset,
    )
    from t2i_zoo.errors import T2IError
    from t2i_zoo.library import evaluate, fit, leaderboard
    from t2i_zoo.models import list_models, load_model
    from t2i_zoo.models.attngan import AttnGAN
    from t2i_zoo.models.base import TextToImageGAN
    from t2i_zoo.models.charcnnrnn import CharCNNRNN
    from t2i_zoo.models.classifier import Classifier
    from t2i_zoo.models.damsm import DAMSM
    from t2i_zoo.models.dfgan import DFGAN
    from t2i_zoo.models.dmgan import DMGAN
    from t2i_zoo.models.gancls import GANCLS
    from t2i_zoo.models.mirrorgan import MirrorGAN
    from t2i_zoo.models.skipthought import SkipThought
    from t2i_zoo.models.stackgan import StackGAN
    from t2i_zoo.models.stackganpp import StackGANPlusPlus
    from t2i_zoo.models.stream import STREAM
    from t2i_zoo.models.tacgan import TACGAN
    from t2i_zoo.pictures import caption_grid
    from t2i_zoo.sampling import draw_between, draw_rows
    from t2i_zoo.text import TextFeatures

_PLACES = {
    "AttnGAN": "models.attngan",
    "Batch": "batch",
    "COCOCaptions": "data",
    "CUB200": "data",
    "CaptionDataModule": "data",
    "CaptionFolder": "data",
    "Classifier": "models.classifier",
    "CharCNNRNN": "models.charcnnrnn",
    "DAMSM": "models.damsm",
    "DFGAN": "models.dfgan",
    "DMGAN": "models.dmgan",
    "Fakes": "batch",
    "Flowers102": "data",
    "HFDataset": "data",
    "GANCLS": "models.gancls",
    "MirrorGAN": "models.mirrorgan",
    "Record": "data",
    "STREAM": "models.stream",
    "SkipThought": "models.skipthought",
    "Source": "data",
    "StackGAN": "models.stackgan",
    "StackGANPlusPlus": "models.stackganpp",
    "StreamDataModule": "data",
    "SyntheticFlowers": "data",
    "WebDataset": "data",
    "T2IError": "errors",
    "TACGAN": "models.tacgan",
    "TextFeatures": "text",
    "TextToImageGAN": "models.base",
    "caption_grid": "pictures",
    "draw_between": "sampling",
    "draw_rows": "sampling",
    "evaluate": "library",
    "fit": "library",
    "leaderboard": "library",
    "list_models": "models",
    "load_model": "models",
}

__all__ = [
    "AttnGAN",
    "Batch",
    "COCOCaptions",
    "CUB200",
    "CaptionDataModule",
    "CaptionFolder",
    "CharCNNRNN",
    "Classifier",
    "DAMSM",
    "DFGAN",
    "DMGAN",
    "Fakes",
    "Flowers102",
    "GANCLS",
    "HFDataset",
    "MirrorGAN",
    "Record",
    "STREAM",
    "SkipThought",
    "Source",
    "StackGAN",
    "StackGANPlusPlus",
    "StreamDataModule",
    "SyntheticFlowers",
    "T2IError",
    "TACGAN",
    "TextFeatures",
    "TextToImageGAN",
    "WebDataset",
    "__version__",
    "caption_grid",
    "draw_between",
    "draw_rows",
    "evaluate",
    "fit",
    "leaderboard",
    "list_models",
    "load_model",
]

__getattr__ = lazily(__name__, _PLACES)
