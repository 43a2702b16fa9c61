"""DAMSM's networks and losses: numbers of the reference, a loop over captions as oracle, retrieval by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_parity import inputs, recipe
from torch import Tensor

from t2i_zoo.models.damsm import losses
from t2i_zoo.models.damsm.networks import INCEPTION, INCEPTION_REGIONS, ImageEncoder
from t2i_zoo.models.damsm.official import OFFICIAL
from t2i_zoo.nn import damsm
from t2i_zoo.nn.retrieval import retrieval
from t2i_zoo.text import TextFeatures
from t2i_zoo.text.rnn import RNNNetwork
from t2i_zoo.vision import build_vision

GAMMAS = (4.0, 5.0, 10.0)
LENGTHS = torch.tensor([9, 7, 5, 3])
SMALL = {"name": "torchvision:shufflenet_v2_x0_5", "weights": "random", "layer": "stage3", "input_size": 32}


@pytest.fixture(scope="module")
def text() -> TextFeatures:
    """Words (4, 9, 256) and sentences of the reference's encoder with the recipe's weights."""
    network = RNNNetwork(5450).eval()
    network.load_state_dict({key: recipe(key, tuple(t.shape)) for key, t in network.state_dict().items()})
    numbers = torch.from_numpy(np.random.RandomState(7).randint(1, 5450, (4, 18)))[:, :9]
    with torch.no_grad():
        words, sentence = network(numbers, LENGTHS)
    return TextFeatures(sentence, words, torch.arange(9) < LENGTHS[:, None])


# Losses -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 1, 3, 8])
@pytest.mark.parametrize(
    ("classes", "words", "sentence"),
    [
        ([3, 3, 5, 6], (3.145744, 3.379408), (1.191778, 1.333643)),
        (None, (3.637225, 3.683454), (1.330628, 1.464407)),
        ([3, 4, 5, 6], (3.637225, 3.683454), (1.330628, 1.464407)),
        ([-1, -1, 5, 6], (3.637225, 3.683454), (1.330628, 1.464407)),
    ],
)
def test_golden_losses(
    text: TextFeatures,
    classes: list[int] | None,
    words: tuple[float, float],
    sentence: tuple[float, float],
    chunk: int | None,
) -> None:
    labels = None if classes is None else torch.tensor(classes)
    regions, codes = inputs(11, 4, 256, 17, 17), inputs(12, 4, 256)
    assert text.words is not None
    assert text.mask is not None
    for kept in (text.mask, LENGTHS):
        found = damsm.words_loss(regions, text.words, kept, labels, *GAMMAS, chunk)
        assert tuple(map(float, found)) == pytest.approx(words, abs=1e-5)
    found = damsm.sentence_loss(codes, text.sentence, labels)
    assert tuple(map(float, found)) == pytest.approx(sentence, abs=1e-5)
    total = losses.matching_loss(regions, codes, text, labels, GAMMAS, chunk)
    assert float(total["loss"]) == pytest.approx(sum(words) + sum(sentence), abs=4e-5)
    assert float(total["words"] + total["sentence"]) == pytest.approx(float(total["loss"]))


def test_captions_in_groups_are_those_at_once() -> None:
    """More captions than a CPU takes at a time, their lengths in no order: scores and gradients."""
    rng = torch.Generator().manual_seed(0)
    regions = torch.randn(3, 8, 2, 2, generator=rng, requires_grad=True)
    words = torch.randn(31, 7, 8, generator=rng, requires_grad=True)
    mask = torch.arange(7) < torch.randint(1, 8, (31, 1), generator=rng)
    weights = torch.randn(3, 31, generator=rng)
    whole = damsm._pair_scores(regions.flatten(2), words, mask, 4.0, 5.0)
    wanted = torch.autograd.grad((weights * whole).sum(), [regions, words])
    for chunk in (None, 4, 64):
        scores = damsm.word_scores(regions, words, mask, 4.0, 5.0, chunk)
        torch.testing.assert_close(scores, whole)
        torch.testing.assert_close(torch.autograd.grad((weights * scores).sum(), [regions, words]), wanted)


def by_loop(regions: Tensor, words: Tensor, lengths: list[int], gamma1: float, gamma2: float) -> tuple[Tensor, Tensor]:
    """Scores (B, B) and the attention (T, R) of the last pair, from one picture and one caption at a time."""
    scores = torch.zeros(len(regions), len(words))
    for i, grid in enumerate(regions.flatten(2)):
        for j, length in enumerate(lengths):
            rows = []
            over_words = (words[j, :length] @ grid).softmax(0)
            attention = (gamma1 * over_words).softmax(1)
            for word, weights in zip(words[j, :length], attention, strict=True):
                rows.append((gamma2 * F.cosine_similarity(word, grid @ weights, dim=0)).exp())
            scores[i, j] = torch.stack(rows).sum().log()
    return scores, attention


@pytest.mark.parametrize("chunk", [None, 2])
def test_all_pairs_at_once_are_one_pair_at_a_time(chunk: int | None) -> None:
    torch.manual_seed(0)
    regions, words = torch.randn(5, 6, 3, 4, requires_grad=True), torch.randn(5, 7, 6, requires_grad=True)
    lengths = [7, 1, 4, 4, 3]
    weight = torch.randn(5, 5)
    wanted, last = by_loop(regions, words, lengths, 3.0, 2.0)
    found = damsm.word_scores(regions, words, torch.tensor(lengths), 3.0, 2.0, chunk)
    torch.testing.assert_close(found, wanted)
    slopes = [torch.autograd.grad((weight * scores).sum(), (regions, words)) for scores in (wanted, found)]
    for one, two in zip(*slopes, strict=True):
        torch.testing.assert_close(two, one)
    context, attention = damsm.word_attention(regions, words, torch.tensor(lengths), 3.0)
    assert attention.shape == (5, 7, 3, 4)
    torch.testing.assert_close(attention[-1, : lengths[-1]].flatten(1), last)
    torch.testing.assert_close(context[-1, 0], regions[-1].flatten(1) @ last[0])
    torch.testing.assert_close(attention.sum((2, 3)), torch.ones(5, 7))


def test_what_lies_behind_a_caption_has_no_influence() -> None:
    torch.manual_seed(0)
    regions, words = torch.randn(3, 6, 2, 2), torch.randn(3, 5, 6, requires_grad=True)
    lengths = torch.tensor([5, 2, 3])
    first = damsm.words_loss(regions, words, lengths, None)
    sum(first).backward()
    assert words.grad is not None
    kept = torch.arange(5) < lengths[:, None]
    assert words.grad[kept].abs().sum() > 0
    assert not words.grad[~kept].any()
    changed = words.detach().masked_fill(~kept[..., None], 100.0)
    again = damsm.words_loss(regions, changed, lengths, None)
    assert [float(x) for x in again] == pytest.approx([float(x.detach()) for x in first])
    zeros = words.detach().masked_fill(~kept[..., None], 0.0).requires_grad_()  # as the encoder pads
    sum(damsm.words_loss(regions, zeros, lengths, None)).backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


def test_losses_are_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    regions, words, codes = torch.randn(4, 8, 2, 2), torch.randn(4, 3, 8), torch.randn(4, 8)
    lengths = torch.tensor([3, 3, 2, 1])
    plain = [*damsm.words_loss(regions, words, lengths, None), *damsm.sentence_loss(codes, words[:, 0], None)]
    with torch.autocast("cpu", torch.bfloat16):
        cast = [*damsm.words_loss(regions, words, lengths, None), *damsm.sentence_loss(codes, words[:, 0], None)]
    assert all(torch.equal(one, two) for one, two in zip(plain, cast, strict=True))


def test_the_class_loss_leaves_out_pictures_without_a_class() -> None:
    scores = torch.tensor([[2.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    wanted = F.cross_entropy(scores[:2], torch.tensor([0, 0]))
    torch.testing.assert_close(losses.class_loss(scores, torch.tensor([0, 0, -1])), wanted)
    assert losses.class_loss(scores, torch.tensor([-1, -1, -1])) == 0


# The picture encoder ------------------------------------------------------------------------------------------------

#: by align_corners and output: mean, unbiased standard deviation, first value
GOLDEN = {
    (True, "regions"): (0.087977, 2.367735, -0.779940),
    (True, "codes"): (0.036012, 2.688356, -5.411655),
    (False, "regions"): (0.088014, 2.366039, -0.778487),
    (False, "codes"): (0.036037, 2.686625, -5.412523),
}


def test_the_authors_picture_encoder() -> None:
    eyes = build_vision(
        INCEPTION, weights="random", layer=INCEPTION_REGIONS, align_corners=True, antialias=False, logits=False
    )
    network = ImageEncoder(eyes, 256, trained=False, still=False).eval()
    sizes = [(p.numel(), p.requires_grad) for p in network.parameters()]
    assert sum(size for size, _ in sizes) == 22_506_720
    assert sum(size for size, trained in sizes if trained) == 721_152
    assert 0.09 < float(network.emb_features.weight.detach().abs().max()) <= 0.1
    state = network.state_dict()
    own = {f"image_network.{key}": tensor for key, tensor in state.items()}
    names = OFFICIAL["attngan_damsm"].names("image_network", {"backbone": network.backbone.name, "layer": None}, own)
    assert len(names) == 567
    assert sum(not key.endswith("num_batches_tracked") for key in names) == 473
    for theirs, ours in names.items():
        if (tensor := own[ours]).ndim:
            tensor.copy_(recipe(theirs, tuple(tensor.shape)) * (1.7 if theirs.endswith(".conv.weight") else 1.0))
    images = F.interpolate(inputs(20, 2, 3, 32, 32), (256, 256)).tanh()
    for corners in (True, False):
        network.backbone.align_corners = corners
        with torch.no_grad():
            regions, codes, _ = network(images)
        assert regions.shape == (2, 256, 17, 17)
        for name, found in {"regions": regions, "codes": codes}.items():
            values = found.double().flatten()
            numbers = [float(n) for n in (values.mean(), values.std(), values[0])]
            assert numbers == pytest.approx(GOLDEN[corners, name], rel=0, abs=2e-5), (corners, name)


@pytest.mark.parametrize("batch_norm", ["train", "eval"])
def test_batch_norm_of_a_frozen_backbone(batch_norm: str) -> None:
    torch.manual_seed(0)
    network = ImageEncoder(build_vision(**SMALL), 6, trained=False, still=batch_norm == "eval")  # type: ignore[arg-type]
    before = {key: tensor.clone() for key, tensor in network.backbone.state_dict().items()}
    images = torch.rand(4, 3, 20, 20).requires_grad_()
    regions, codes, _ = network(images)
    moved = [key for key, tensor in network.backbone.state_dict().items() if not torch.equal(tensor, before[key])]
    assert bool(moved) == (batch_norm == "train")
    assert all("running" in key or "tracked" in key for key in moved)
    (regions.sum() + codes.sum()).backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    trained = {key for key, p in network.named_parameters() if p.grad is not None}
    assert trained == {"emb_features.weight", "emb_cnn_code.weight", "emb_cnn_code.bias"}
    assert network.training
    assert not network.eval().backbone.training
    assert network.train().backbone.training == (batch_norm == "train")


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 5, 3, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            regions = self.conv(x)
            return regions.mean((2, 3)), regions.mean((2, 3)), regions

    torch.jit.script(Own()).save(str(tmp_path / "own.pt"))
    network = ImageEncoder(build_vision(f"file:{tmp_path / 'own.pt'}"), 4, trained=False, still=False)
    regions, codes, _ = network(torch.rand(2, 3, 9, 9))
    assert (regions.shape, codes.shape) == ((2, 4, 4, 4), (2, 4))


# Retrieval ----------------------------------------------------------------------------------------------------------


def test_retrieval_by_hand() -> None:
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    sentences = torch.tensor([[3.0, 0.0], [2.0, 2.0], [0.1, 1.0]])
    found = {key: float(value) for key, value in retrieval(codes, sentences, torch.tensor([0, 1, 1])).items()}
    # picture 0 finds its caption; 1 finds that of 2; 2 finds that of 1
    assert found["r1_image_to_text"] == pytest.approx(1 / 3)
    assert found["r1_text_to_image"] == pytest.approx(1 / 3)
    # of other classes: 0 against captions 1 and 2, 1 and 2 against caption 0 alone, which both beat
    assert found["r_precision"] == pytest.approx(1.0)
    assert found["r_precision_chance"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3)


def test_an_encoder_that_says_always_the_same_has_the_score_of_chance() -> None:
    same = retrieval(torch.ones(250, 4), torch.ones(250, 4), torch.full((250,), -1))
    assert float(same["r1_image_to_text"]) == pytest.approx(1 / 250)
    assert float(same["r_precision"]) == pytest.approx(1 / 100)
    assert float(same["r_precision_chance"]) == pytest.approx(1 / 100)


def test_r_precision_of_random_codes_is_near_chance() -> None:
    torch.manual_seed(0)
    labels = torch.randint(5, (1500,))  # more than one chunk of queries
    found = retrieval(torch.randn(1500, 16), torch.randn(1500, 16), labels)
    assert 0 < float(found["r_precision"]) < 0.03
    assert float(found["r_precision_chance"]) == pytest.approx(1 / 100)
    codes = torch.randn(1500, 16)
    assert float(retrieval(codes, codes, labels)["r_precision"]) == 1.0
