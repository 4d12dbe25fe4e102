"""``python -m tfm`` is the ``tfm`` command."""

from tfm.cli import start

if __name__ == "__main__":
    start()
