import jax
import pytest

from tfm import memory

MEMINFO = "MemTotal:       2000 kB\nMemFree:         100 kB\nMemAvailable:    1000 kB\n"


def machine(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return memory.free_on_machine(folder)


def test_this_machine_has_some():
    assert 2**20 < memory.free_on_machine() < 2**50
    assert memory.free(jax.devices()[0]) > 2**20


def test_memory_that_caches_files_is_free(tmp_path):
    assert machine(tmp_path, {"proc/meminfo": MEMINFO}) == 1000 * 1024


@pytest.mark.parametrize(
    ("limit", "used", "cached", "free"),
    [("500000", 400_000, 100_000, 200_000), ("max", 400_000, 0, 1024_000), ("9", 10, 0, 0)],
)
def test_a_container_may_have_less_than_its_machine(tmp_path, limit, used, cached, free):
    folder = "sys/fs/cgroup"
    files = {
        "proc/meminfo": MEMINFO,
        f"{folder}/memory.max": limit,
        f"{folder}/memory.current": str(used),
        f"{folder}/memory.stat": f"anon 1\nactive_file 0\ninactive_file {cached}\n",
    }
    assert machine(tmp_path, files) == free


def test_a_container_of_the_first_kind(tmp_path):
    folder = "sys/fs/cgroup/memory"
    files = {
        "proc/meminfo": MEMINFO,
        f"{folder}/memory.limit_in_bytes": "500000",
        f"{folder}/memory.usage_in_bytes": "400000",
        f"{folder}/memory.stat": "inactive_file 1\ntotal_inactive_file 50000\n",
    }
    assert machine(tmp_path, files) == 150_000


def test_swap_space_is_free_too(tmp_path):
    assert machine(tmp_path, {"proc/meminfo": MEMINFO + "SwapFree: 24 kB\n"}) == 1024 * 1024


def test_a_gpu_says_what_it_has_left():
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 10, "bytes_in_use": 3}

    class Silent(Device):
        memory_stats = dict

    assert memory.free(Device()) == 7
    assert memory.free(Silent()) is None


def test_sizes_in_words():
    assert memory.in_words(84.06 * 2**30) == "84.1 GiB"
    assert memory.in_words(20 * 2**20) == "20 MiB"
