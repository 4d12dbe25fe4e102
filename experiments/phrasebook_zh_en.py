"""The built-in phrasebook, Chinese → English: the model that ``tfm demo`` trains.

tfm train experiments/phrasebook_zh_en.py --workdir runs/phrasebook
"""

from tfm import config, demo


def get_config() -> config.Config:
    return demo.get_config()
