"""The systemd unit under systemd-analyze; Dockerfile and Compose file by what they promise."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tfm.serve.settings import Limits

FOLDER = Path(__file__).parents[2] / "tools" / "serve"


def test_systemd_verifies_the_unit(tmp_path):
    analyze = shutil.which("systemd-analyze") or pytest.skip("no systemd here")
    text = (FOLDER / "tfm-serve.service").read_text()
    unit = tmp_path / "tfm-serve.service"
    unit.write_text(text.replace("/opt/tfm/bin/tfm ", "/bin/true "))  # which is installed
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    own = [line for line in done.stderr.splitlines() if unit.name in line]
    assert own == [] and done.returncode == 0, done.stderr
    unit.write_text(text.replace("NoNewPrivileges", "NoNewPrivilege"))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    assert "NoNewPrivilege" in done.stderr


def test_all_wait_longer_than_the_server_drains():
    drains = Limits().drain_seconds
    unit = (FOLDER / "tfm-serve.service").read_text()
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1]) > drains
    (service,) = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"].values()
    assert int(service["stop_grace_period"].removesuffix("s")) > drains


def instructions():
    """The Dockerfile as (instruction, arguments), lines joined."""
    text = re.sub(r"\\\n\s*", "", (FOLDER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_the_image_runs_as_another_user_than_root_and_copies_what_exists():
    found = instructions()
    known = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "EXPOSE", "HEALTHCHECK",
             "STOPSIGNAL", "ENTRYPOINT", "CMD"}  # fmt: skip
    assert {name for name, _ in found} <= known
    last = max(i for i, (name, _) in enumerate(found) if name == "FROM")
    users = [value for name, value in found[last:] if name == "USER"]
    assert users and users[-1].isdigit() and int(users[-1]) > 0
    assert all(":" in value for name, value in found if name == "FROM")  # a version
    for name, value in found:
        if name == "COPY" and not value.startswith("--from"):
            for source in value.split()[:-1]:
                assert (FOLDER.parents[1] / source).exists(), source


def test_compose_is_read_only_and_for_this_machine_alone():
    manifest = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    (service,) = manifest["services"].values()
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    named = {v.split(":")[0] for v in service["volumes"] if not v.startswith((".", "/"))}
    assert named == set(manifest["volumes"])
    writable = [v.split(":")[1] for v in service["volumes"] if not v.endswith(":ro")]
    assert writable == [value for name, value in instructions() if name == "VOLUME"]
