"""Models of Marian: ``.npz`` with the architecture as YAML inside, and vocabularies.

Matrices are [in,out] and vectors [1,n]. The decoder starts from a zero embedding, for which our
bos has a row of zeros; the sinusoids reach their longest wavelength, which CTranslate2's own
converter of Marian's models does not write, and then scores otherwise. Marian's score with
``--normalize 1`` is ours with ``length_norm power`` and ``length_penalty 1``.
"""

import ast
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfm.interop import mapping
from tfm.interop.mapping import Entry
from tfm.layers import Activation
from tfm.positions import Sinusoidal
from tfm.transformer import Architecture, table_names

YAML = "special:model.yml"
_PLACEMENTS = {("", "dan"): "post", ("n", "da"): "pre"}
_ACTIVATIONS: dict[str, Activation] = {"relu": "relu", "swish": "silu", "gelu": "gelu_exact"}
_UNSUPPORTED = {  # settings with the only value that is understood
    "type": ("transformer",),
    "transformer-rnn-projection": ("false",),
    "transformer-no-projection": ("false",),
    "transformer-decoder-autoreg": ("self-attention",),
    "transformer-ffn-depth": ("2",),
    "transformer-decoder-ffn-depth": ("0", "2"),
    "transformer-train-position-embeddings": ("false",),
    "transformer-depth-scaling": ("false", "true"),
    "transformer-tied-layers": ("", "[]"),
    "transformer-no-bias": ("false",),
    "transformer-no-affine": ("false",),
    "transformer-disable-position-embeddings": ("false",),
    "transformer-attention-mask": ("default",),
    "factors-combine": ("sum",),
    "lemma-dim-emb": ("0",),
}
_RATIO = 4  # by which weights may be compressed; what claims more is a bomb


