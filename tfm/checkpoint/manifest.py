"""The manifest of a checkpoint, against which its arrays are verified when it is restored.

It lists every array with shape, dtype and a digest of its bits, contains the position of the run,
and has a checksum of itself. All of it is JSON.
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


class DamagedCheckpoint(ValueError):
    """The checkpoint is not what was saved; all processes that read it detect that."""


class StructureMismatch(ValueError):
    """The checkpoint is intact, but its arrays are not those of this model."""


def make(state: Tree, position: dict[str, Any]) -> Manifest:
    """The manifest of a state of jax arrays and the JSON-able position saved with it."""
    digests = _digests(state)
    arrays = {
        name: {"shape": list(x.shape), "dtype": str(x.dtype), "digest": digests[name]}
        for name, x in _named(state).items()
    }
    manifest = {"arrays": arrays, "position": position}
    return manifest | {"checksum": _checksum(manifest)}


def check_itself(manifest: Manifest) -> None:
    """Raises ``DamagedCheckpoint`` unless the manifest's checksum is right."""
    if manifest["checksum"] != _checksum(manifest):
        raise DamagedCheckpoint("the checksum of its manifest is wrong")


def check_target(
    manifest: Manifest,
    target: Tree,
    where: str,
    advice: str = "resume with the config of the run, or choose another folder",
    only: Sequence[str] = (),
) -> None:
    """Raises ``StructureMismatch`` unless the target has the manifest's names, shapes and dtypes.

    Args:
      where: the checkpoint, for the message.
      advice: what to do, for the message.
      only: first names of the arrays of the manifest that count; () is all.
    """
    saved = {
        name: f"{a['dtype']}{a['shape']}"
        for name, a in manifest["arrays"].items()
        if not only or name.split("/")[0] in only
    }
    wanted = {name: f"{x.dtype}{list(x.shape)}" for name, x in _named(target).items()}
    wrong = [n for n in {**wanted, **saved} if saved.get(n) != wanted.get(n)]
    if wrong:
        name, more = wrong[0], f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        has, should = saved.get(name, "nothing"), wanted.get(name, "nothing")
        raise StructureMismatch(
            f"{where} and the config disagree at {name}: the checkpoint has {has}, the config "
            f"{should}{more}; {advice}"
        )


def check_data(manifest: Manifest, state: Tree) -> None:
    """Raises ``DamagedCheckpoint`` unless every array has the digest of the manifest."""
    for name, digest in _digests(state).items():
        if digest != manifest["arrays"][name]["digest"]:
            raise DamagedCheckpoint(f"the checksum of {name} is wrong")


def numpy_tree(manifest: Manifest, only: Sequence[str] = ()) -> Tree:
    """Uninitialised NumPy arrays in nested dicts: "encoder/q" becomes [encoder][q].

    Args:
      only: first names of the arrays wanted; () is all.
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
    """Leaves by path: {"params/encoder/q": leaf}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


def _digests(tree: Tree) -> dict[str, int]:
    """A 32-bit digest of each array, computed on its devices: the same for every sharding."""
    return {name: int(digest) for name, digest in jax.device_get(_digest_all(_named(tree))).items()}


@jax.jit
def _digest_all(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """One program for all arrays: several at the same time can deadlock on CPUs."""
    return {name: _digest(x) for name, x in arrays.items()}


def _digest(x: jax.Array) -> jax.Array:
    """Σ hash(bits, index) mod 2³²; a change of any single element always changes it.

    The hash is MurmurHash3's finaliser, a bijection of the element's bits. Integer sums do not
    depend on their order, so devices can sum their shards first.
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
