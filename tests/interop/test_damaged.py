"""Damaged models of other toolkits: one clear error, in little time and memory, nothing written."""

import io
import json
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from tfm import transformer
from tfm.interop import ctranslate2, folders, marian, model_bin
from tfm.params import is_param
from tfm.positions import Sinusoidal

V, D, F = 9, 4, 6
ARCH = transformer.Architecture(
    source_vocab=V, target_vocab=V, d_model=D, heads=2, d_ff=F, encoder_layers=1,
    decoder_layers=1, output_bias=True, positions=Sinusoidal(endpoint=True),
)  # fmt: skip
PIECES = ["<pad>", "<unk>", "<s>", "</s>", *"abcde"]
ROWS = {side: np.arange(V) for side in ("source", "target")}


def params():
    import jax

    rng = np.random.default_rng(0)
    declared = transformer.declare(ARCH)
    return jax.tree.map(
        lambda p: rng.normal(size=p.shape).astype(np.float32), declared, is_leaf=is_param
    )


@pytest.fixture(scope="module")
def binary():
    return ctranslate2.export(ARCH, params(), ROWS, int8=True, positions=4)


def write_folder(folder, content, config=None):
    folder.mkdir(exist_ok=True)
    (folder / "model.bin").write_bytes(content)
    text = json.dumps({"add_source_eos": True}) if config is None else config
    (folder / "config.json").write_text(text)
    for side in ("source", "target"):
        (folder / f"{side}_vocabulary.json").write_text(json.dumps(PIECES))
    return folder


def mutated(content, rng):
    """One of: cut, longer, some bytes changed, a stretch exchanged with another."""
    data = bytearray(content)
    kind = rng.integers(5)
    if kind == 0:
        return bytes(data[: rng.integers(len(data))])
    if kind == 1:
        return bytes(data) + bytes(rng.integers(0, 256, int(rng.integers(1, 50)), np.uint8))
    if kind == 2:
        for at in rng.integers(0, len(data), 4):
            data[at] = rng.integers(256)
    elif kind == 3:
        at = int(rng.integers(len(data) - 4))
        data[at : at + 4] = b"\xff" * 4
    else:
        a, b = sorted(rng.integers(0, len(data) - 16, 2))
        data[a : a + 8], data[b : b + 8] = data[b : b + 8], data[a : a + 8]
    return bytes(data)


def check_refused_or_read(read):
    """Reading ends well or with one sentence; in less than a second, and little memory."""
    start = time.perf_counter()
    tracemalloc.start()
    try:
        read()
    except (ValueError, FileNotFoundError) as error:
        assert len(str(error)) < 500
        refused = True
    else:
        refused = False
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20 and time.perf_counter() - start < 5
    return refused


def mutations(count, content, read):
    rng, refused = np.random.default_rng(0), 0
    for _ in range(count):
        damaged = mutated(content, rng)
        refused += check_refused_or_read(lambda damaged=damaged: read(damaged))
    assert refused > count // 4


def read_binary(content):
    ctranslate2.import_model(
        model_bin.read(content), {}, {"source": list(PIECES), "target": list(PIECES)}
    )


def test_an_intact_file_is_read(binary):
    read_binary(binary)


def test_mutated_files_of_ctranslate2_are_refused(binary):
    mutations(50, binary, read_binary)


@pytest.mark.slow
def test_many_mutated_files_of_ctranslate2_are_refused(binary):
    mutations(500, binary, read_binary)


def npz():
    out = io.BytesIO()
    rng = np.random.default_rng(0)
    arrays = {"encoder_Wemb": rng.normal(size=(V, D)).astype(np.float32)}
    text = b"type: transformer\ntransformer-heads: 2\n\0\0\0"
    arrays[marian.YAML] = np.frombuffer(text, np.int8)
    np.savez(out, **arrays)
    return out.getvalue()


def test_mutated_files_of_marian_are_refused():
    model, arrays = marian.read(npz())
    assert model == {"type": "transformer", "transformer-heads": "2"}
    assert arrays["encoder_Wemb"].shape == (V, D)
    special = {side: {"unk": 1, "eos": 0} for side in ("source", "target")}
    mutations(50, npz(), lambda x: marian.import_model(*marian.read(x), special))


def test_pickles_are_not_opened():
    out = io.BytesIO()
    np.savez(out, **{marian.YAML: np.array([print], dtype=object)})
    with pytest.raises(ValueError, match="not numbers"):
        marian.read(out.getvalue())


def test_a_claim_of_more_memory_than_the_file_has_is_refused():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": (2**34,)}
        )
        archive.writestr("encoder_Wemb.npy", header.getvalue() + bytes(2**22))
    with pytest.raises(ValueError, match="is said to have shape"):
        marian.read(out.getvalue())


@pytest.mark.parametrize(
    "config",
    ["[]", "{", "3", '{"unk_token": [1]}', '{"eos_token": "x"}', '{"layer_norm_epsilon": "1"}',
     '{"decoder_start_token": "zz"}', "[" * 100_000],
)  # fmt: skip
def test_tampered_settings_are_refused_and_leave_no_folder(tmp_path, binary, config):
    folder = write_folder(tmp_path / "model", binary, config)
    with pytest.raises(ValueError, match=r"config\.json|model\.bin"):
        folders.write_run(folders.read(folder, "ctranslate2", ("", "")), tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_nan_is_refused_by_the_name_of_the_tensor(tmp_path):
    weights = params()
    weights["encoder"]["norm"]["scale"][1] = np.nan
    folder = write_folder(tmp_path / "model", ctranslate2.export(ARCH, weights, ROWS, positions=4))
    with pytest.raises(ValueError, match="encoder/layer_norm/gamma holds NaN"):
        folders.read(folder, "ctranslate2", ("", ""))


def test_what_is_left_over_on_either_side_is_listed(binary):
    read = model_bin.read(binary)
    more = read._replace(variables=read.variables | {"decoder/extra/weight": np.ones(3)})
    with pytest.raises(ValueError, match="has decoder/extra/weight, which the model"):
        ctranslate2.import_model(more, {}, {"source": PIECES, "target": PIECES})
    less = read._replace(
        variables={k: x for k, x in read.variables.items() if "ffn/layer_norm/beta" not in k
                   or "decoder" not in k}
    )  # fmt: skip
    with pytest.raises(ValueError, match="lacks decoder/layer_0/ffn/layer_norm/beta"):
        ctranslate2.import_model(less, {}, {"source": PIECES, "target": PIECES})


def test_int8_is_within_half_a_step_and_the_rest_keeps_its_bits(binary):
    model = ctranslate2.import_model(
        model_bin.read(binary), {}, {"source": PIECES, "target": PIECES}
    )
    want, got = params(), model.params
    assert (got["encoder"]["norm"]["scale"] == want["encoder"]["norm"]["scale"]).all()
    table = want["tables"]["target"]
    step = np.abs(table).max(axis=1, keepdims=True) / 127
    assert (np.abs(got["tables"]["target"] - table) <= 0.501 * step).all()
