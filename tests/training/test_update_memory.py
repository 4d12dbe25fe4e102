"""A run that cannot fit into memory is refused before its state is made, or its update runs."""

import pytest
import tiny

from tfm import memory
from tfm.training import loop

pytestmark = pytest.mark.usefixtures("quick_compile")


def refusal(folder, **changes):
    with pytest.raises(ValueError) as raised:
        loop.train(tiny.config(folder, data={"dev": ()}, **changes), folder / "run")
    return str(raised.value)


def test_weights_that_do_not_fit(tmp_path):
    message = refusal(tmp_path, model={"d_model": 2**20, "d_ff": 2**20})
    assert message.startswith("the weights and the optimizer's state need ")
    assert "GiB are free: lower model.d_model, d_ff, " in message
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_an_update_that_does_not_fit(tmp_path, monkeypatch):
    sizes = iter([2**40, 2**15])  # for the state, for the update
    monkeypatch.setattr(memory, "free", lambda device: next(sizes))
    message = refusal(tmp_path)
    assert message.startswith("activations and gradients need 2 MiB of memory, where 0 MiB")
    assert "are free: lower data.rows, source_length or target_length, raise train" in message
