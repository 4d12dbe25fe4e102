"""The parts of a layer around attention: norms, dropout, feed-forward, residual connection."""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from tfm.params import Param, Tree, like, ones, xavier, zeros
from tfm.quantize import project
from tfm.shapes import Check
from tfm.values import Values

Norm = Literal["layer", "rms"]
Activation = Literal["relu", "gelu", "gelu_exact", "silu", "reglu", "geglu", "swiglu"]
Placement = Literal["pre", "post", "deepnorm"]


def norm_params(d_model: int, kind: Norm) -> Tree:
    """Scale, and for LayerNorm bias, of one norm."""
    check = Values("norm_params")
    check.counts(d_model=d_model)
    check.choice(get_args(Norm), kind=kind)
    scale = {"scale": Param((d_model,), ("norm",), ones)}
    return scale if kind == "rms" else scale | {"bias": Param((d_model,), ("norm",), zeros)}


def layer_norm(
    x: jax.Array, scale_D: jax.Array, bias_D: jax.Array, epsilon: float = 1e-5
) -> jax.Array:
    """(x - mean) / sqrt(var + ε) · scale + bias over the last axis, in float32 (Ba 2016)."""
    check = Check("layer_norm")
    check.floats("...D", x=x)
    check.floats(scale_D=scale_D, bias_D=bias_D)
    check.positive(epsilon=epsilon)
    x32 = x.astype(jnp.float32)
    centred = x32 - x32.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(variance + epsilon)
    return (normed * like(scale_D, x32) + like(bias_D, x32)).astype(x.dtype)


