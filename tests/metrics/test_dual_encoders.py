"""Networks by name: image networks, the FID network with made-up weights, CLIP, and checkpoints of the zoo."""

from __future__ import annotations

import hashlib
import sys

import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.networks import DualEncoder, build_network
from t2i_zoo.metrics.transformers_dual import TransformersDual
from t2i_zoo.models.damsm import DAMSM
from t2i_zoo.vision import build_vision, inception_tf


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A tiny CLIP with random weights, saved whole."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<|pad|>", "<|start|>", "<|end|>", "a", "red", "blue", "flower"]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<|pad|>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="<|start|> $A <|end|>", special_tokens=[("<|start|>", 1), ("<|end|>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<|pad|>", bos_token="<|start|>", eos_token="<|end|>", model_max_length=8
    )
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config={**small, "vocab_size": 7, "max_position_embeddings": 8, "eos_token_id": 2, "bos_token_id": 1},
            vision_config={**small, "image_size": 32, "patch_size": 16},
            projection_dim=12,
        )
    )
    folder = tmp_path_factory.mktemp("tiny-clip")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_clip_codes_are_the_models_own(clip_folder):
    dual = TransformersDual(str(clip_folder))
    assert isinstance(dual, DualEncoder)
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (dual.processor.image_mean, dual.processor.image_std))
    pixels = ((images + 1) * 127.5).round() / 255
    seen = dual.model.vision_model(pixel_values=(pixels - mean) / std).pooler_output
    assert torch.allclose(dual.image_codes(images), dual.model.visual_projection(seen), atol=1e-4)
    assert dual.image_codes(images[:, :, :20, :20]).shape == (3, 12)  # of any size
    one, two = dual.sentence_codes(["a red flower", "a blue flower a blue flower a blue flower"])
    assert torch.allclose(dual.sentence_codes(["a red flower"])[0], one, atol=1e-5)  # padding does not matter
    assert (one - two).abs().max() > 1e-3


def test_a_dual_encoder_by_name(clip_folder):
    network = build_network(f"transformers:{clip_folder}")
    assert network.label == clip_folder.name
    assert network.read(["a red flower"] * 3, batch_size=2).shape == (3, 12)
    features, logits = network.look(torch.zeros(2, 3, 16, 16))
    assert (features.shape, logits) == ((2, 12), None)
    assert len(network.fingerprint) == 16
    with pytest.raises(T2IError, match="cannot load the dual encoder no/such"):
        build_network("transformers:no/such")


def test_a_picture_network_by_name(small):
    features, logits = small.look(torch.zeros(2, 3, 16, 16))
    assert (features.shape, logits.shape, small.label) == ((2, 8), (2, 5), "small")
    resnet = build_network("torchvision:resnet18", weights="random")
    assert (resnet.label, resnet.num_logits) == ("resnet18", 1000)
    with pytest.raises(T2IError, match="expected inception_v3_tf, efficientnet_lite0, torchvision:NAME"):
        build_network("resnet18")


def test_a_checkpoint_that_is_no_dual_encoder():
    with pytest.raises(T2IError, match="found a Linear in run, expected a model with codes"):
        build_network("checkpoint:run", load_checkpoint=lambda path: torch.nn.Linear(1, 1))


def test_a_damsm_is_a_dual_encoder(tiny_widths):
    model = DAMSM(**tiny_widths("damsm"))
    model.know(["a", "red", "blue", "flower"])
    network = build_network("checkpoint:run", load_checkpoint={"run": model}.__getitem__)
    features, logits = network.look(torch.rand(3, 3, 16, 16) * 2 - 1)
    assert network.read(["a red flower", "a blue flower", "a flower"]).shape == features.shape == (3, 12)
    assert (logits, network.label, len(network.fingerprint)) == (None, "DAMSM", 16)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """A file of the right shape with made-up weights, and its hash."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *a, **k: None)
        net = module.FeatureExtractorInceptionV3("made-up", ["2048", "logits_unbiased"])
    torch.save(net.state_dict(), path)
    yield path, net
    path.unlink()


def test_the_fid_network_is_torch_fidelitys(inception_file, monkeypatch):
    path, net = inception_file
    with pytest.raises(T2IError, match="is not the file https"):
        build_vision("inception_v3_tf", weights=str(path))
    monkeypatch.setattr(inception_tf, "_HASH", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    network = build_vision("inception_v3_tf", weights=str(path))
    assert (network.feature_dim, network.num_logits, network.name) == (2048, 1008, "inception_v3_tf")
    pixels = torch.randint(0, 256, (2, 3, 20, 20), generator=torch.Generator().manual_seed(0)).byte()
    expected = net(pixels)
    seen = network(pixels.float() / 127.5 - 1)
    assert torch.equal(seen.features, expected[0])
    assert torch.equal(seen.logits, expected[1])


def test_what_the_fid_network_needs(monkeypatch, tmp_path):
    pytest.importorskip("torch_fidelity")
    with pytest.raises(T2IError, match=r"found no weights file nowhere\.pth"):
        build_vision("inception_v3_tf", weights="nowhere.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(T2IError, match=rf"put the file https://.*6726825d\.pth at {tmp_path}"):
        build_vision("inception_v3_tf")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(T2IError, match="pip install torch-fidelity"):
        build_vision("inception_v3_tf")
