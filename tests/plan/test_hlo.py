"""The parser of compiled programs, against known programs and against XLA's own count."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas
from jax.sharding import NamedSharding, PartitionSpec

from tfm import sharding
from tfm.plan import flops, hlo, traffic

TPU = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[8,128]{1,0:T(8,128)})->f32[]}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%body (arg: (s32[], bf16[4,16], f32[6,4,16])) -> (s32[], bf16[4,16], f32[6,4,16]) {
  %arg = (s32[]{:T(128)}, bf16[4,16]{1,0:T(8,128)(2,1)S(1)}, /*index=2*/f32[6,4,16]{2,1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%arg), index=0
  %x = bf16[4,16]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%arg), index=1
  %all = f32[6,4,16]{2,1,0:T(8,128)} get-tuple-element(%arg), index=2
  %one = f32[1,4,16]{2,1,0:T(8,128)} dynamic-slice(%all, %i, %i, %i), dynamic_slice_sizes={1,4,16}
  %both = (bf16[4,16]{1,0:T(8,128)(2,1)S(1)}, f32[1,4,16]{2,1,0:T(8,128)}) all-reduce(%x, %one), channel_id=2, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, to_apply=%add, backend_config={"estimated_cycles":"10"}
  %y = bf16[4,16]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%both), index=0
  ROOT %out = (s32[]{:T(128)}, bf16[4,16]{1,0:T(8,128)(2,1)S(1)}, f32[6,4,16]{2,1,0:T(8,128)}) tuple(%i, %y, %all)
}

%condition (arg: (s32[], bf16[4,16], f32[6,4,16])) -> pred[] {
  %arg.1 = (s32[]{:T(128)}, bf16[4,16]{1,0:T(8,128)(2,1)S(1)}, f32[6,4,16]{2,1,0:T(8,128)}) parameter(0)
  %layers = s32[]{:T(128)} constant(6)
  %i.1 = s32[]{:T(128)} get-tuple-element(%arg.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%i.1, %layers), direction=LT
}

ENTRY %main (p: (s32[], bf16[4,16], f32[6,4,16])) -> (s32[], bf16[4,16], f32[6,4,16]) {
  %p = (s32[]{:T(128)}, bf16[4,16]{1,0:T(8,128)(2,1)S(1)}, f32[6,4,16]{2,1,0:T(8,128)}) parameter(0)
  ROOT %loop = (s32[]{:T(128)}, bf16[4,16]{1,0:T(8,128)(2,1)S(1)}, f32[6,4,16]{2,1,0:T(8,128)}) while(%p), condition=%condition, body=%body
}
"""  # noqa: E501


def test_a_tpu_program():
    program = hlo.parse(TPU)
    assert program.entry == "main" and set(program.computations) == {
        "add", "body", "condition", "main",
    }  # fmt: skip
    (one,) = traffic.collectives(program, chips=8)
    assert (one.kind, one.group, one.times) == ("all-reduce", 4, 6)
    assert [str(shard) for shard in one.shards] == ["bf16[4,16]", "f32[1,4,16]"]
    assert str(one.largest) == "f32[1,4,16]"
    assert one.sent_bytes == 6 * 2 * 3 / 4 * (4 * 16 * 2 + 4 * 16 * 4)
    # The slice is read and written, by itself and by the all-reduce; x stays in VMEM.
    assert traffic.memory_bytes(program) == 6 * 4 * (4 * 16 * 4)
    assert traffic.cycles(program) == 60


@pytest.mark.parametrize(
    ("groups", "size"),
    [("{{0,1,2,3},{4,5,6,7}}", 4), ("[4,2]<=[8]", 2), ("[4,2]<=[2,4]T(1,0)", 2), ("{}", 8)],
)
def test_the_group_size_is_read_from_each_notation(groups, size):
    program = hlo.parse(TPU.replace("mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", groups))
    (one,) = traffic.collectives(program, chips=8)
    assert one.group == size


