"""Whatever a setting or an option is: it is taken, or one sentence names it before any work."""

import dataclasses
import pathlib
import re
import tempfile
import time
import typing

import hostile
import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfm
from tfm import demo, ranges
from tfm.ranges import Range
from tfm.training import loop
from tfm.word2vec import corpus as word_corpus
from tfm.word2vec import model as words
from tfm.word2vec import training as word_training

pytestmark = pytest.mark.usefixtures("quick_compile")

SETTINGS, OPTIONS, COMMANDS = hostile.settings(), hostile.options(), hostile.commands()
SECONDS = 2.0  # of this process's time, until a refusal
examples = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def test_every_number_has_a_range():
    numbers = [s for s in SETTINGS if s.kind.type in (int, float)]
    numbers += [o for o in OPTIONS if o.kind.type in (int, float)]
    assert not [x for x in numbers if not any(isinstance(b, Range) for b in x.kind.bounds)]
    counts = len(SETTINGS), len({o.command for o in OPTIONS}), len(OPTIONS), len(numbers)
    print("{} fields, {} commands with {} options, {} numbers among both".format(*counts))
    assert counts >= (121, 12, 390, 250)


def refusal(section, name, make):
    """The sentence that refuses what ``make`` makes, which has ``name``; None if it is taken."""
    start = time.process_time()
    try:
        ranges.check(make(), section)
        return None
    except ValueError as error:
        message = str(error)
    assert time.process_time() - start < SECONDS
    assert "\n" not in message and len(message) < 400
    assert name in message, message
    return message


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.path)
def test_a_field_takes_a_hostile_value_or_names_itself(setting):
    for value in setting.values():
        message = refusal(setting.section, setting.name, lambda: setting.owner_with(value))  # noqa: B023
        if message is None:
            assert value == value and value not in (float("inf"), float("-inf"))
            assert setting.kind.type is not int or value is None or type(value) is int
    assert refusal(setting.section, setting.name, lambda: setting.owner_with(object()))
    assert refusal(setting.section, setting.name, setting.owner) is None


anything = st.one_of(
    st.integers(), st.floats(), st.text(), st.booleans(), st.none(), st.binary(),
    st.tuples(st.integers(), st.integers()), st.lists(st.text(), max_size=3).map(tuple),
    st.lists(st.integers(), max_size=2), st.sampled_from(hostile.VALUES),
)  # fmt: skip


@examples
@given(st.sampled_from(SETTINGS), anything)
def test_a_field_takes_any_value_or_names_itself(setting, value):
    refusal(setting.section, setting.name, lambda: setting.owner_with(value))


