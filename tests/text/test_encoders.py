import pytest

from t2i_zoo.errors import T2IError
from t2i_zoo.text import build_text_encoder


def test_builds_by_name_and_by_dict():
    assert build_text_encoder("hashing").dim == 1024
    assert build_text_encoder({"kind": "hashing", "dim": 32}).dim == 32


def test_builds_transformers(bert_folder):
    assert build_text_encoder({"kind": "transformers", "model": str(bert_folder), "pooling": "cls"}).dim == 16


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("hashin", r"'hashin' is unknown \(did you mean 'hashing'\?\): .*'hashing', 'none'"),
        ({}, "None is unknown"),
        (
            {"kind": "hashing", "dims": 3},
            r"no argument 'dims' \(did you mean 'dim'\?\): .*'dim', 'max_words'",
        ),
        ({"kind": "transformers"}, "needs the argument 'model'"),
        (
            {"kind": "transformers", "model": "x", "pooling": "max"},
            "pooling is 'max' and must be one of mean, cls",
        ),
    ],
)
def test_mistakes_are_named(spec, sentence):
    with pytest.raises(T2IError, match=sentence):
        build_text_encoder(spec)
