"""The ``tfm`` command: one typed function a subcommand.

Results go to stdout, everything else to stderr. A wrong input ends with one clear line and exit
code 1; a run that was told to stop saves and exits with 143.
"""

import dataclasses
import functools
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import tyro

from tfm import config, terminal
from tfm.data import text

_log = logging.getLogger("tfm")

_USAGE = """usage: tfm COMMAND [options]

  demo         train the built-in phrasebook on this machine, score it, translate a few sentences
  train        train an experiment file, or go on where it stopped
  translate    translate lines of text
  score        log-probability of each target given its source
  evaluate     BLEU and chrF of a model on a test set
  check-data   what is in a corpus, what would be dropped, what memory training needs

`tfm COMMAND --help` shows the options of one."""

LengthNorm = Literal["power", "gnmt"]
Experiment = Annotated[config.Config, tyro.conf.arg(name="")]


def train(workdir: Path, experiment: Experiment) -> int:
    """Train an experiment, or go on with it where it stopped.

    Args:
        workdir: Folder of the run: config, tokenizers, checkpoints, log.
        experiment: Fields of the experiment file, to be overridden one by one.
    """
    from tfm.training import loop

    outcome = loop.train(experiment, workdir)
    metric = experiment.train.metric
    best = "" if outcome.best is None else f"; best dev {metric} {outcome.best:.2f}"
    _log.info(f"stopped at update {outcome.step:,}: {outcome.reason}{best}")
    return loop.SIGTERM_EXIT if outcome.interrupted else 0


def check_data(experiment: Experiment, workdir: Path | None = None) -> int:
    """Look at an experiment's data before training on it.

    Shows lengths, duplicates, what would be dropped, pieces a word, the density of packed batches
    and the memory that training will need.

    Args:
        experiment: Fields of the experiment file, to be overridden one by one.
        workdir: Folder of a run whose tokenizers to use; by default they are trained and forgotten.
    """
    from tfm.training import check

    print(check.report(experiment, workdir))
    return 0


def translate(
    model: Path,
    input: Path | None = None,
    output: Path | None = None,
    batch_size: int | None = None,
    beam_size: int | None = None,
    length_penalty: float | None = None,
    length_norm: LengthNorm | None = None,
    max_length_factor: float | None = None,
    max_length_offset: int | None = None,
    n_best: int = 1,
) -> int:
    """Translate text, a line at a time: for every line in, one line out.

    Args:
        model: Folder of a run.
        input: UTF-8 text, plain or .gz; stdin if not given.
        output: Where translations go; stdout if not given.
        batch_size: Sentences translated together. This and the next five default to the run's own.
        beam_size: Hypotheses a sentence; 1 is greedy.
        length_penalty: Alpha of the length normalisation.
        length_norm: power is length^alpha, gnmt is ((5+length)/6)^alpha.
        max_length_factor: At most this times the source's pieces are written ...
        max_length_offset: ... plus this.
        n_best: Translations a line. Above 1, a line of output holds line number, score, natural-log
            probability and text, separated by tabs.
    """
    from tfm import translator

    decode = _given(
        batch_size=batch_size,
        beam_size=beam_size,
        length_penalty=length_penalty,
        length_norm=length_norm,
        max_length_factor=max_length_factor,
        max_length_offset=max_length_offset,
    )
    opened = translator.load(model)
    at_once = 16 * (batch_size or opened.config.decode.batch_size)
    with _reading(input) as (lines, is_terminal), _writing(output) as out:
        numbered = enumerate(lines, 1)
        while chunk := list(itertools.islice(numbered, 1 if is_terminal else at_once)):
            numbers, texts = zip(*chunk, strict=True)
            for number, found in zip(numbers, opened.n_best(texts, n_best, **decode), strict=True):
                rows = [found[0].text] if n_best == 1 else _n_best_rows(number, found)
                out.write("".join(f"{row}\n" for row in rows).encode())
            out.flush()
    return 0


def score(model: Path, source: Path, target: Path) -> int:
    """Print the natural-log probability of each target line given its source line.

    Args:
        model: Folder of a run.
        source: UTF-8 text, a sentence a line, plain or .gz.
        target: Its translation, line by line.
    """
    from tfm import translator

    for value in translator.load(model).score(*_parallel(source, target)):
        print(f"{value:.6f}")
    return 0


