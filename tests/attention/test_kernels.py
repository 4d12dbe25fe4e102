import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import masks, positions
from tfm.attention import attend_heads_first, kernels

B, N, K, T, H = 2, 4, 2, 128, 16
SEGMENTS = jnp.asarray(
    np.stack([np.repeat([1, 2, 3, 0], [40, 30, 20, 38]), np.repeat([1, 0], [100, 28])])
)
WHERE = {
    "platform": "cpu", "dtype": jnp.bfloat16, "head_dim": 64, "queries": 512, "keys": 512,
}  # fmt: skip


def choose(asked="auto", needs=(), **where):
    return kernels.choose(asked, needs=needs, **WHERE | where)


def test_auto_picks_by_device_shape_and_needs_and_says_why():
    assert choose() == ("xla", "there is no kernel for the cpu")
    assert choose(platform="gpu") == ("cudnn", "512 keys on the gpu")
    assert choose(platform="tpu") == ("splash", "512 keys on the tpu")
    for platform, changes, why in [
        ("gpu", {"keys": 128}, "rows of 128 keys are short"),
        ("gpu", {"dtype": jnp.float32}, "bfloat16 or float16, not float32"),
        ("gpu", {"head_dim": 20}, "multiples of 8 up to 128, not 20"),
        ("gpu", {"queries": 513}, "even lengths, not 513 and 512"),
        ("gpu", {"needs": {"relative"}}, "no score that depends on query and distance"),
        ("gpu", {"needs": {"dropout"}}, "no dropout"),
        ("tpu", {"needs": {"bias"}}, "no bias"),
        ("tpu", {"keys": 600}, "multiples of 128, not 512 and 600"),
    ]:
        name, reason = choose(platform=platform, **changes)
        assert name == "xla" and why in reason
    assert choose(platform="gpu", needs={"bias"})[0] == "cudnn"
    assert choose(platform="tpu", needs={"soft_cap"})[0] == "splash"


def test_a_kernel_asked_for_by_name_runs_or_is_an_error():
    assert choose("xla", platform="gpu") == ("xla", "as asked")
    assert choose("cudnn", platform="gpu", keys=64) == ("cudnn", "as asked")
    with pytest.raises(ValueError, match=r"splash runs on a tpu, this is a cpu.*'auto' or 'xla'"):
        choose("splash")
    with pytest.raises(ValueError, match="cudnn has no dropout"):
        choose("cudnn", {"dropout"}, platform="gpu")


@pytest.fixture
def qkv(rng):
    shapes = (B, N, T, H), (B, K, T, H), (B, K, T, H)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def by_attend(q, k, v, causal, **terms):
    mask = masks.segment(SEGMENTS, SEGMENTS)
    mask = mask & masks.causal(T) if causal else mask
    return attend_heads_first(q, k, v, mask=mask, **terms)[0]


@pytest.mark.parametrize("causal", [False, True])
def test_splash_gives_what_attend_gives(rng, qkv, causal):
    """Interpreted, with packed sentences, padding and shared keys; gradients too."""
    weight = jnp.asarray(rng.normal(size=(B, N, T, H)), jnp.float32)

    def both(attend):
        return jax.value_and_grad(
            lambda *x: ((out := attend(*x)) * weight).sum() + 0 * out.sum(), (0, 1, 2)
        )

    kernel = lambda *x: kernels.splash(  # noqa: E731
        *x, SEGMENTS, SEGMENTS, causal=causal, soft_cap=2.0, interpret=True
    )
    ours = lambda *x: by_attend(*x, causal, soft_cap=2.0)  # noqa: E731
    np.testing.assert_allclose(kernel(*qkv), ours(*qkv), atol=3e-6)
    if causal:
        return
    for got, expected in zip(both(kernel)(*qkv)[1], both(ours)(*qkv)[1], strict=True):
        np.testing.assert_allclose(got, expected, atol=3e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_flash_gives_what_attend_gives(qkv, causal):
    """Computed by XLA here: segments, a bias, and zeros where a row is empty."""
    bias = positions.alibi_bias(positions.consecutive(T, T), N)
    got = kernels.flash(*qkv, SEGMENTS, SEGMENTS, causal=causal, bias=bias, implementation="xla")
    np.testing.assert_allclose(got, by_attend(*qkv, causal, bias=bias), atol=3e-6)
    assert np.all(np.asarray(got)[0, :, -38:] == 0)
