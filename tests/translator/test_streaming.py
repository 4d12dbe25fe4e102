"""A translation piece by piece is the translation."""

import pytest

from tfm.translator import stream

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def model(untrained):
    return untrained(decode={"max_length": 12})


@pytest.mark.parametrize(
    "settings", [{"beam_size": 1}, {"strategy": "sample", "seed": 3, "top_p": 0.9}], ids=str
)
def test_the_pieces_are_the_translation(model, settings):
    texts = ["abc", "", "fed cab", " ".join(["abc de fa"] * 3)]
    for text, whole in zip(texts, model.translate(texts, **settings), strict=True):
        pieces = list(stream(model, text, **settings))
        assert "".join(pieces) == whole
        assert len(pieces) > 2 or len(whole) < 3


def test_what_is_chosen_at_the_end_cannot_be_streamed(model):
    for settings in ({"beam_size": 2}, {"strategy": "sample", "samples": 2}, {"strategy": "mbr"}):
        with pytest.raises(ValueError, match="stream: strategy"):
            next(stream(model, "abc", **settings))
