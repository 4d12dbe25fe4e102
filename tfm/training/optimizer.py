"""Optimizers and learning-rate schedules, composed of optax's parts by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tfm import config, params, ranges

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]


def schedule(settings: config.Optimizer) -> Schedule:
    """The learning rate as a function of the number of updates already made.

    With u = 1 for the first update, the rate is peak·u/warmup up to update ``warmup``; then

    - rsqrt: peak·√(warmup/u) (the shape of Vaswani et al. 2017, §5.3, eq. 3; theirs has the peak
      1/√(d_model·warmup));
    - cosine: half a cosine from the peak down to ``final_fraction``·peak at update
      ``decay_updates``, and constant afterwards (Loshchilov & Hutter 2017, §3, without restarts);
    - constant: the peak.

    Raises:
      ValueError: settings that contradict each other or are out of range.
    """
    check(settings)
    warmup, kind = settings.warmup, settings.schedule

    def shape(update: jax.Array) -> jax.Array:
        if kind == "rsqrt":
            return jnp.sqrt(warmup / jnp.maximum(update, warmup))
        if kind == "cosine":
            decay = optax.cosine_decay_schedule(
                1.0, settings.decay_updates - warmup, settings.final_fraction
            )
            return decay(jnp.maximum(update - warmup, 0.0))
        return jnp.ones_like(update)

    def rate(updates_made: jax.typing.ArrayLike) -> jax.Array:
        update = jnp.asarray(updates_made, jnp.float32) + 1
        warmup_factor = jnp.minimum(update / warmup, 1.0) if warmup else 1.0
        return settings.learning_rate * warmup_factor * shape(update)

    return rate


def make(settings: config.Optimizer, declaration: params.Tree) -> optax.GradientTransformation:
    """The optimizer: clip by global norm, precondition, decay, scale by the rate, in this order.

    - adam: Kingma & Ba 2015, with the settings of Vaswani et al. 2017, §5.3; no decay.
    - adamw: the same with decoupled decay (Loshchilov & Hutter 2019): -rate·weight_decay·θ.
    - adafactor: Shazeer & Stern 2018, §8: factored second moments with decay 1 - t^-0.8, updates
      clipped to RMS 1 and multiplied by the RMS of their parameter; ``b1``, ``b2`` and ``eps`` are
      not used. Layers stacked in one array are treated as one parameter.
    - lion: Chen et al. 2023, algorithm 2; ``eps`` is not used.

    Args:
      settings: name and hyperparameters.
      declaration: of the parameters, a nested dict of ``Param``.

    Raises:
      ValueError: settings that contradict each other or are out of range.
    """
    rate = optax.scale_by_learning_rate(schedule(settings))
    rules = {
        "adam": lambda: [optax.scale_by_adam(settings.b1, settings.b2, settings.eps)],
        "adamw": lambda: [optax.scale_by_adam(settings.b1, settings.b2, settings.eps)],
        "adafactor": lambda: [
            optax.scale_by_factored_rms(),
            optax.clip_by_block_rms(1.0),
            optax.scale_by_param_block_rms(),
        ],
        "lion": lambda: [optax.scale_by_lion(settings.b1, settings.b2)],
    }
    clip = [optax.clip_by_global_norm(settings.clip)] if settings.clip else []
    decay = (
        [optax.add_decayed_weights(settings.weight_decay, decay_mask(declaration))]
        if settings.weight_decay
        else []
    )
    return optax.chain(*clip, *rules[settings.name](), *decay, rate)


def decay_mask(declaration: params.Tree) -> Any:
    """Which parameters decay: those with two or more axes, among them the model width ("embed").

    These are embedding tables and projections. Norms, biases (also those of heads, which have two
    axes) and position tables do not decay.
    """

    def is_matrix(p: params.Param) -> bool:
        axes = [name for name in p.axes if name != "layers"]
        return len(axes) >= 2 and "embed" in axes and "position" not in axes

    return jax.tree.map(is_matrix, declaration, is_leaf=params.is_param)


def check(settings: config.Optimizer) -> None:
    """Raises ValueError for settings that are out of range or contradict each other."""
    ranges.check(settings, "optimizer")
    if settings.name == "adam" and settings.weight_decay:
        raise ValueError(
            f"optimizer.weight_decay {settings.weight_decay}: adam has none; "
            "set optimizer.name to adamw"
        )
    if settings.schedule == "rsqrt" and settings.warmup < 1:
        raise ValueError("optimizer.warmup 0: schedule rsqrt needs a warm-up of 1 update or more")
    if settings.schedule == "cosine" and settings.decay_updates <= settings.warmup:
        raise ValueError(
            f"optimizer.decay_updates {settings.decay_updates}: schedule cosine needs an update "
            f"later than warmup ({settings.warmup}) at which to end"
        )
