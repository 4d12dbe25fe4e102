"""Tatoeba English → Chinese: ``tatoeba_zh_en`` with source and target swapped.

    tfm train experiments/tatoeba_en_zh.py --workdir runs/tatoeba-en-zh

Score: not yet run.
"""

from pathlib import Path

from tfm import config


def get_config() -> config.Config:
    return config.reverse(config.from_file(Path(__file__).with_name("tatoeba_zh_en.py")))