def evaluate(
    model: Path,
    source: Path,
    reference: Path,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    batch_size: int | None = None,
    beam_size: int | None = None,
    length_penalty: float | None = None,
    length_norm: LengthNorm | None = None,
) -> int:
    """Translate a test set; print BLEU and chrF with their signatures, and the speed.

    Args:
        model: Folder of a run.
        source: UTF-8 text, a sentence a line, plain or .gz.
        reference: Human translations, line by line.
        as_json: Print one JSON object instead of lines.
        batch_size: Sentences translated together. This and the next three default to the run's own.
        beam_size: Hypotheses a sentence; 1 is greedy.
        length_penalty: Alpha of the length normalisation.
        length_norm: power is length^alpha, gnmt is ((5+length)/6)^alpha.
    """
    from tfm import evaluation, translator

    decode = _given(
        batch_size=batch_size,
        beam_size=beam_size,
        length_penalty=length_penalty,
        length_norm=length_norm,
    )
    sources, references = _parallel(source, reference)
    opened = translator.load(model)
    start = time.perf_counter()
    hypotheses = opened.translate(sources, **decode)
    seconds = time.perf_counter() - start - opened.compile_seconds
    scores = [
        evaluation.bleu(hypotheses, references, opened.config.data.target),
        evaluation.chrf(hypotheses, references),
        evaluation.exact_match(hypotheses, references),
    ]
    speed = {
        "sentences": len(sources),
        "seconds": round(seconds, 3),
        "sentences_per_second": round(len(sources) / seconds, 3),
        "compile_seconds": round(opened.compile_seconds, 3),
    }
    settings = dataclasses.asdict(dataclasses.replace(opened.config.decode, **decode))
    if as_json:
        found = {s.name: {"value": s.value, "signature": s.signature} for s in scores}
        print(json.dumps({"scores": found, "decode": settings} | speed, indent=2))
        return 0
    print("\n".join(map(str, scores)))
    print("decode " + ", ".join(f"{name} {value}" for name, value in settings.items()))
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in speed.items()))
    return 0


def demo(workdir: Path = Path("runs/demo"), minutes: float = 5.0) -> int:
    """Train the built-in Chinese-English phrasebook, score it on unseen pairs, and translate.

    Args:
        workdir: Folder of the run.
        minutes: Train no longer than this; two cores need about three.
    """
    from tfm import demo as demonstration

    demonstration.run(workdir, minutes)
    return 0


_COMMANDS: dict[str, Callable[..., int]] = {
    "demo": demo,
    "train": train,
    "translate": translate,
    "score": score,
    "evaluate": evaluate,
    "check-data": check_data,
}
_TAKE_AN_EXPERIMENT = ("train", "check-data")


def start() -> None:
    """Entry point of the ``tfm`` command: ``main`` in a process with huge pages."""
    _use_huge_pages()
    main()


def main() -> None:
    """Parses ``sys.argv``, runs the command, and exits with its code."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        sys.exit(0 if arguments else 2)
    name = arguments[0]
    if name not in _COMMANDS:
        sys.exit(f"tfm: unknown command {name!r}{config.nearest(name, _COMMANDS)}\n\n{_USAGE}")
    terminal.start_logging()
    try:
        sys.exit(_call(name, arguments[1:]))
    except BrokenPipeError:  # whoever reads our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"tfm {name}: error: " + " ".join(str(error).split()))


def _use_huge_pages() -> None:
    """Starts this program over, once, with huge pages for large arrays, where glibc can do that.

    XLA asks malloc for hundreds of megabytes in every step; with pages of 4 KiB a CPU spends a
    fifth of a training step on filling them in. glibc reads the setting at the start only.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _call(name: str, arguments: list[str]) -> int:
    """Parses the options of one command and runs it."""
    command = _COMMANDS[name]
    if name not in _TAKE_AN_EXPERIMENT:
        return tyro.cli(command, prog=f"tfm {name}", args=arguments)
    if not arguments or arguments[0].startswith("-"):
        print(f"usage: tfm {name} EXPERIMENT.py [--workdir DIR] [--section.field value ...]\n")
        print(f"{command.__doc__}\n`tfm {name} EXPERIMENT.py --help` lists all fields.")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    experiment = config.from_file(arguments[0])

    call = functools.partial(command, experiment=experiment)
    return tyro.cli(call, prog=f"tfm {name} {arguments[0]}", args=arguments[1:])


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _n_best_rows(number: int, found: list) -> list[str]:
    return [f"{number}\t{t.score:.4f}\t{t.log_prob:.4f}\t{t.text}" for t in found]


@contextmanager
def _reading(path: Path | None) -> Iterator[tuple[Iterator[str], bool]]:
    """Lines of a file or of stdin, and whether a person is typing them."""
    if path is None:
        yield text.decode(text.split(sys.stdin.buffer), "stdin"), sys.stdin.isatty()
    else:
        yield text.decode(text.lines(path), str(path)), False


@contextmanager
def _writing(path: Path | None) -> Iterator[BinaryIO]:
    """A file that appears only when it is whole, or stdout."""
    if path is None:
        yield sys.stdout.buffer
        return
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        if error.filename not in (None, str(part)):  # then it is not about the output
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def _parallel(source: Path, target: Path) -> tuple[list[str], list[str]]:
    """Both files' lines, as many in one as in the other."""
    sides = [list(text.decode(text.lines(path), str(path))) for path in (source, target)]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(
            f"{source} has {len(sides[0]):,} lines but {target} has {len(sides[1]):,}: "
            "line N of one must belong to line N of the other"
        )
    return sides[0], sides[1]
