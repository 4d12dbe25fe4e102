import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tfm import sharding
from tfm.params import Param, zeros
from tfm.sharding import NO_MESH, Layout, Mesh


def layout(*sizes):
    return Layout(sharding.make(Mesh(*sizes)))


@pytest.mark.parametrize(
    ("wanted", "devices", "found"),
    [
        (Mesh(), 8, (8, 1, 1, 1)),
        (Mesh(), 1, (1, 1, 1, 1)),
        (Mesh(fsdp=-1), 8, (1, 8, 1, 1)),  # data becomes 1
        (Mesh(tensor=2), 8, (4, 1, 2, 1)),
        (Mesh(data=2, fsdp=-1, sequence=2), 8, (2, 2, 1, 2)),
        (Mesh(data=3), 8, (3, 1, 1, 1)),  # five devices are left unused
    ],
)
def test_one_axis_takes_the_devices_that_the_others_leave(wanted, devices, found):
    assert sharding.resolve(wanted, devices) == Mesh(*found)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Mesh(tensor=0), r"mesh\.tensor 0: must be 1 or more, or -1"),
        (Mesh(fsdp=-2), r"mesh\.fsdp -2: must be 1 or more, or -1"),
        (Mesh(fsdp=-1, tensor=-1), r"mesh\.fsdp and mesh\.tensor are -1: only one"),
        (Mesh(data=4, tensor=4), "data 4 x tensor 4 wants 16 devices, there are 8"),
        (Mesh(tensor=3), r"mesh\.data -1: 8 devices are not a multiple of tensor 3"),
    ],
)
def test_mesh_that_does_not_fit_the_devices_is_refused(wanted, words):
    with pytest.raises(ValueError, match=words):
        sharding.resolve(wanted, 8)


def test_mesh_takes_the_first_devices_and_is_described():
    mesh = sharding.make(Mesh(data=1, tensor=2))
    assert list(mesh.devices.flat) == jax.devices()[:2]
    assert sharding.describe(mesh) == "2 of 8 cpu device(s), tensor 2"


def test_rules_give_the_partition_spec():
    spec = layout(2, 2, 2).spec
    assert spec(("vocab", "embed"), (8, 4)) == P("tensor", "fsdp")
    assert spec(("batch", "length", None), (4, 3, 5)) == P(("data", "fsdp"), None, None)
    assert layout(8).spec(("embed", "mlp"), (3, 5)) == P(None, None)  # only data is sharded


@pytest.mark.parametrize(
    ("names", "shape", "words"),
    [
        (("embd",), (8,), "'embd' has no sharding rule; did you mean 'embed'"),
        (("zzz",), (8,), "'zzz' has no sharding rule; known: embed, vocab"),
        (("vocab", "embed"), (7, 4), r"table: vocab of size 7 is not a multiple of mesh\.tensor 2"),
        (("batch",), (6,), r"batch of size 6 is not a multiple of mesh\.data 2 x mesh\.fsdp 2"),
        (("heads", "mlp"), (4, 4), r"two of \('heads', 'mlp'\) are sharded over mesh\.tensor"),
        (("embed",), (8, 8), r"2 dimensions, but the names \('embed',\)"),
    ],
)
def test_names_and_sizes_that_do_not_fit_the_rules_are_refused(names, shape, words):
    with pytest.raises(ValueError, match=words):
        layout(2, 2, 2).spec(names, shape, "table")
    with pytest.raises(ValueError, match="no sharding rule"):
        layout(1).constrain(jnp.zeros(8), "embd")  # on one device too, so that tests find it


def test_statistics_of_a_parameter_are_sharded_like_it():
    declaration = {"a": {"w": Param((3, 4, 8), ("layers", "embed", "mlp"), zeros)}}
    spec = lambda tree: jax.tree.map(  # noqa: E731
        lambda x: x.sharding.spec, layout(2, 2, 2).abstract_like(tree, declaration)
    )
    assert spec({"a": {"w": jnp.zeros((3, 4, 8))}, "count": jnp.zeros(())}) == {
        "a": {"w": P(None, "fsdp", "tensor")},
        "count": P(),
    }
    rows, columns, none = (jnp.zeros(shape) for shape in ((3, 4), (3, 8), (1,)))
    factored = [{"a": {"w": x}} for x in (rows, columns, none)]
    found = [tree["a"]["w"] for tree in spec(factored)]
    assert found == [P(None, "fsdp"), P(None, "tensor"), P(None)]
    with pytest.raises(ValueError, match="b/w: no parameter to take the sharding from"):
        spec({"b": {"w": jnp.zeros(8)}})


def test_without_a_mesh_every_method_leaves_arrays_as_they_are():
    x = jnp.arange(6.0)
    assert NO_MESH.constrain(x, "no such name") is x
    assert NO_MESH.replicate({"x": x})["x"] is x
    assert NO_MESH.sharding(("batch",), (6,)) is None


def test_without_a_mesh_one_process_holds_the_whole_batch():
    assert NO_MESH.data_shard() == (0, 1)
    x = np.arange(6, dtype=np.int32).reshape(2, 3)
    array = NO_MESH.put(x, "batch", "length")
    assert isinstance(array, jax.Array) and array.dtype == x.dtype
    np.testing.assert_array_equal(array, x)


def test_put_and_replicate_are_inverse():
    x = np.arange(32, dtype=np.int32).reshape(8, 4)
    mesh_layout = layout(2, 2, 1, 2)
    sharded = mesh_layout.put(x, "batch", "length")
    assert {shard.data.shape for shard in sharded.addressable_shards} == {(2, 2)}
    back = mesh_layout.replicate(sharded)
    assert back.devices() == {jax.devices()[0]}
    np.testing.assert_array_equal(back, x)


def test_collectives_within_shard_map():
    mesh_layout = layout(2, 2, 2)
    x_BV = np.arange(32, dtype=np.float32).reshape(4, 8)

    def body(x_bv):
        assert x_bv.shape == (1, 4)
        first = mesh_layout.axis_offset("vocab", 4) + jnp.zeros((1,))
        return (
            mesh_layout.psum(x_bv, "vocab"),
            mesh_layout.pmax(x_bv.max(-1), "vocab"),
            mesh_layout.all_gather(first, 0, "vocab"),
            mesh_layout.psum_scatter(jnp.tile(x_bv, (1, 2)), (None, "embed"), "batch"),
        )

    total, largest, first, scattered = jax.jit(
        mesh_layout.shard_map(
            body,
            [("batch", "vocab")],
            [("batch", None), ("batch",), (None,), (None, "embed")],
        )
    )(x_BV)
    np.testing.assert_array_equal(total, x_BV[:, :4] + x_BV[:, 4:])
    np.testing.assert_array_equal(largest, x_BV.max(1))
    np.testing.assert_array_equal(first, [0, 4])
    assert scattered.shape == (1, 8) and scattered.sharding.spec == P(None, "fsdp")
    np.testing.assert_array_equal(scattered[0, :4], x_BV[:, :4].sum(0))