@examples
@given(st.sampled_from([s for s in SETTINGS if s.kind.type in (int, float)]), st.data())
def test_a_number_is_taken_where_it_is_in_its_range_and_only_there(setting, data):
    bound = next(b for b in setting.kind.bounds if isinstance(b, Range))
    value = data.draw(st.integers(-(2**31), 2**31) if setting.kind.type is int else st.floats())
    top = 2**31 - 1 if setting.kind.type is int else 3.4e38
    inside = (
        (-top if bound.least is None else bound.least)
        <= value
        <= (top if bound.most is None else bound.most)
        and (bound.above is None or value > bound.above)
        and (bound.below is None or value < bound.below)
    )
    message = refusal(setting.section, setting.name, lambda: setting.owner_with(value))
    assert (message is None) == (inside or value == bound.special)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Two updates of a tiny model, with a validation, from a folder of its own."""
    folder = tmp_path_factory.mktemp("hostile")
    every = {"stop": "2u", "log_every": 1, "validate_every": 2, "checkpoint_every": 2}
    return tiny.config(folder, train=every)


def train(experiment, folder):
    """None if it makes two updates; else the sentence that the command would end with."""
    try:
        outcome = loop.train(experiment, folder)
    except (ValueError, OSError, FloatingPointError) as error:
        return str(error)
    assert outcome.step == 2
    return None


EXTREMES = {
    "least": {
        "model": {"window": 1, "attention": "local", "soft_cap": 1e-3, "dropout": 0, "d_ff": 1},
        "tokenizer": {"sentences": 100, "coverage": 0.98},
        "data": {"rows": 1, "source": "é", "test": ()},
        "optimizer": {"warmup": 1, "learning_rate": 5e-324, "b1": 0, "b2": 0.0, "eps": 1e-30},
        "train": {"loss_chunk": 1, "dev_limit": 1, "bad_steps": 1, "save_tries": 1, "seed": 0},
        "decode": {"max_length_factor": 0, "max_length_offset": 0, "length_penalty": -10.0},
    },
    "most": {
        "model": {"window": 2**31 - 1, "soft_cap": 3e38, "dropout": 0.999},
        "execution": {"unroll": 2**31 - 1},
        "tokenizer": {"sentences": 2**31 - 1, "source_size": 10_000_000, "sample_alpha": 1000.0},
        "data": {"seed": 2**32 - 1, "target": "中文"},
        "optimizer": {"warmup": 2**31 - 1, "learning_rate": 3e38, "weight_decay": 0.0,
                      "b1": 0.999999, "b2": 0.999999, "clip": 3e38},
        "train": {"seed": 2**32 - 1, "loss_chunk": 2**31 - 1, "ema": 0.999999999, "log_every": 2,
                  "patience": 2**31 - 1, "dev_limit": 2**31 - 1, "bad_steps": 2**31 - 1,
                  "save_pause": 86_400.0, "label_smoothing": 0.999999999},
        "decode": {"length_penalty": 10.0, "batch_size": 2**31 - 1, "seed": 2**32 - 1},
    },
}  # fmt: skip


@pytest.mark.parametrize("end", EXTREMES)
def test_training_at_the_ends_of_many_ranges_at_once(end, experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train(tiny.change(experiment, **EXTREMES[end]), tmp_path / "run") is None


HOURS = {
    "model.encoder_layers", "model.decoder_layers", "data.rows", "decode.max_length_offset",
    "words.epochs",
}  # fmt: skip
"""Fields of which the most is taken and would take hours."""


def taken(setting):
    """The least, the most and another number that a field takes besides its default."""
    values = {
        setting.kind.type(value)
        for value in setting.values()
        if type(value) in (int, float)
        and refusal("", setting.name, lambda: setting.owner_with(value)) is None  # noqa: B023
    }
    values = sorted(values - {getattr(setting.owner(), setting.name)})
    few = {*values[:1], *values[len(values) // 2 :][:1], *values[-1:]}
    return sorted(few - {values[-1]} if setting.path in HOURS else few)


TAKEN = [
    pytest.param(setting, value, id=f"{setting.path}={value:g}")
    for setting in SETTINGS
    if setting.kind.type in (int, float) and setting.section != "hosts"
    for value in taken(setting)
]


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "value"), TAKEN[::12])  # each compiles: all take half an hour
def test_a_value_that_is_taken_works_or_is_named_later(
    setting, value, experiment, tiny_run, tmp_path, monkeypatch
):
    """Two updates and a validation, a translation, or word vectors; where a value does not go
    together with others, or not into memory, a sentence says so.
    """
    monkeypatch.chdir(tmp_path)
    section, name = setting.section.split(".")[0], setting.name
    try:
        if section == "words":
            small = words.Config(width=4, min_count=1, epochs=1, subsample=0.0)
            learn_words(dataclasses.replace(small, **{name: value}))
        elif section == "decode":
            strategy = "sample" if name in ("samples", "temperature", "top_k", "seed") else "beam"
            changes = {"strategy": strategy, name: value}
            assert len(tfm.load(tiny_run).translate(["ab cd", "fed"], **changes)) == 2
        else:
            changes = {section: {name: value}}
            if section == "positions":
                changes = {"model": {"positions": setting.owner_with(value)}}
            outcome = loop.train(tiny.change(experiment, **changes), tmp_path / "run")
            assert outcome.step == 2
    except (ValueError, FloatingPointError) as error:
        message = str(error)
        assert "\n" not in message and re.search(rf"\b{name}\b|learning rate", message), message


def learn_words(settings):
    text = [["a", "b", "c"], ["b", "c"]] * 20
    vocabulary = word_corpus.count(text, 1)
    with tempfile.TemporaryDirectory() as folder:
        stream = word_corpus.write(text, vocabulary, pathlib.Path(folder) / "ids")
        tables = word_training.train(settings, stream, vocabulary)
    assert np.isfinite(np.asarray(tables["input"])).all()


@pytest.fixture
def run(command, monkeypatch, tmp_path, experiment):
    """``run(option, *values)`` runs its command in a folder of its own, with all that it needs.

    No model, corpus or vectors are there: what is taken ends at the first file that is missing.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "run", train_nothing)
    missing = tiny.change(experiment, data={"train": ("gone",), "dev": ()})
    path = tiny.experiment(tmp_path, missing)
    model, pair = ("--model", "gone"), ("--source", "gone", "--target", "gone")
    given = {
        ("demo",): (),
        ("train",): (path, "--workdir", "run"),
        ("check-data",): (path,),
        ("plan",): (path, "--topology", "gone:1"),
        ("translate",): model,
        ("score",): (*model, *pair),
        ("evaluate",): (*model, "--source", "gone", "--reference", "gone"),
        ("serve",): model,
        ("compare",): ("gone", "gone too", "--source", "gone", "--reference", "gone"),
        ("inspect",): (*model, "a"),
        ("import",): ("marian", "gone", "--output", "out"),
        ("export",): ("gone", "--to", "ctranslate2", "--output", "out"),
        ("models",): ("gone",),
        ("embed", "train"): ("gone", "--output", "out"),
        ("embed", "neighbours"): ("gone", "a"),
        ("embed", "evaluate"): ("gone", "--similarity", "gone"),
        ("embed", "align"): ("gone", "gone", "--dictionary", "gone"),
    }
    assert set(given) == set(COMMANDS)
    expected = {}

    def error(err):
        """The only error line."""
        lines = [line for line in err.splitlines() if "error: " in line]
        assert len(lines) == 1 and lines[0] == err.splitlines()[-1], err
        return lines[0].partition("error: ")[2]

    def call(option, *values):
        base = [*option.command, *given[option.command]]
        if option.command not in expected:
            expected[option.command] = error(command(*base)[2])
        if option.positional:
            changed = [*option.command, *values, *given[option.command][1:]]
        else:
            changed = [*base, option.spelling, *values]
        for _ in range(2):  # a machine that other jobs use may need longer once
            start = time.process_time()
            code, _, err = command(*changed)
            if (seconds := time.process_time() - start) < SECONDS:
                break
        assert code in (1, 2) and "Traceback" not in err, (changed, err)
        assert seconds < SECONDS, (changed, seconds)
        if code == 2:  # the parser's answer, a box of several lines
            assert option.positional or option.spelling in err or option.command[0] in err, err
            return
        message = error(err)
        name = option.spelling.lstrip("-").replace("-", "_")
        named = option.spelling in message or name in message.replace("-", "_")
        assert named or message == expected[option.command] or repr_in(values, message), message

    return call


