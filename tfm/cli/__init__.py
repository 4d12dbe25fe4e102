"""The ``tfm`` command: one typed function a subcommand.

Results go to stdout, everything else to stderr. A wrong input ends with one clear line and exit
code 1; a run that was told to stop saves and exits with 143.
"""

import functools
import os
import sys
from collections.abc import Callable

import tyro

from tfm import config, hint, terminal
from tfm.cli import embed, inspect, plan, train, translate

_USAGE = """usage: tfm COMMAND [options]

  demo         train the built-in phrasebook on this machine, score it, translate a few sentences
  train        train an experiment file, or go on where it stopped
  translate    translate lines of text
  score        log-probability of each target given its source
  evaluate     BLEU and chrF of a model on a test set
  inspect      a page that shows every step of one sentence's way through a model
  embed        word vectors: train, neighbours, evaluate, align
  check-data   what is in a corpus, what would be dropped, what memory training needs
  plan         what an experiment needs on TPUs or GPUs one does not have, before renting them

`tfm COMMAND --help` shows the options of one."""

_COMMANDS: dict[str, Callable[..., int] | dict[str, Callable[..., int]]] = {
    "demo": train.demo,
    "train": train.train,
    "translate": translate.translate,
    "score": translate.score,
    "evaluate": translate.evaluate,
    "inspect": inspect.inspect,
    "check-data": train.check_data,
    "plan": plan.plan,
    "embed": embed.COMMANDS,
}
_TAKE_AN_EXPERIMENT = ("train", "check-data", "plan")


def start() -> None:
    """Entry point of the ``tfm`` command: ``main`` in a process with huge pages."""
    terminal.use_huge_pages()
    main()


def main() -> None:
    """Parses ``sys.argv``, runs the command, and exits with its code."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        sys.exit(0 if arguments else 2)
    name = arguments[0]
    if name not in _COMMANDS:
        sys.exit(f"tfm: unknown command {name!r}{hint.nearest(name, _COMMANDS)}\n\n{_USAGE}")
    terminal.start_logging()
    try:
        sys.exit(_call(name, arguments[1:]))
    except BrokenPipeError:  # whoever reads our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"tfm {name}: error: " + " ".join(str(error).split()))


def _call(name: str, arguments: list[str]) -> int:
    """Parses the options of one command and runs it."""
    command = _COMMANDS[name]
    if isinstance(command, dict):
        return tyro.extras.subcommand_cli_from_dict(command, prog=f"tfm {name}", args=arguments)
    if name not in _TAKE_AN_EXPERIMENT:
        return tyro.cli(command, prog=f"tfm {name}", args=arguments)
    if not arguments or arguments[0].startswith("-"):
        print(f"usage: tfm {name} EXPERIMENT.py [--workdir DIR] [--section.field value ...]\n")
        print(f"{command.__doc__}\n`tfm {name} EXPERIMENT.py --help` lists all fields.")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    experiment = config.from_file(arguments[0])

    call = functools.partial(command, experiment=experiment)
    return tyro.cli(call, prog=f"tfm {name} {arguments[0]}", args=arguments[1:])
