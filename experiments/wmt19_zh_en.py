"""WMT19 Chinese → English: the big model on a TPU slice.

    tfm train experiments/wmt19_zh_en.py --workdir runs/wmt19-zh-en

TFDS downloads the corpus (25 million pairs) on first use. Score: not yet run.

The settings fit v5e:2x4, v5e:16x16 and v5p:4x4x4 unchanged. They are chosen for v5e:2x4, where a
micro-batch has 32 rows per chip; with more chips use fewer micro-batches, down to
``--train.accumulate 1`` on the other two. For a larger batch of 512 rows per chip on v5e:16x16 use
``--data.rows 131072 --train.accumulate 16``. README.md in this folder has the plan for each.
"""

import dataclasses

from tfm.config import Config, Data, Optimizer, Tokenizer, Train
from tfm.transformer import PRESETS, Execution


def get_config() -> Config:
    return Config(
        model=dataclasses.replace(PRESETS["big"], dropout=0.1),
        execution=Execution(unroll=1, remat="dots"),
        tokenizer=Tokenizer(source_size=32_000, target_size=32_000),
        data=Data(
            source="zh",
            target="en",
            train=("tfds:wmt19_translate/zh-en:train",),
            dev=("tfds:wmt19_translate/zh-en:validation",),
            test=(),
            rows=2048,
            source_length=0,
            target_length=256,
        ),
        optimizer=Optimizer(learning_rate=1e-3, warmup=4000),
        train=Train(
            stop="100000u",
            accumulate=8,
            loss_chunk=4096,
            validate_every=5000,
            checkpoint_every=1000,
            ema=0.9999,
            dev_limit=0,
            dev_beam=4,
        ),
    )