def read(content: bytes) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """An ``.npz`` → (the settings of its model, its arrays).

    Raises:
      ValueError: it is no such file, or a damaged one.
    """
    limit = _RATIO * len(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            arrays = {
                member.filename.removesuffix(".npy"): _array(archive, member, limit)
                for member in archive.infolist()
            }
    except (
        zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError,
        OSError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:60]
        raise ValueError(f"not an intact .npz file ({reason!r})") from error
    if YAML not in arrays:
        raise ValueError(f"it lacks {YAML}: it is no model of Marian")
    text = arrays.pop(YAML).tobytes().rstrip(b"\0")
    return settings(text.decode("utf-8", errors="replace")), arrays


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> np.ndarray:
    """One array; its size is compared with that of the member before memory is taken."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if header is None:
            raise ValueError(f"{member.filename} has version {version} of the format of arrays")
        try:
            shape, fortran, dtype = header(file)
        except (ValueError, SyntaxError, TypeError) as error:
            raise ValueError(f"{member.filename} has a damaged header") from error
        if dtype.hasobject or dtype.kind not in "fiu":
            raise ValueError(f"{member.filename} holds {dtype}, not numbers")
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if fortran or size > min(member.file_size, limit):
            raise ValueError(f"{member.filename} is said to have shape {shape}, and has not")
        data = file.read(size)
        if len(data) != size:
            raise ValueError(f"{member.filename} ends early")
        return np.frombuffer(data, dtype).reshape(shape)


def settings(text: str) -> dict[str, str]:
    """The flat ``key: value`` lines of the YAML; nothing reads nested ones."""
    found = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"([\w-]+):\s*(.*)", line):
            value = match[2].strip()
            if value[:1] in "'\"" and value[:1]:
                try:
                    value = str(ast.literal_eval(value))
                except (ValueError, SyntaxError) as error:
                    raise ValueError(f"{YAML}: {match[1]} is {value[:40]!r}") from error
            found[match[1]] = value
    return found


def architecture(model: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The fields of the architecture besides vocabularies and tie.

    Raises:
      ValueError: a setting that tfm cannot express, by its name.
    """
    for name, known in _UNSUPPORTED.items():
        if name in model and model[name] not in known:
            raise ValueError(
                f"{name} is {model[name]!r}, and tfm has no such Transformer: only {known[0]!r}"
            )
    pre, post = (model.get(f"transformer-{x}", "") for x in ("preprocess", "postprocess"))
    if (pre, post) not in _PLACEMENTS:
        raise ValueError(f"transformer-preprocess {pre!r} with transformer-postprocess {post!r}")
    top = model.get("transformer-postprocess-top", "")
    if top not in ("", "n") or model.get("transformer-postprocess-emb", "d") not in ("", "d"):
        raise ValueError(f"transformer-postprocess-top {top!r} is neither '' nor 'n'")
    act = model.get("transformer-ffn-activation", "relu")
    if act not in _ACTIVATIONS:
        raise ValueError(f"transformer-ffn-activation {act!r} is not known")
    emb = arrays.get("encoder_Wemb", arrays.get("Wemb"))
    up = arrays.get("encoder_l1_ffn_W1")
    if emb is None or up is None or emb.ndim != 2 or up.ndim != 2:
        raise ValueError("it lacks encoder_l1_ffn_W1 or its embeddings")
    return {
        "d_model": emb.shape[1],
        "heads": _int(model, "transformer-heads"),
        "d_ff": up.shape[1],
        "encoder_layers": _int(model, "enc-depth"),
        "decoder_layers": _int(model, "dec-depth"),
        "positions": Sinusoidal(endpoint=True),
        "norm_placement": _PLACEMENTS[pre, post],
        "final_norm": top == "n",
        "norm_epsilon": 1e-9,
        "activation": _ACTIVATIONS[act],
        "output_bias": True,
        "dropout": 0.1,
    }


def _int(model: Mapping[str, str], name: str) -> int:
    value = model.get(name, "")
    if not value.isdecimal() or not 0 < int(value) < 2**20:
        raise ValueError(f"{name} is {value!r}; it must be a positive integer")
    return int(value)


def tables(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The source, target and output table; the last is stored [D,V] if it is one of its own."""
    source = arrays.get("encoder_Wemb", arrays.get("Wemb"))
    target = arrays.get("decoder_Wemb", arrays.get("Wemb"))
    if source is None or target is None:
        raise ValueError("it lacks encoder_Wemb, decoder_Wemb or Wemb")
    output = arrays.get("decoder_ff_logit_out_W")
    output = arrays.get("decoder_ff_logit_out_Wt", target) if output is None else output.T
    return {"source": source, "target": target, "output": output}


def entries(arch: Architecture, arrays: Mapping[str, np.ndarray]) -> Iterator[Entry]:
    """The table of names; where our table is theirs twice, both names are read."""
    source, target, output = table_names(arch)
    if "Wemb" in arrays:
        yield Entry("Wemb", (f"tables/{source}",), rows="source")
    else:
        yield Entry("encoder_Wemb", (f"tables/{source}",), rows="source")
        yield Entry("decoder_Wemb", (f"tables/{target}",), rows="target")
    if "decoder_ff_logit_out_Wt" in arrays:
        yield Entry("decoder_ff_logit_out_Wt", (f"tables/{output}",), rows="target")
    elif "decoder_ff_logit_out_W" in arrays:
        raise ValueError("decoder_ff_logit_out_W: an output table that is not tied is not read yet")
    yield Entry("decoder_ff_logit_out_b", ("decoder/output_bias",), rows="target", leading=True)
    for side, depth in (("encoder", arch.encoder_layers), ("decoder", arch.decoder_layers)):
        if arch.final_norm:
            yield from _norm(f"{side}_top_ln", f"{side}/norm")
        blocks = {"self": "self"} | ({"cross": "context"} if side == "decoder" else {})
        for i in range(depth):
            theirs, ours = f"{side}_l{i + 1}", f"{side}/layers"
            for block, name in blocks.items():
                for letter, ending in (("q", "q"), ("k", "k"), ("v", "v"), ("out", "o")):
                    path = f"{ours}/{block}/{letter}"
                    yield Entry(f"{theirs}_{name}_W{ending}", (f"{path}/w",), i)
                    yield Entry(f"{theirs}_{name}_b{ending}", (f"{path}/b",), i, leading=True)
                yield from _norm(f"{theirs}_{name}_Wo_ln", f"{ours}/{block}_norm", i)
            for number, part in (("1", "up"), ("2", "down")):
                yield Entry(f"{theirs}_ffn_W{number}", (f"{ours}/ff/{part}",), i)
                yield Entry(f"{theirs}_ffn_b{number}", (f"{ours}/ff/{part}_bias",), i, leading=True)
            yield from _norm(f"{theirs}_ffn_ffn_ln", f"{ours}/ff_norm", i)


def _norm(theirs: str, ours: str, layer: int | None = None) -> Iterator[Entry]:
    yield Entry(f"{theirs}_scale", (f"{ours}/scale",), layer, leading=True)
    yield Entry(f"{theirs}_bias", (f"{ours}/bias",), layer, leading=True)


def import_model(
    model: Mapping[str, str], arrays: dict[str, np.ndarray], special: dict[str, Any]
) -> mapping.Imported:
    """Settings and arrays → a model of tfm.

    Args:
      special: by side, the foreign ids of "unk" and "eos".
    """
    fields, found = architecture(model, arrays), tables(arrays)
    rows = {
        side: mapping.ordinary_rows(len(found[side]), {"pad": None, "bos": None, **special[side]})
        for side in ("source", "target")
    }
    arch = Architecture(
        source_vocab=len(rows["source"]), target_vocab=len(rows["target"]),
        tie=mapping.find_tie(found["source"], found["target"], found["output"]),
        closed_rows=mapping.closed_rows(rows["target"]), **fields,
    )  # fmt: skip
    table = list(entries(arch, arrays))
    return mapping.Imported(arch, mapping.to_ours(table, arrays, arch, rows, "model.npz"), rows)
