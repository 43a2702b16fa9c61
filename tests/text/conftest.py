"""Tiny Hugging Face models with generated vocabularies; the network stays off."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, so a monkeypatch would come too late

from pathlib import Path

import pytest
import torch

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["a", "red", "blue", "flower", "with", "petals", "and", "the"],
    "##s",
]


def bert_tokenizer():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate(VOCABULARY)}
    raw = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def clip_tokenizer(length):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {char: number for number, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    ids |= {"<|start|>": 256, "<|end|>": 257}
    raw = Tokenizer(models.BPE(ids, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel()
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.RobertaProcessing(("<|end|>", 257), ("<|start|>", 256))
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<|end|>", bos_token="<|start|>", eos_token="<|end|>",
        unk_token="<|end|>", model_max_length=length,
    )  # fmt: skip


def _save(folder, model, tokenizer):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory) -> Path:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40, initializer_range=0.5,
    )  # fmt: skip
    return _save(tmp_path_factory.mktemp("bert"), BertModel(config), bert_tokenizer())


TOWER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = TOWER | {"vocab_size": 258, "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 257}
VISION = TOWER | {"image_size": 8, "patch_size": 4}


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    config = CLIPConfig(text_config=TEXT | {"max_position_embeddings": 24}, vision_config=VISION, projection_dim=8)
    return _save(tmp_path_factory.mktemp("clip"), CLIPModel(config), clip_tokenizer(24))


@pytest.fixture(scope="session")
def clip_text_folder(tmp_path_factory, clip_folder) -> Path:
    from transformers import CLIPTextModel

    return _save(tmp_path_factory.mktemp("clip_text"), CLIPTextModel.from_pretrained(clip_folder), clip_tokenizer(24))


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory) -> Path:
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(0)
    config = SiglipConfig(text_config=TEXT | {"max_position_embeddings": 24}, vision_config=VISION)
    return _save(tmp_path_factory.mktemp("siglip"), SiglipModel(config), clip_tokenizer(24))


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory) -> Path:
    from transformers import T5Config, T5Model

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(VOCABULARY), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0,
        eos_token_id=3, decoder_start_token_id=0,
    )  # fmt: skip
    return _save(tmp_path_factory.mktemp("t5"), T5Model(config), bert_tokenizer())


@pytest.fixture(scope="session")
def bart_folder(tmp_path_factory) -> Path:
    from transformers import BartConfig, BartModel

    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(VOCABULARY), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=40,
        pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=3,
    )  # fmt: skip
    return _save(tmp_path_factory.mktemp("bart"), BartModel(config), bert_tokenizer())
