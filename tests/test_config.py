import dataclasses
import json

import pytest

from tfm import config, positions, transformer
from tfm.transformer import Architecture, Execution

# A config.json as version 0.1.0 wrote it: format 1, without a number.
FORMAT_1 = """{"model": {"source_vocab": 9, "target_vocab": 11, "d_model": 256, "heads": 4,
"kv_heads": 0, "head_dim": 0, "d_ff": 1024, "encoder_layers": 3, "decoder_layers": 3,
"embeddings": {"init": ["zh.bin", "en.bin"]}, "positions": "rotary_interleaved", "max_length":
128, "relative_clip": 3, "relative_buckets": 8, "relative_max_distance": 12, "rotary_base":
500.0, "rotary_scaling": 2.0, "attention": "softmax", "cross_attention": "softmax", "window":
32, "qk_norm": false, "soft_cap": 0.0, "implementation": "xla", "norm": "layer",
"norm_placement": "pre", "activation": "relu", "bias": true, "dropout": 0.1,
"attention_dropout": 0.0, "activation_dropout": 0.0, "tie": "target-output", "lookup":
"one_hot", "dtype": "bfloat16", "unroll": 1, "remat": "dots"}, "tokenizer": {"kind": "unigram",
"source_size": 8000, "target_size": 8000, "joint": false, "byte_fallback": true, "coverage":
0.0, "sentences": 1000000, "sample_nbest": 1, "sample_alpha": 0.2}, "data": {"source": "zh",
"target": "en", "train": ["phrasebook:train"], "dev": ["phrasebook:dev"], "test":
["phrasebook:test"], "tsv_columns": [0, 1], "rows": 32, "source_length": 64, "target_length":
64, "seed": 0, "cache_dir": ""}, "optimizer": {"name": "adam", "learning_rate": 0.001, "warmup":
1000, "schedule": "rsqrt", "decay_updates": 0, "final_fraction": 0.0, "b1": 0.9, "b2": 0.98,
"eps": 1e-09, "weight_decay": 0.0, "clip": 1.0}, "train": {"seed": 0, "stop": "20m",
"log_every": 50, "validate_every": 1000, "checkpoint_every": 1000, "accumulate": 1,
"label_smoothing": 0.1, "loss_chunk": 256, "ema": 0.0, "metric": "bleu", "patience": 0,
"dev_limit": 500, "dev_beam": 1, "bad_steps": 5, "save_tries": 5, "save_pause": 1.0,
"on_full_disk": "stop"}, "decode": {"beam_size": 5, "length_penalty": 1.0, "length_norm":
"gnmt", "max_length_factor": 2.0, "max_length_offset": 10, "batch_size": 64}, "mesh": {"data":
-1, "fsdp": 1, "tensor": 1, "sequence": 1}}"""
# Another, the model's section alone, with the values that were the defaults.
FORMAT_1_MODEL = """{"source_vocab": 13, "target_vocab": 13, "d_model": 32, "heads": 2,
"kv_heads": 0, "head_dim": 0, "d_ff": 64, "encoder_layers": 1, "decoder_layers": 1,
"embeddings": {"init": []}, "positions": "learned", "max_length": 512, "relative_clip": 16,
"relative_buckets": 32, "relative_max_distance": 128, "rotary_base": 10000.0, "rotary_scaling":
1.0, "attention": "softmax", "cross_attention": "softmax", "window": 32, "qk_norm": false,
"soft_cap": 0.0, "implementation": "auto", "norm": "layer", "norm_placement": "pre",
"activation": "relu", "bias": true, "dropout": 0.0, "attention_dropout": 0.0,
"activation_dropout": 0.0, "tie": "target-output", "lookup": "gather", "dtype": "auto",
"unroll": 0, "remat": "none"}"""


def test_json_gives_back_the_same_config():
    experiment = config.Config(
        model=Architecture(d_model=48, tie="all", dropout=0.25, positions="rotary:base=500"),
        execution=Execution(unroll=2, dtype="bfloat16"),
        data=config.Data(train=("a.tsv", "tfds:x:train"), tsv_columns=(2, 0), test=()),
        train=config.Train(stop="5000u", init_embeddings=("zh.bin", "en.bin")),
        decode=config.Decode(strategy="sample", samples=3),
    )
    again = config.from_json(config.to_json(experiment))
    assert again == experiment
    assert hash(again) == hash(experiment)  # tuples, not lists: still fit for a static argument
    assert config.from_json(config.to_json(config.Config())) == config.Config()


