"""The ``tfm`` command: one typed function for each subcommand.

Results go to stdout, everything else to stderr. Wrong input ends with one clear line and exit code
1. Ctrl-C ends with exit code 130 and SIGTERM with 143, at once; a run that trains first saves a
checkpoint, and the same command resumes it.
"""

import os


def start() -> None:
    """Entry point of the ``tfm`` command: ``main``, in a process with huge pages."""
    try:
        from tfm import terminal  # here, so that Ctrl-C ends the imports without a traceback

        terminal.use_huge_pages()
        main()
    except KeyboardInterrupt:
        os._exit(130)


def main() -> None:
    """Parses ``sys.argv``, runs the command, and exits with its code."""
    from tfm.cli import commands

    commands.main()
