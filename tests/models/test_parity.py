"""The DCGAN pair against numbers measured by running the reference classes of aelnouby/Text-to-Image-Synthesis.

Weights follow from the reference's own key names and are read as its files are: a layer of another shape, order or
place, or a key that the conversion puts elsewhere, changes every number.
"""

from __future__ import annotations

import pytest
import torch
from golden import agrees, inputs, recipe

from t2i_zoo.commands.official_states import to_ours
from t2i_zoo.models.gancls import GANCLS

Shapes = dict[str, tuple[int, ...]]


def batch_norm(key: str, width: int) -> Shapes:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{key}.{name}": (width,) for name in names} | {f"{key}.num_batches_tracked": ()}


def projection(key: str) -> Shapes:
    return {f"{key}.0.weight": (128, 1024), f"{key}.0.bias": (128,), **batch_norm(f"{key}.1", 128)}


#: every weight of the reference's two networks
REFERENCE: dict[str, Shapes] = {
    "gen.pth": {
        **projection("projection"),
        **{"netG.0.weight": (228, 512, 4, 4), **batch_norm("netG.1", 512)},
        **{"netG.3.weight": (512, 256, 4, 4), **batch_norm("netG.4", 256)},
        **{"netG.6.weight": (256, 128, 4, 4), **batch_norm("netG.7", 128)},
        **{"netG.9.weight": (128, 64, 4, 4), **batch_norm("netG.10", 64)},
        "netG.12.weight": (64, 3, 4, 4),
    },
    "disc.pth": {
        "netD_1.0.weight": (64, 3, 4, 4),
        **{"netD_1.2.weight": (128, 64, 4, 4), **batch_norm("netD_1.3", 128)},
        **{"netD_1.5.weight": (256, 128, 4, 4), **batch_norm("netD_1.6", 256)},
        **{"netD_1.8.weight": (512, 256, 4, 4), **batch_norm("netD_1.9", 512)},
        **projection("projector.projection"),
        "netD_2.0.weight": (1, 640, 4, 4),
    },
}

#: mean, unbiased standard deviation, first three values, last value, checksum
GOLDEN = {
    ("eval", "pictures"): (-0.019882, 0.175088, (0.113555, 0.061077, 0.165349), 0.004996, -0.002299),
    ("eval", "probabilities"): (0.475204, 0.063834, (0.556517, 0.405942, 0.449910), 0.488447, 0.265624),
    ("eval", "features"): (0.061627, 0.129910, (-0.052614, -0.066907, -0.037071), -0.005313, 0.012251),
    ("train", "pictures"): (-0.160126, 0.726036, (-0.045623, -0.506339, 0.577863), 0.171509, -0.176919),
    ("train", "probabilities"): (0.594626, 0.125072, (0.721706, 0.422174, 0.615024), 0.619600, 0.304527),
}


@pytest.fixture
def model() -> GANCLS:
    """Read from the reference's state dicts, as PyTorch 0.3 wrote them: without counters of batches."""
    files = {
        file: {key: recipe(key, shape) for key, shape in shapes.items() if shape} for file, shapes in REFERENCE.items()
    }
    hparams, state = to_ours("aelnouby_gancls", files)
    model = GANCLS(**hparams)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert all(key.startswith("generator_ema.") for key in missing)
    assert not unexpected
    return model


def test_every_reference_key_has_its_place(model: GANCLS) -> None:
    assert [len(shapes) for shapes in REFERENCE.values()] == [32, 27]
    assert len(model.generator.state_dict()) == 32
    assert len(model.discriminator.state_dict()) == 27
    counts = [sum(p.numel() for p in network.parameters()) for network in (model.generator, model.discriminator)]
    assert counts == [4_756_736, 2_899_072]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_golden_values(model: GANCLS, mode: str) -> None:
    model.train(mode == "train")
    text, noise, pictures = inputs(1, 4, 1024), inputs(2, 4, 100, 1, 1).flatten(1), inputs(3, 4, 3, 64, 64).tanh()
    with torch.no_grad():
        features = model.discriminator.features(pictures)
        found = {
            "pictures": model.generator(noise, text),
            "probabilities": model.discriminator.judge(features, text).matched.sigmoid(),
            "features": features,
        }
    for (golden_mode, name), golden in GOLDEN.items():
        if golden_mode == mode:
            assert agrees(found[name], *golden), name