def test_the_body_of_a_loop_counts_once_per_iteration():
    def f(x, w):
        def inner(x, w):
            return jnp.tanh(x @ w), None

        def outer(x, _):
            return jax.lax.scan(inner, x, w)[0], None

        return jax.lax.scan(outer, x, None, length=3)[0]

    x, w = jnp.ones((16, 64)), jnp.ones((5, 64, 64))
    traced = jax.jit(f).trace(x, w)
    assert flops.count(traced.jaxpr.jaxpr) == 15 * 2 * 16 * 64 * 64
    program = hlo.parse(traced.lower().compile().as_text())
    trip_counts = sorted(
        program.trip_count(one) for _, one, _ in program.executed() if one.op == "while"
    )
    assert trip_counts == [3, 5]
    # Every iteration slices the weights: it reads the slice and may write it out too.
    weights, rows = 15 * 64 * 64 * 4, 15 * 16 * 64 * 4
    assert weights + 2 * rows <= traffic.memory_bytes(program) <= 3 * weights + 8 * rows


def test_flops_equal_those_xla_counts_in_a_program_without_loops():
    def f(x, w):
        return jnp.square(jnp.tanh(x @ w[0]) @ w[1]).sum()

    traced = jax.jit(jax.grad(f, argnums=(0, 1))).trace(jnp.ones((32, 64)), jnp.ones((2, 64, 64)))
    mine = flops.count(traced.jaxpr.jaxpr)
    assert mine == 6 * 2 * 32 * 64 * 64
    theirs = traced.lower().compile().cost_analysis()["flops"]
    assert mine == pytest.approx(theirs, rel=0.03)  # XLA counts elementwise operations too


@pytest.mark.parametrize("mesh", [sharding.Mesh(8), sharding.Mesh(2, 4)])
def test_the_body_of_a_shard_map_counts_once_per_shard(mesh):
    """Shards of the axes it is mapped over; over the others its arrays are not split."""
    mesh, rows = sharding.make(mesh), PartitionSpec("data")
    f = jax.shard_map(
        lambda x, w: x @ w,
        mesh=mesh,
        in_specs=(rows, PartitionSpec()),
        out_specs=rows,
        axis_names={"data"},
    )
    traced = jax.jit(f).trace(jnp.ones((32, 16)), jnp.ones((16, 16)))
    assert flops.count(traced.jaxpr.jaxpr) == 2 * 32 * 16 * 16


def test_collectives_of_a_compiled_program():
    mesh = sharding.make(sharding.Mesh(data=2, tensor=4))

    def array(shape, *axes):
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

    x, w = array((16, 64), "data", "tensor"), array((64, 32), "tensor", None)
    out = NamedSharding(mesh, PartitionSpec("data"))
    compiled = jax.jit(lambda x, w: x @ w, out_shardings=out).lower(x, w).compile()
    (one,) = traffic.collectives(hlo.parse(compiled.as_text()), chips=8)
    assert (one.kind, one.group, one.times, str(one.largest)) == ("all-reduce", 4, 1, "f32[8,32]")
    assert one.sent_bytes == 2 * 3 / 4 * 8 * 32 * 4

    replicated = NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(lambda w: w + 1, out_shardings=replicated).lower(w).compile()
    (one,) = traffic.collectives(hlo.parse(compiled.as_text()), chips=8)
    assert (one.kind, one.group, str(one.largest)) == ("all-gather", 4, "f32[16,32]")
    assert one.sent_bytes == 3 * 16 * 32 * 4


def test_a_pallas_kernel_counts_once_per_block():
    f = pallas.pallas_call(
        lambda x, w, o: o.__setitem__(..., x[...] @ w[...]),
        grid=(4, 2),
        in_specs=[
            pallas.BlockSpec((8, 16), lambda i, j: (i, 0)),
            pallas.BlockSpec((16, 8), lambda i, j: (0, j)),
        ],
        out_specs=pallas.BlockSpec((8, 8), lambda i, j: (i, j)),
        out_shape=jax.ShapeDtypeStruct((32, 16), jnp.float32),
        interpret=True,
    )
    traced = jax.jit(f).trace(jnp.ones((32, 16)), jnp.ones((16, 16)))
    assert flops.count(traced.jaxpr.jaxpr) == 2 * 32 * 16 * 16


def test_a_pallas_kernel_reads_its_operands_and_writes_its_results():
    call = '%y = f32[4,16]{1,0:T(8,128)} custom-call(%x), custom_call_target="tpu_custom_call"'
    text = f"""\
ENTRY %main (x: f32[8,16]) -> f32[4,16] {{
  %x = f32[8,16]{{1,0:T(8,128)}} parameter(0)
  ROOT {call}
}}
"""
    assert traffic.memory_bytes(hlo.parse(text)) == 4 * (8 + 4) * 16
    assert traffic.memory_bytes(hlo.parse(text.replace("tpu_custom_call", "Buffer"))) == 0