def rms_norm(x: jax.Array, scale_D: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """x / sqrt(mean(x²) + ε) · scale over the last axis, in float32 (Zhang & Sennrich 2019)."""
    check = Check("rms_norm")
    check.floats("...D", x=x)
    check.floats(scale_D=scale_D)
    check.positive(epsilon=epsilon)
    x32 = x.astype(jnp.float32)
    mean_square = jnp.square(x32).mean(axis=-1, keepdims=True)
    return (x32 * jax.lax.rsqrt(mean_square + epsilon) * like(scale_D, x32)).astype(x.dtype)


def norm(params: Tree, x: jax.Array, epsilon: float = 0.0) -> jax.Array:
    """LayerNorm if the parameters hold a bias, RMSNorm if not.

    Args:
      epsilon: 0 takes that of ``layer_norm`` or ``rms_norm``.
    """
    check = Check("norm")
    check.floats("...D", x=x)
    check.params(params, {"scale": "D", "bias?": "D"}, "norm_params")
    check.not_negative(epsilon=epsilon)
    given = {"epsilon": epsilon} if epsilon else {}
    if "bias" in params:
        return layer_norm(x, params["scale"], params["bias"], **given)
    return rms_norm(x, params["scale"], **given)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes each entry with probability ``rate``, scales the rest by 1/(1-rate) (Srivastava 2014).

    The random bits are a hash of (key, index). It fuses with the operations around it, where
    drawing and storing threefry bits took over a third of a training step on the CPU, and does not
    depend on how ``x`` is sharded. The same key gives the same mask.

    Args:
      rate: 0 or more, less than 1.
      key: ``None`` turns dropout off, as in inference; functions whose key need not be passed
        refuse a rate without one. An array [B] of keys has one key for each of B equal parts of the
        first dimension: a row's mask then does not depend on other rows.
    """
    check = Check("dropout")
    check.floats("...", x=x)
    check.rate(rate=rate)
    if key is not None:
        check.key(key, rows=x.shape[0] if x.ndim else None)
    if key is None or rate == 0.0:
        return x
    if _is_array_of_keys(key):
        part = (x.shape[0] // len(key), *x.shape[1:])
        bits = jax.vmap(lambda one: _hash_bits(one, part))(key).reshape(x.shape)
    else:
        bits = _hash_bits(key, x.shape)
    keep = bits >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


def _hash_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """uint32 bits: an integer hash of each element's index, seeded by both words of the key.

    The words are mixed with each other first: keys that differ in a single bit (seeds 0 and 1)
    would otherwise give masks that are nearly complements of each other.
    """
    words = jax.random.key_data(key)
    first = _mix(words[0] ^ _mix(words[-1]))
    last = _mix(words[-1] ^ first)
    x, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        x += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    return _mix(x ^ first, last)


def _mix(x: jax.Array, seed: jax.Array | int = 0) -> jax.Array:
    """The low-bias 32-bit mixer found by Wellons' hash-prospector (2018), seeded in the middle."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D) ^ seed
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def split(key: jax.Array | None, n: int) -> list[jax.Array | None]:
    """``n`` keys from one, or n arrays of keys from an array; ``None`` (no dropout) gives Nones."""
    check = Check("split")
    check.counts(n=n)
    if key is None:
        return [None] * n
    check.key(key, rows=key.size if hasattr(key, "size") else None)
    one = lambda key: jax.random.split(key, n)  # noqa: E731
    return list(jax.vmap(one, out_axes=1)(key) if _is_array_of_keys(key) else one(key))


def _is_array_of_keys(key: jax.Array) -> bool:
    """Whether ``key`` has a batch axis."""
    return key.ndim > 0


_GATES = {"reglu": "relu", "geglu": "gelu", "swiglu": "silu"}  # the activation of the gate


def is_gated(activation: Activation) -> bool:
    """Whether the feed-forward has a gate (Shazeer 2020)."""
    Values("is_gated").choice(get_args(Activation), activation=activation)
    return activation in _GATES


def feed_forward_params(
    d_model: int, d_ff: int, activation: Activation, bias: bool | None = None
) -> Tree:
    """Two matrices; gated forms have a third, the gate.

    Args:
      bias: whether there are biases; ``None``: as in the papers, unless the form is gated.
    """
    check = Values("feed_forward_params")
    check.counts(d_model=d_model, d_ff=d_ff)
    check.choice(get_args(Activation), activation=activation)
    up = Param((d_model, d_ff), ("embed", "mlp"), xavier())
    down = Param((d_ff, d_model), ("mlp", "embed"), xavier())
    gated = is_gated(activation)
    tree = {"gate": up, "up": up, "down": down} if gated else {"up": up, "down": down}
    if not gated if bias is None else bias:
        inner = Param((d_ff,), ("mlp",), zeros)
        tree |= {"up_bias": inner, "down_bias": Param((d_model,), ("norm",), zeros)}
        tree |= {"gate_bias": inner} if gated else {}
    return tree


def feed_forward(
    params: Tree,
    x_BTD: jax.Array,
    activation: Activation,
    *,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """act(x W₁ + b₁) W₂ + b₂ at every position (Vaswani 2017, §3.3).

    ``gelu`` is the tanh form, ``gelu_exact`` the one of the error function (Hendrycks 2016). The
    gated forms are (act(x W_gate) · x W_up) W_down (Shazeer 2020, eq. 6): ``swiglu`` with SiLU,
    ``geglu`` with GELU's tanh form, ``reglu`` with ReLU. Biases are added where there are some.
    ``dropout_rate`` acts on the activation, and needs a key. Returns [B,T,D].
    """
    check = Check("feed_forward")
    check.choice(get_args(Activation), activation=activation)
    check.floats(x_BTD=x_BTD)
    gated = is_gated(activation)
    leaves = {"up": "DF", "down": "FD"} | ({"gate": "DF", "gate_bias?": "F"} if gated else {})
    biases = {"up_bias?": "F", "down_bias?": "D"}
    check.params(params, leaves | biases, "feed_forward_params")
    check.dropout(dropout_rate, key, rows=x_BTD.shape[0])
    up_BTF = _affine(params, "up", x_BTD)
    if gated:
        gate_BTF = _activate(_GATES[activation], _affine(params, "gate", x_BTD))
        hidden_BTF = gate_BTF * up_BTF
    else:
        hidden_BTF = _activate(activation, up_BTF)
    hidden_BTF = dropout(hidden_BTF, dropout_rate, key)
    return _affine(params, "down", hidden_BTF)


def _affine(params: Tree, name: str, x: jax.Array) -> jax.Array:
    """x W + b; without b where there is none."""
    y = project(x, params[name])
    return y + like(params[f"{name}_bias"], y) if f"{name}_bias" in params else y


def _activate(name: str, x: jax.Array) -> jax.Array:
    if name == "gelu_exact":
        return jax.nn.gelu(x, approximate=False)
    return {"relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu}[name](x)


class DeepNorm(NamedTuple):
    """DeepNorm's constants: the weight of the shortcut, and the scale of initial weights."""

    alpha: float
    beta: float


def deepnorm(encoder_layers: int, decoder_layers: int) -> dict[str, DeepNorm]:
    """DeepNorm's constants for an encoder-decoder of N and M layers (Wang 2022, §2.2, figure 2)."""
    Values("deepnorm").counts(encoder_layers=encoder_layers, decoder_layers=decoder_layers)
    N, M = encoder_layers, decoder_layers
    both = (N**4 * M) ** (1 / 16)
    return {
        "encoder": DeepNorm(0.81 * both, 0.87 / both),
        "decoder": DeepNorm((3 * M) ** 0.25, (12 * M) ** -0.25),
    }


def pre_norm(
    params: Tree, x_BTD: jax.Array, placement: Placement, epsilon: float = 0.0
) -> jax.Array:
    """The input of a sublayer: norm(x) if ``placement`` is pre, else x.

    Args:
      epsilon: of ``norm``.
    """
    check = Check("pre_norm")
    check.floats(x_BTD=x_BTD)
    check.choice(get_args(Placement), placement=placement)
    check.params(params, {"scale": "D", "bias?": "D"}, "norm_params")
    check.not_negative(epsilon=epsilon)
    return norm(params, x_BTD, epsilon) if placement == "pre" else x_BTD


def add_norm(
    params: Tree,
    x_BTD: jax.Array,
    y_BTD: jax.Array,
    placement: Placement,
    *,
    alpha: float = 1.0,
    epsilon: float = 0.0,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """The residual connection around a sublayer f, whose output y = f(``pre_norm``(x)) it adds.

    pre: x + y (Xiong 2020), which trains without a long warm-up and needs one more norm at the end
    of the stack; post: norm(x + y) (Vaswani 2017, §3.1); deepnorm: norm(α x + y) (Wang 2022),
    post-norm for stacks of any depth. Dropout acts on y, and needs a key.

    Args:
      params: of the sublayer's norm.
      alpha: of deepnorm.
      epsilon: of ``norm``.
    """
    check = Check("add_norm")
    check.floats(x_BTD=x_BTD)
    check.floats(y_BTD=y_BTD)
    check.choice(get_args(Placement), placement=placement)
    check.params(params, {"scale": "D", "bias?": "D"}, "norm_params")
    check.positive(alpha=alpha)
    check.not_negative(epsilon=epsilon)
    check.dropout(dropout_rate, key, rows=x_BTD.shape[0])
    shortcut_BTD = alpha * x_BTD if placement == "deepnorm" else x_BTD
    x_BTD = shortcut_BTD + dropout(y_BTD, dropout_rate, key)
    return x_BTD if placement == "pre" else norm(params, x_BTD, epsilon)