def train_nothing(folder, minutes):
    """In place of the demo: its options are taken."""
    raise ValueError("demo: options taken")


def repr_in(values, message):
    """Whether a message has one of the values, or its beginning."""
    escaped = [repr(value)[1:-1] for value in values]
    return any(" ".join(value.split())[:20] in message for value in [*values, *escaped])


def of_command(name):
    """The options of a command; of those that take an experiment as ``train`` does, fewer."""
    mine = [option for option in OPTIONS if option.command == name]
    return mine[:5] + mine[5::10] if name in (("check-data",), ("plan",)) else mine


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_an_option_takes_a_hostile_value_or_names_itself(name, run):
    """Each option with one of the values; with more of them in the slow test below."""
    for i, option in enumerate(of_command(name)):
        run(option, hostile.TEXTS[(7 * i + len(name[0])) % len(hostile.TEXTS)])


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_an_option_takes_many_hostile_values_or_names_itself(name, run):
    """A few of the values, others for each of sixteen neighbouring options."""
    for i, option in enumerate(of_command(name)):
        for text in hostile.TEXTS[i % 16 :: 16]:
            run(option, text)
        if not option.positional and typing.get_origin(option.kind.type) is not tuple:
            run(option)  # no value at all


# What a process can be given as an argument: no NUL, and no half of a surrogate pair.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@examples
@given(st.sampled_from(OPTIONS), texts | st.floats().map(str) | st.integers().map(str))
def test_an_option_takes_any_text_or_names_itself(run, option, text):
    run(option, text)