@pytest.mark.parametrize("name", positions.SCHEMES)
def test_json_gives_back_the_same_positions(name):
    experiment = config.Config(model=Architecture(positions=name))
    assert config.from_json(config.to_json(experiment)) == experiment


def test_json_names_every_field_and_its_format_and_keeps_chinese_readable():
    text = config.to_json(config.Config(data=config.Data(train=("语料.tsv",))))
    assert "语料.tsv" in text and text.endswith("\n")
    data = json.loads(text)
    assert data.pop("format") == 2
    assert set(data) == {f.name for f in dataclasses.fields(config.Config)}
    for section in data:
        names = {f.name for f in dataclasses.fields(getattr(config.Config(), section))}
        assert set(data[section]) == names
    assert data["model"]["positions"] == {
        "scheme": "sinusoidal", "max_wavelength": 10_000.0, "endpoint": False,
        "interleaved": False, "offset": 0,
    }  # fmt: skip


def test_positions_may_be_written_as_text():
    read = config.from_json('{"format": 2, "model": {"positions": "rotary:base=500"}}')
    assert read.model.positions == positions.Rotary(base=500.0)


def test_a_config_of_format_1_is_read():
    read = config.from_json(FORMAT_1)
    assert read == config.Config(
        model=Architecture(
            source_vocab=9,
            target_vocab=11,
            positions=positions.Rotary(base=500.0, scaling=2.0, interleaved=True),
        ),
        execution=Execution(
            implementation="xla", lookup="one_hot", dtype="bfloat16", unroll=1, remat="dots"
        ),
        train=config.Train(init_embeddings=("zh.bin", "en.bin")),
    )
    transformer.validate(read.model, read.execution)
    assert config.from_json(config.to_json(read)) == read  # in the present format
    small = config.from_json(json.dumps({"model": json.loads(FORMAT_1_MODEL)}))
    assert small == config.Config(
        model=Architecture(
            source_vocab=13,
            target_vocab=13,
            d_model=32,
            heads=2,
            d_ff=64,
            encoder_layers=1,
            decoder_layers=1,
            dropout=0.0,
            positions=positions.Learned(512),
        )
    )


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("sinusoidal", positions.Sinusoidal()),
        ("learned", positions.Learned(128)),
        ("none", positions.NoPositions()),
        ("shaw", positions.Shaw(3)),
        ("t5", positions.T5(8, 12)),
        ("alibi", positions.ALiBi()),
        ("rotary", positions.Rotary(500.0, 2.0)),
        ("rotary_interleaved", positions.Rotary(500.0, 2.0, interleaved=True)),
        ("transformer_xl", positions.TransformerXL()),
    ],
)
def test_every_position_scheme_of_format_1_is_read(name, scheme):
    """The model had the hyperparameters of all schemes; a scheme takes its own."""
    data = json.loads(FORMAT_1)
    data["model"]["positions"] = name
    read = config.from_json(json.dumps(data))
    assert read.model == Architecture(source_vocab=9, target_vocab=11, positions=scheme)


def test_fields_missing_in_format_1_take_their_defaults():
    """As of a run of a still older version, which had not all fields."""
    assert config.from_json('{"model": {"d_model": 64}}').model == Architecture(d_model=64)
    read = config.from_json('{"model": {"positions": "rotary"}}')
    assert read.model.positions == positions.Rotary()


@pytest.mark.parametrize("number", ["3", "0", '"new"', "null", "1.5"])
def test_another_format_is_refused(number, tmp_path):
    text = f'{{"format": {number}, "model": {{"unheard_of": 3}}}}'
    with pytest.raises(ValueError, match=r"format .* is not known .* reads formats 1 to 2: inst"):
        config.from_json(text)
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: format .* is not known"):
        config.read(path)


