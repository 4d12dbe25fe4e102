"""One stream on many hosts: disjoint parts, one state, rows in the order of the global array."""

import concurrent.futures
import itertools
import json
import multiprocessing
import socket

import numpy as np
import pytest
import synthetic

from tfm import config, processes
from tfm.data import stream
from tfm.transformer import Batch

COUNT = 6000  # A batch of 64 rows has about 250 pairs, and at most 1,300 wait.


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def equal(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def joined(parts):
    return Batch(*map(np.concatenate, zip(*parts, strict=True)))


def settings(folder, rows):
    return config.Data(rows=rows, source_length=48, target_length=48, seed=3, cache_dir=str(folder))


@pytest.fixture
def hosts_of(tmp_path):
    """``hosts_of(n)``: the corpora and the streams of n hosts, without prefetching."""

    def open_(hosts, rows=64):
        data = settings(tmp_path, rows)
        corpora = [synthetic.opened(COUNT, data) for _ in range(hosts)]
        streams = [
            stream.batches(*arguments, host=host, hosts=hosts, prefetch=0)
            for host, arguments in enumerate(corpora)
        ]
        return [arguments[0] for arguments in corpora], streams

    return open_


@pytest.mark.parametrize("rows", [64, 192])
def test_64_hosts_see_disjoint_parts_whose_union_is_the_stream(hosts_of, rows):
    (whole_pairs,), (whole,) = hosts_of(1, rows)
    corpora, streams = hosts_of(64, rows)
    returned = []
    for _ in range(3):
        batch, parts = next(whole), [next(part) for part in streams]
        assert {len(part.source) for part in parts} == {rows // 64}
        assert equal(batch, joined(parts))
        returned += synthetic.numbers(batch)
    # Within the first epoch a pair is returned once, by one host, and read by no other.
    assert len(set(returned)) == len(returned) < COUNT
    asked = [pairs.asked for pairs in corpora]
    assert all(asked)
    assert sorted(itertools.chain(*asked)) == sorted(whole_pairs.asked)
    assert len(set(whole_pairs.asked)) == len(whole_pairs.asked) < COUNT
    assert set(returned) <= set(whole_pairs.asked)


def test_64_hosts_return_every_pair_in_every_epoch(hosts_of):
    _, streams = hosts_of(64)
    rounds = [[synthetic.numbers(next(part)) for part in streams] for _ in range(60)]
    counts = np.bincount(list(itertools.chain(*itertools.chain(*rounds))), minlength=COUNT)
    # A pair that waits in a lane may be an epoch behind, but no more.
    assert counts.min() >= 1 and np.ptp(counts) <= 2


@pytest.mark.parametrize("hosts", [1, 4, 64])
def test_hosts_resume_from_one_state(hosts_of, hosts):
    _, (whole,) = hosts_of(1)
    _, before = hosts_of(64)
    for _ in range(3):
        next(whole)
        for part in before:
            next(part)
    state = json.loads(json.dumps(stream.merge([part.get_state() for part in before])))
    assert state == whole.get_state()
    _, after = hosts_of(hosts)
    for part in after:
        part.set_state(state)
    for _ in range(2):
        assert equal(next(whole), joined([next(part) for part in after]))
    assert stream.merge([part.get_state() for part in after]) == whole.get_state()


def _one_of_two(folder, host, port):
    """Runs one of two hosts with two devices each; returns its state and rows after 2 batches."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    arguments = synthetic.opened(COUNT, settings(folder, 8))
    with processes.joined(processes.Hosts(f"127.0.0.1:{port}", 2, host)) as group:
        own = stream.batches(*arguments, host=group.index, hosts=group.count)
        next(own)
        batch = next(own)
        state = stream.merge(group.gather(own.get_state()))
        own.close()
        mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        whole = jax.make_array_from_process_local_data(sharding, batch.source)
        shards = [(one.index[0].start, np.asarray(one.data)) for one in whole.addressable_shards]
        next_own = stream.batches(*arguments, host=host, hosts=2, prefetch=0)
        next_own.set_state(state)
        return whole.shape, shards, state, next(next_own)


def test_two_processes_gather_one_state_and_keep_the_order_of_rows(tmp_path):
    arguments = synthetic.opened(COUNT, settings(tmp_path, 8))
    whole = stream.batches(*arguments, prefetch=0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, spawn) as pool:
        running = [pool.submit(_one_of_two, tmp_path, host, port) for host in (0, 1)]
        shapes, shards, states, nexts = zip(*(r.result(timeout=120) for r in running), strict=True)
    batch = take(whole, 2)[1]
    assert states[0] == states[1] == whole.get_state()
    assert shapes == ((8, 48), (8, 48))
    assert sorted(start for start, _ in itertools.chain(*shards)) == [0, 2, 4, 6]
    for start, rows in itertools.chain(*shards):
        assert np.array_equal(rows, batch.source[start : start + 2])
    assert equal(next(whole), joined(nexts))
