"""WMT19 Chinese → English with eleven billion parameters, on a TPU slice of 64 chips.

    tfm train experiments/wmt19_xxl_zh_en.py --workdir runs/wmt19-xxl-zh-en

Score: not yet run. README.md in this folder has the plan for v5p:4x4x4. The weights are sharded
over 16 chips, not 64: the TPU compiler replicates weights whose shards are narrower than 128 lanes.
"""

import dataclasses
from pathlib import Path

from tfm import config
from tfm.sharding import Mesh
from tfm.transformer import PRESETS, Execution


def get_config() -> config.Config:
    base = config.from_file(Path(__file__).with_name("wmt19_zh_en.py"))
    return dataclasses.replace(
        base,
        model=PRESETS["xxl"],
        execution=Execution(unroll=1, remat="full"),
        optimizer=dataclasses.replace(base.optimizer, learning_rate=3e-4),
        train=dataclasses.replace(base.train, accumulate=1, ema=0.0),
        mesh=Mesh(fsdp=16),
    )
