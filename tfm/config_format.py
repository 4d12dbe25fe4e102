"""The format of ``config.json``: its number, and how a config of an older format is read."""

from typing import Any

FORMAT = 2
"""The format that is written. 1 (no number in the file): version 0.1.0."""

_EXECUTION = ("implementation", "lookup", "dtype", "unroll", "remat")
# Format 1 had the hyperparameters of all position schemes among the fields of the model.
_HYPERPARAMETERS = {
    "max_length": ("learned", "max_length"),
    "relative_clip": ("shaw", "clip"),
    "relative_buckets": ("t5", "buckets"),
    "relative_max_distance": ("t5", "max_distance"),
    "rotary_base": ("rotary", "base"),
    "rotary_scaling": ("rotary", "scaling"),
}


def upgrade(data: dict[str, Any]) -> dict[str, Any]:
    """The config in the present format, without its number.

    Raises:
      ValueError: it is no config, or its format is newer than this version of tfm.
    """
    if not isinstance(data, dict):
        raise ValueError("it holds no JSON object: a config is one")
    data = dict(data)
    number = data.pop("format", 1)
    if number not in range(1, FORMAT + 1):
        raise ValueError(
            f"format {number!r} is not known to this version of tfm, which reads formats 1 to "
            f"{FORMAT}: install a newer one"
        )
    return _from_format_1(data) if number == 1 else data


def _from_format_1(data: dict[str, Any]) -> dict[str, Any]:
    model, train = dict(data.get("model", {})), dict(data.get("train", {}))
    data["execution"] = {name: model.pop(name) for name in _EXECUTION if name in model}
    embeddings = model.pop("embeddings", {})
    if embeddings.get("init"):
        train["init_embeddings"] = embeddings["init"]
    name = model.get("positions", "sinusoidal")
    positions = {"scheme": name.removesuffix("_interleaved")}
    if name == "rotary_interleaved":
        positions["interleaved"] = True
    for old, (scheme, new) in _HYPERPARAMETERS.items():
        if old in model:
            value = model.pop(old)
            if scheme == positions["scheme"]:
                positions[new] = value
    return data | {"model": model | {"positions": positions}, "train": train}
