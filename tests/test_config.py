import dataclasses
import json

import pytest

from tfm import config, transformer


def test_json_gives_back_the_same_config():
    c = config.Config(
        model=transformer.Config(d_model=48, tie="all", dropout=0.25),
        data=config.Data(train=("a.tsv", "tfds:x:train"), tsv_columns=(2, 0), test=()),
        train=config.Train(stop="5000u"),
    )
    again = config.from_json(config.to_json(c))
    assert again == c
    assert hash(again) == hash(c)  # tuples again, not lists: still fit for a static argument
    assert config.from_json(config.to_json(config.Config())) == config.Config()


def test_json_names_every_field_and_keeps_chinese_readable():
    c = config.Config(data=config.Data(train=("语料.tsv",)))
    text = config.to_json(c)
    assert "语料.tsv" in text and text.endswith("\n")
    assert set(json.loads(text)) == {f.name for f in dataclasses.fields(config.Config)}


def test_missing_keys_take_their_defaults():
    assert config.from_json('{"train": {"seed": 3}}') == config.Config(train=config.Train(seed=3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"trian": {}}', "config has no key 'trian'; did you mean 'train'"),
        ('{"model": {"d_modle": 3}}', "config.model has no key 'd_modle'; did you mean 'd_model'"),
        ('{"data": {"zzz": 3}}', "config.data has no key 'zzz'; known: source, target, train"),
    ],
)
def test_an_unknown_key_names_the_nearest(text, message):
    with pytest.raises(ValueError, match=message):
        config.from_json(text)


def test_stop_is_a_number_and_a_unit():
    assert config.parse_stop("5000u") == {"u": 5000.0}
    assert config.parse_stop(" 3e ") == {"e": 3.0}
    assert config.parse_stop("0.5m, 70u") == {"m": 0.5, "u": 70.0}


@pytest.mark.parametrize(
    "stop", ["", "20", "m", "0u", "-3e", "5h", "1e3u", "u5", "5 000u", "5u,", "5u 3e"]
)
def test_another_stop_is_an_error_that_says_what_to_write(stop):
    with pytest.raises(ValueError, match=r"5000u \(updates\), 3e \(epochs\), 20m \(minutes\)"):
        config.parse_stop(stop)


def test_an_experiment_file_gives_its_config(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from tfm.config import Config, Train\n"
        "def get_config():\n"
        "    return Config(train=Train(seed=9))\n"
    )
    assert config.from_file(path).train.seed == 9
    assert config.from_file(str(path)).train.seed == 9


def test_a_bad_experiment_file_is_named(tmp_path):
    missing, empty, wrong = (tmp_path / f"{name}.py" for name in ("missing", "empty", "wrong"))
    with pytest.raises(FileNotFoundError, match=r"missing\.py: no such file"):
        config.from_file(missing)
    empty.write_text("")
    with pytest.raises(ValueError, match=r"empty\.py: defines no get_config"):
        config.from_file(empty)
    wrong.write_text("def get_config():\n    return {}\n")
    with pytest.raises(ValueError, match=r"wrong\.py: get_config\(\) returned dict"):
        config.from_file(wrong)


def test_a_misspelt_field_in_an_experiment_file_names_the_nearest(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from tfm.config import Config, Train\n"
        "def get_config():\n"
        "    return Config(train=Train(stpo='9u'))\n"
    )
    with pytest.raises(ValueError, match=r"mine\.py.*stpo.*did you mean 'stop'"):
        config.from_file(path)
