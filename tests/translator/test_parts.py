"""A text too long for the model: its parts, and how their translations are joined."""

import logging

import pytest

pytestmark = pytest.mark.usefixtures("quick_compile")

LONG = "abc de fab. cab de fa hab! bad cafe, fed head; gab."


@pytest.mark.parametrize(
    ("target", "joiner"),
    [
        ("zh", ""), ("zh-Hans", ""), ("zh_CN", ""), ("zh-TW", ""), ("cmn", ""), ("zho_Hans", ""),
        ("yue", ""), ("ja", ""), ("en", " "), ("ko", " "), ("de_DE", " "), ("upper", " "),
    ],
)  # fmt: skip
def test_parts_are_joined_as_the_target_language_is_written(untrained, caplog, target, joiner):
    model = untrained(data={"target": target}, decode={"beam_size": 1, "max_length_factor": 0.2})
    with caplog.at_level(logging.WARNING, "tfm"):
        ((found,),) = model.n_best([LONG], 1)
    sources, targets = zip(*found.parts, strict=True)
    assert len(sources) > 2 and "".join(sources) == LONG
    assert found.text == joiner.join(targets)
    assert list(targets) == model.translate(list(sources))
    assert [r.getMessage().split(":")[0] for r in caplog.records] == [
        f"longer than the 16 tokens the model takes, translated in {len(sources)} parts"
    ]


def test_every_part_fits_and_no_character_is_lost(untrained):
    model = untrained()
    parts = model.parts(f"  {LONG}  ")
    assert "".join(parts) == LONG
    assert all(len(model.source.encode(part)) <= 16 for part in parts)
    assert model.parts("abc") == ["abc"] and model.parts(" \t ") == []