def test_a_file_that_is_no_config_is_named(tmp_path):
    path = tmp_path / "config.json"
    for text in ("{", "[]", '{"format": 2, "model": {"positions": {"base": 3}}}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"config\.json: "):
            config.read(path)


def test_missing_keys_take_their_defaults():
    assert config.from_json('{"train": {"seed": 3}}') == config.Config(train=config.Train(seed=3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"trian": {}}', "config has no key 'trian'; did you mean 'train'"),
        ('{"model": {"d_modle": 3}}', "config.model has no key 'd_modle'; did you mean 'd_model'"),
        ('{"data": {"zzz": 3}}', "config.data has no key 'zzz'; known: source, target, train"),
        ('{"format": 2, "model": {"positions": "rotry"}}', "no scheme 'rotry'; did you mean"),
        (
            '{"format": 2, "model": {"positions": {"scheme": "t5", "bucket": 8}}}',
            "t5 has no hyperparameter 'bucket'; did you mean 'buckets'",
        ),
        ('{"format": 2, "model": {"unroll": 1}}', "config.model has no key 'unroll'"),
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


def test_a_reversed_experiment_swaps_everything_that_has_a_side():
    """Files of word vectors too; what both languages share stays."""
    experiment = config.Config(
        model=Architecture(d_model=32, encoder_layers=1, decoder_layers=2),
        tokenizer=config.Tokenizer(source_size=100, target_size=200),
        data=config.Data(
            source="zh", target="en", train=("a.zh", "a.en"), dev=("b.tsv",), test=(),
            tsv_columns=(2, 0), source_length=10, target_length=20,
        ),
        train=config.Train(init_embeddings=("zh.bin", "en.bin"), seed=3),
    )  # fmt: skip
    other = config.reverse(experiment)
    assert (other.data.source, other.data.target) == ("en", "zh")
    assert (other.data.train, other.data.dev) == (("a.en", "a.zh"), ("b.tsv",))
    assert other.data.tsv_columns == (0, 2)
    assert (other.data.source_length, other.data.target_length) == (20, 10)
    assert (other.tokenizer.source_size, other.tokenizer.target_size) == (200, 100)
    assert other.train == config.Train(init_embeddings=("en.bin", "zh.bin"), seed=3)
    assert other.model == experiment.model
    assert config.reverse(other) == experiment


@pytest.mark.parametrize("files", [(), ("both.bin",)])
def test_a_reversed_experiment_keeps_one_file_of_word_vectors(files):
    experiment = config.Config(
        tokenizer=config.Tokenizer(joint=True, source_size=100),
        train=config.Train(init_embeddings=files),
    )
    assert config.reverse(experiment).train.init_embeddings == files
    assert config.reverse(experiment).tokenizer.source_size == 100


def test_differences_name_fields_and_both_values():
    one = config.Config()
    other = dataclasses.replace(
        one,
        model=dataclasses.replace(one.model, d_model=8, positions="rotary:base=500"),
        execution=Execution(unroll=1),
    )
    assert config.differences(one, one) == []
    found = {name: values for name, *values in config.differences(one, other)}
    assert found == {
        "model.d_model": [256, 8],
        "model.positions": [positions.Sinusoidal(), positions.Rotary(base=500.0)],
        "execution.unroll": [0, 1],
    }
    rotary = dataclasses.replace(other, model=Architecture(positions="rotary"))
    found = [name for name, *_ in config.differences(rotary, other)]
    assert found == ["model.d_model", "model.positions.base"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a = 1\nb = = 2\n", 2, "invalid syntax"),
        ("def get_config():\nreturn 1\n", 2, "expected an indented block"),
        ("a = '你\n", 1, "unterminated string"),
        ("import no_such_module\n", 1, "ModuleNotFoundError: No module named 'no_such_module'"),
        ("from tfm import config\n\nconfig.Trian()\n", 3, "has no attribute 'Trian'"),
        ("a = {}\ndef get_config():\n    return a['x']\n", 3, "KeyError: 'x'"),
        ("def f():\n    raise ValueError('a\\nb')\nget_config = lambda: f()\n", 2, ": a b"),
        ("import json\nget_config = lambda: json.loads('{')\n", 2, "JSONDecodeError: Expecting"),
        ("import sys\nsys.exit('no')\n", 2, "SystemExit: no"),
        ("def get_config():\n    assert False\n", 2, "AssertionError"),
        ("def get_config():\n    return get_config()\n", 2, "RecursionError: maximum recursion"),
        ("def get_config(name):\n    pass\n", 1, "missing 1 required positional argument: 'name'"),
        ("from tfm.config import *\ndef get_config():\n    return Config(trian=3)\n", 3,
         "unexpected keyword argument 'trian'; did you mean 'train'?"),
    ],
)  # fmt: skip
def test_an_error_in_an_experiment_file_is_one_line_with_its_number(tmp_path, text, line, words):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        config.from_file(path)
    message = str(error.value)
    assert message.startswith(f"experiment {path} line {line}: ") and words in message
    assert "\n" not in message


def test_experiment_files_that_are_no_python(tmp_path):
    path = tmp_path / "mine.py"
    path.write_bytes(b"\x00\xff")
    with pytest.raises(ValueError, match=r"experiment .*mine\.py"):
        config.from_file(path)
    path.write_text("get_config = 3")
    with pytest.raises(ValueError, match=r"mine\.py: 'int' object is not callable"):
        config.from_file(path)


def test_ctrl_c_in_an_experiment_file_is_no_error_of_the_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        config.from_file(path)
