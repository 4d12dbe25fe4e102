"""WMT19 Chinese → English with eleven billion parameters: a TPU slice of 64 chips.

    tfm train experiments/wmt19_xxl_zh_en.py --workdir runs/wmt19-xxl-zh-en

Score: not yet run. README.md here says what ``tfm plan`` expects of it on v5p:4x4x4. The weights
are in 16 parts, not 64: a part narrower than a TPU's 128 lanes is not exchanged as a part.
"""

import dataclasses
from pathlib import Path

from tfm import config
from tfm.sharding import Mesh
from tfm.transformer import PRESETS


def get_config() -> config.Config:
    c = config.from_file(Path(__file__).with_name("wmt19_zh_en.py"))
    return dataclasses.replace(
        c,
        model=dataclasses.replace(PRESETS["xxl"], remat="full"),
        optimizer=dataclasses.replace(c.optimizer, learning_rate=3e-4),
        train=dataclasses.replace(c.train, accumulate=1, ema=0.0),
        mesh=Mesh(fsdp=16),
    )
