"""All commands by name, and how one is run."""

import functools
import importlib.metadata
import os
import signal
import sys
from collections.abc import Callable

import jax
import tyro

import tfm
from tfm import config, hint, signals, terminal
from tfm.cli import (
    compare,
    completion,
    embed,
    evaluate,
    inspect,
    models,
    plan,
    serve,
    train,
    translate,
)
from tfm.cli.arguments import checked
from tfm.cli.options import REGISTRY

_USAGE = """usage: tfm COMMAND [options]

  demo         train on the built-in phrasebook, score it and translate a few sentences
  train        train an experiment file, or resume it where it stopped
  translate    translate lines of text
  score        log-probability of each target given its source
  evaluate     BLEU and chrF of a model on a test set
  compare      several systems on a test set: significance, lengths, rare words, examples
  serve        answer requests for translations over HTTP, and a page to type them
  inspect      a page that shows every step of a model's computation on one sentence
  import       a run folder of a model of MarianMT, Marian or CTranslate2
  export       a run's model as a folder of CTranslate2
  models       what a folder of a model is, and what it can be exported to
  embed        word vectors: train, neighbours, evaluate, align
  check-data   report on a corpus: lengths, duplicates, what is dropped, memory for training
  plan         memory and time of an experiment on TPUs or GPUs that this machine does not have

`tfm COMMAND --help` shows the options of a command, `tfm --version` the version; the README says
how to get tab completion."""

COMMANDS: dict[str, Callable[..., int] | dict[str, Callable[..., int]]] = {
    "demo": train.demo,
    "train": train.train,
    "translate": translate.translate,
    "score": evaluate.score,
    "evaluate": evaluate.evaluate,
    "compare": compare.compare,
    "serve": serve.serve,
    "inspect": inspect.inspect,
    "check-data": train.check_data,
    "plan": plan.plan,
    "import": models.import_,
    "export": models.export,
    "models": models.models,
    "embed": embed.COMMANDS,
}
_EXPERIMENT_COMMANDS = ("train", "check-data", "plan")
_RESUMING_COMMANDS = ("train", "demo")


def main() -> None:
    """Parses ``sys.argv``, runs the command, and exits with its code."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        sys.exit(0 if arguments else 2)
    name = arguments[0]
    if name == "--version":
        print(f"tfm {tfm.__version__}, jax {importlib.metadata.version('jax')}")
        sys.exit(0)
    rest = arguments[1:] if name in COMMANDS else arguments
    if rest and rest[0] in completion.FLAGS:
        sys.exit(completion.generate(rest, COMMANDS))
    if name not in COMMANDS:
        sys.exit(f"tfm: unknown command {name!r}{hint.nearest(name, COMMANDS)}\n\n{_USAGE}")
    terminal.start_logging()
    signals.leave(_exit_code(name, arguments[1:]))


def _exit_code(name: str, arguments: list[str]) -> int | str:
    """Runs a command; returns its exit code, or the line that says why it failed."""
    try:
        with signals.raising():
            return _call(name, arguments)
    except BrokenPipeError:  # the reader of our output closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return signals.exit_code(signal.SIGPIPE)
    except (ValueError, OSError, FloatingPointError) as error:
        return f"tfm {name}: error: " + " ".join(str(error).split())
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        text = " ".join(str(error).split())
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in text:
            raise
        return f"tfm {name}: error: out of memory, take smaller sizes or batches: {text[:160]}"
    except signals.Stopped as stopped:
        resumes = "; the same command resumes the run" if name in _RESUMING_COMMANDS else ""
        print(f"tfm {name}: {stopped}{resumes}", file=sys.stderr)
        return stopped.exit_code


def _call(name: str, arguments: list[str]) -> int:
    """Parses the options of one command and runs it."""
    command = COMMANDS[name]
    if isinstance(command, dict):
        commands = {sub: checked(function) for sub, function in command.items()}
        return tyro.extras.subcommand_cli_from_dict(commands, prog=f"tfm {name}", args=arguments)
    command = checked(command)
    if name not in _EXPERIMENT_COMMANDS:
        return tyro.cli(command, prog=f"tfm {name}", args=arguments, registry=REGISTRY)
    if not arguments or arguments[0].startswith("-"):
        print(f"usage: tfm {name} EXPERIMENT.py [--workdir DIR] [--section.field value ...]\n")
        print(f"{command.__doc__}\n`tfm {name} EXPERIMENT.py --help` lists all fields.")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    experiment = config.from_file(arguments[0])

    call = functools.partial(command, experiment=experiment)
    return tyro.cli(call, prog=f"tfm {name} {arguments[0]}", args=arguments[1:], registry=REGISTRY)
