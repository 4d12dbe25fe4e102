"""What a checkpoint holds, written down so that it can be checked when read back.

The manifest lists every array with its shape, its dtype and a digest of its bits, carries the run's
position, and ends with a checksum of itself. All of it is JSON.
"""

import json
import math
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Tree = Any  # any pytree of arrays
Manifest = dict[str, Any]


class Damage(ValueError):
    """The checkpoint is not what it was when it was saved; all processes that read it see that."""


class Disagreement(ValueError):
    """The checkpoint is whole, but not of this model."""


def make(state: Tree, position: dict[str, Any]) -> Manifest:
    """The manifest of a state of jax arrays, with whatever JSON-able else belongs to it."""
    digests = _digests(state)
    arrays = {
        name: {"shape": list(x.shape), "dtype": str(x.dtype), "digest": digests[name]}
        for name, x in _named(state).items()
    }
    manifest = {"arrays": arrays, "position": position}
    return manifest | {"checksum": _checksum(manifest)}


def check_itself(manifest: Manifest) -> None:
    """Raises ``Damage`` unless the manifest is as it was made."""
    if manifest["checksum"] != _checksum(manifest):
        raise Damage("its manifest fails the checksum")


def check_target(manifest: Manifest, target: Tree, where: str) -> None:
    """Raises ``Disagreement`` unless the target has the names, shapes and dtypes of the manifest.

    Args:
      where: what the manifest belongs to, for the message.
    """
    saved = {name: f"{a['dtype']}{a['shape']}" for name, a in manifest["arrays"].items()}
    wanted = {name: f"{x.dtype}{list(x.shape)}" for name, x in _named(target).items()}
    wrong = [n for n in {**wanted, **saved} if saved.get(n) != wanted.get(n)]
    if wrong:
        name, more = wrong[0], f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise Disagreement(
            f"{where} and the config disagree at {name}: the checkpoint has "
            f"{saved.get(name, 'nothing')}, the config {wanted.get(name, 'nothing')}{more}; "
            "resume with the config of the run, or choose another folder"
        )


def check_data(manifest: Manifest, state: Tree) -> None:
    """Raises ``Damage`` unless every array has the bits that the manifest was made from."""
    for name, digest in _digests(state).items():
        if digest != manifest["arrays"][name]["digest"]:
            raise Damage(f"the data of {name} fail their checksum")


def numpy_tree(manifest: Manifest, only: Sequence[str] = ()) -> Tree:
    """Empty NumPy arrays in nested dicts, as the names say ("encoder/q" is [encoder][q]).

    Args:
      only: the first names wanted; () is all.
    """
    tree: dict[str, Any] = {}
    for name, a in manifest["arrays"].items():
        *parents, last = name.split("/")
        if only and name.split("/")[0] not in only:
            continue
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = np.empty(a["shape"], jnp.dtype(a["dtype"]))
    return tree


def _checksum(manifest: Manifest) -> int:
    content = {key: manifest[key] for key in ("arrays", "position")}
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _named(tree: Tree) -> dict[str, Any]:
    """{"params/encoder/q": leaf}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


def _digests(tree: Tree) -> dict[str, int]:
    """32 bits an array, made where the array lives: the same for every sharding."""
    return {name: int(digest) for name, digest in jax.device_get(_all(_named(tree))).items()}


@jax.jit
def _all(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """One program: of many that communicate, started together, CPUs can block each other."""
    return {name: _digest(x) for name, x in arrays.items()}


def _digest(x: jax.Array) -> jax.Array:
    """Σ hash(bits, index) mod 2³²: any one changed element changes it for certain.

    The hash is MurmurHash3's finaliser, one-to-one in the element's bits. A sum of integers does
    not depend on its order, so devices may add up their shards first.
    """
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}").astype(jnp.uint32)
    index = jnp.zeros((), jnp.uint32)
    for axis in range(x.ndim):
        stride = math.prod(x.shape[axis + 1 :]) % 2**32
        index += lax.broadcasted_iota(jnp.uint32, x.shape, axis) * jnp.uint32(stride)
    h = bits ^ (index * jnp.uint32(0x9E3779B9))
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return (h ^ (h >> 16)).sum(dtype=jnp.uint32)
