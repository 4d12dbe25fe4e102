"""tools/tpu_vm.sh against a fake Google Cloud that keeps its nodes in folders (fake_gcloud.py)."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SCRIPT = TESTS.parents[1] / "tools" / "tpu_vm.sh"
COMMANDS = ["create", "push", "install", "run", "logs"]
COMMANDS += ["status", "stop", "resume", "keep", "delete"]
TRAIN = ["tfm", "train", "experiments/x.py", "--workdir", "gs://bucket/x"]

# Programs of a worker. The tmux session exists until it is first asked for; tfm ends with the exit
# code, or the loss of the node, that the next line of $CLOUD/endings says.
STUBS = {
    "tmux": """
case $1 in
  has-session) [ -e ~/session ] && rm ~/session ;;
  new-session) shift 4; "$@"; touch ~/session ;;
esac""",
    "tfm": """
for word in "$@" END; do printf '%s\\0' "$word"; done >>"$CLOUD/argv"
ending=$(head -n 1 "$CLOUD/endings"); sed -i 1d "$CLOUD/endings"
case $ending in
  PREEMPTED|TERMINATED) echo '{"node": "'$ending'"}' >"$CLOUD/tpu-vm"; exit 143 ;;
  *) exit "${ending:-0}" ;;
esac""",
    "python3": """
case "$*" in
  *' venv '*) mkdir -p .venv/bin; printf '#!/bin/sh\\necho "$PWD: pip $*" >>"$CLOUD/pip"' \\
    >.venv/bin/pip; chmod +x .venv/bin/pip ;;
esac""",
}


@pytest.fixture
def cloud(tmp_path):
    folder = tmp_path / "cloud"
    (folder / "bin").mkdir(parents=True)
    (folder / "endings").touch()
    stubs = STUBS | {"gcloud": f'exec "{sys.executable}" -SE "{TESTS}/fake_gcloud.py" "$@"'}
    for name, text in stubs.items():
        file = folder / "bin" / name
        file.write_text(f"#!/usr/bin/env bash\n{text}\n")
        file.chmod(0o755)
    return folder


@pytest.fixture
def clone(tmp_path):
    """A small git clone with the script in it: one file is ignored, one untracked, one deleted."""
    root = tmp_path / "a clone"
    for name in (
        "tools/x",
        "tfm/a.py",
        "tfm/gone.py",
        "experiments/x.py",
        "runs/log",
        "new one.py",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / ".gitignore").write_text("runs/\n")
    shutil.copy(SCRIPT, root / "tools")
    for words in (["init", "-q"], ["add", "tfm", "tools", "experiments", ".gitignore"]):
        subprocess.run(["git", "-C", root, *words], check=True)
    (root / "tfm/gone.py").unlink()
    return root


@pytest.fixture
def tpu(cloud, clone):
    """``tpu("run", "node", ...)`` runs the script; returns (exit code, stdout, stderr)."""

    def run(*words, script=clone / "tools" / "tpu_vm.sh"):
        path = f"{cloud}/bin{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "CLOUD": str(cloud)}
        done = subprocess.run(
            ["bash", script, *words], env=environment, text=True, capture_output=True, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    return run


def calls(cloud):
    file = cloud / "calls"
    return [json.loads(line)[2:] for line in file.read_text().splitlines()] if file.exists() else []


def verbs(cloud):
    return [f"{group} {verb}" for group, verb, *_ in calls(cloud)]


def started(cloud):
    """The arguments of every started tfm."""
    return [part.split("\0")[:-1] for part in (cloud / "argv").read_text().split("END\0")[:-1]]


def ready(tpu, *options):
    for words in (("create", "node", "--type", "v6e-8", *options), ("push", "node")):
        code, _, err = tpu(*words)
        assert code == 0, err


@pytest.mark.parametrize(
    "options, call",
    [
        ([], "tpu-vm create node --version=v2-alpha-tpuv6e --accelerator-type=v6e-8"),
        (
            ["--spot", "--zone", "z", "--project=p", "--create-flag=--network=a b"],
            "tpu-vm create node --version=v2-alpha-tpuv6e --accelerator-type=v6e-8 --spot "
            "--network=a|b --zone=z --project=p",
        ),
        (
            ["--queued", "--spot", "--runtime", "mine"],
            "queued-resources create node --node-id=node --runtime-version=mine "
            "--accelerator-type=v6e-8 --spot",
        ),
    ],
)
def test_create_on_demand_spot_and_queued(tpu, cloud, options, call):
    code, _, err = tpu("create", "node", "--type", "v6e-8", *options)
    assert code == 0, err
    assert calls(cloud)[0] == [word.replace("|", " ") for word in call.split(" ")]
    assert verbs(cloud)[1:] == (["queued-resources describe"] if "--queued" in options else [])


def test_push_copies_the_clone_and_deletes_removed_modules(tpu, cloud):
    ready(tpu)
    home = cloud / "worker1" / "tfm"
    (home / "tfm/stale.py").write_text("a module that was deleted")
    (home / "corpus").write_text("not ours")
    assert tpu("push", "node")[0] == 0
    assert (home / "new one.py").read_text() == "new one.py"
    assert (home / "corpus").exists()
    assert sorted(f.name for f in (home / "tfm").iterdir()) == ["a.py"]
    assert not (home / "runs").exists()
    assert not (home / ".git").exists()


def test_install_uses_pip_in_a_virtual_environment(tpu, cloud):
    ready(tpu)
    assert tpu("install", "node")[0] == 0
    installed = (cloud / "pip").read_text().splitlines()
    assert installed == [
        f"{cloud}/worker{i}/tfm: pip install -q -e .[tpu,bucket]" for i in range(2)
    ]


def hostile():
    fixed = ["", " ", "a  b", "*", "~", "$HOME", "`id`", "it's", '"', "\\", "a\nb", "#", "!x"]
    fixed += ["-n", "译", ";exit", "&&", "{a,b}", "$'x'", "'\\''", "--a=b c", "%q", "|", "<(x)"]
    rng = random.Random(0)
    letters = "ab'\"\\ $`*?[]{}()<>|&;!#~\n\t%@译"
    return fixed + ["".join(rng.choices(letters, k=9)) for _ in range(40)]


def test_arguments_reach_every_worker_unchanged(tpu, cloud):
    ready(tpu)
    code, _, err = tpu("run", "node", "--", "tfm", *hostile())
    assert code == 0, err
    found = started(cloud)
    assert [len(words) for words in found] == [len(hostile())] * 2
    for here, *there in zip(hostile(), *found, strict=True):
        assert there == [here] * 2


@pytest.mark.parametrize(
    "words",
    [
        ["create", "node", "--type", "v4-8", "--spot"],
        ["create", "node", "--type=v4-8", "--queued", "--create-flag=--network=it's a net"],
        ["run", "node", "--zone", "z", "--", "tfm", *hostile()],
        ["install", "node"],
        ["logs", "node", "--worker", "1"],
        ["delete", "node", "--queued", "--project", "p"],
    ],
)
def test_dry_run_prints_the_calls_and_makes_none(tpu, cloud, words):
    """Run by a shell, the printed text makes the calls that the script makes without --dry-run."""
    code, text, err = tpu(words[0], "--dry-run", *words[1:])
    assert code == 0, err
    assert calls(cloud) == []
    tpu(text, script="-c")
    printed = calls(cloud)
    (cloud / "calls").unlink()
    for kind in ("tpu-vm", "queued-resources"):
        (cloud / kind).unlink(missing_ok=True)
    for worker in cloud.glob("worker*"):
        shutil.rmtree(worker)
    tpu(*words)
    assert calls(cloud) == printed
    assert printed


def test_dry_run_of_keep_shows_the_recovery_from_a_preemption(tpu, cloud):
    code, text, err = tpu("keep", "node", "--type", "v4-8", "--dry-run", "--", *TRAIN)
    assert code == 0, err
    assert calls(cloud) == []
    starts = [line.split()[3:5] for line in text.splitlines() if line.startswith("gcloud ")]
    verbs = [verb for _, verb in starts]
    assert verbs == ["list", "delete", "create", "scp", "ssh", "ssh", "ssh", "ssh"]


def keep(tpu, cloud, endings, *options):
    """Runs `keep`; ``endings`` are those of tfm, in the order in which the two workers start it."""
    (cloud / "endings").write_text("".join(f"{e}\n" for e in endings))
    options = ("--type", "v6e-8", "--every", "0.01", *options)
    return tpu("keep", "node", *options, "--", *TRAIN)


@pytest.mark.parametrize("state, queued", [("PREEMPTED", ["--queued"]), ("TERMINATED", [])])
def test_keep_recreates_a_lost_node_and_runs_the_same_command(tpu, cloud, state, queued):
    code, _, err = keep(tpu, cloud, [state, state, "0", "0"], *queued, "--spot")
    assert code == 0, err
    assert started(cloud) == [TRAIN[1:]] * 4
    group = "queued-resources" if queued else "tpu-vm"
    made = [verb for verb in verbs(cloud) if verb.split()[1] in ("create", "delete")]
    assert made == [f"{group} create", f"{group} delete", f"{group} create"]
    assert all("--spot" in call for call in calls(cloud) if call[1] == "create")


def test_keep_recreates_a_suspended_queued_resource(tpu, cloud):
    (cloud / "queued-resources").write_text('{"node": "SUSPENDED"}')
    code, _, err = keep(tpu, cloud, [], "--queued")
    assert code == 0, err
    assert calls(cloud)[2] == ["queued-resources", "delete", "node", "--force", "--quiet"]


def test_keep_restarts_after_143_on_the_same_node_without_limit(tpu, cloud):
    code, _, err = keep(tpu, cloud, ["143"] * 4 + ["0", "0"], "--retries", "0")
    assert code == 0, err
    assert len(started(cloud)) == 6
    assert verbs(cloud).count("tpu-vm create") == 1


def test_keep_gives_up_on_a_run_that_keeps_failing(tpu, cloud):
    """A failure counts even if other workers end well."""
    code, _, err = keep(tpu, cloud, ["143", "1", "0", "1"], "--retries", "1")
    assert code == 1
    assert "the run failed 2 times" in err
    assert "failed with code 1" in err


def test_keep_does_not_restart_what_ctrl_c_has_ended(tpu, cloud):
    code, _, err = keep(tpu, cloud, ["143", "143", "1", "130"])
    assert code == 1
    assert "stopped the run with Ctrl-C" in err
    assert len(started(cloud)) == 4


def test_keep_does_not_mistake_a_failed_call_for_a_lost_node(tpu, cloud):
    ready(tpu)
    (cloud / "calls").unlink()
    (cloud / "fail-list").touch()
    code, _, err = keep(tpu, cloud, [], "--retries", "2")
    assert code == 1
    assert "3 failed calls in a row" in err
    assert verbs(cloud) == ["tpu-vm list"] * 3


def test_keep_ignores_the_exit_code_of_an_earlier_run(tpu, cloud):
    ready(tpu)
    assert tpu("run", "node", "--", "tfm", "earlier")[0] == 0
    assert tpu("status", "node")[0] == 0  # this ends the fake tmux session
    code, _, err = keep(tpu, cloud, [])
    assert code == 0, err
    assert started(cloud)[2:] == [TRAIN[1:]] * 2
    assert "failed" not in err


def test_keep_warns_of_a_folder_that_is_deleted_with_the_node(tpu):
    local = [word.replace("gs://bucket/x", "runs/x") for word in TRAIN]
    for train, warned in ((local, True), (TRAIN, False)):
        _, _, err = tpu("keep", "node", "--type", "v4-8", "--dry-run", "--", *train)
        assert ("deleted with the node's disk" in err) == warned


def test_resume_leaves_a_running_run_and_a_stopped_node_alone(tpu, cloud):
    ready(tpu)
    (cloud / "worker1" / "session").touch()
    words = ["resume", "node", "--type", "v6e-8", "--", *TRAIN]
    assert tpu(*words)[0] == 0
    assert not (cloud / "argv").exists()
    (cloud / "tpu-vm").write_text('{"node": "STOPPED"}')
    code, _, err = tpu(*words)
    assert code == 1
    assert "start or delete it" in err


def test_a_second_run_is_refused(tpu, cloud):
    ready(tpu)
    (cloud / "worker0" / "session").touch()
    code, _, err = tpu("run", "node", "--", *TRAIN)
    assert code != 0
    assert "a run is already going" in err
    assert len(started(cloud)) == 1  # on the other worker


def test_status_prints_the_state_of_node_and_workers(tpu, cloud):
    assert tpu("status", "node") == (0, "node: no such node\n", "")
    ready(tpu)
    assert tpu("status", "node")[1].split()[3::2] == ["not-started", "not-started"]
    (cloud / "endings").write_text("143\n3\n")
    tpu("run", "node", "--", *TRAIN)
    assert [line.split()[1:] for line in tpu("status", "node")[1].splitlines()[1:]] == [
        ["running"]
    ] * 2
    lines = tpu("status", "node")[1].splitlines()
    assert lines[0] == "node: READY"
    assert [line.split()[1:] for line in lines[1:]] == [["ended", "143"], ["ended", "3"]]


@pytest.mark.parametrize(
    "words, message",
    [
        (["begin"], "unknown command 'begin'"),
        (["create", "node"], "--type is missing"),
        (["create", "node", "--type", "v99-8"], "give --runtime"),
        (["create", "node", "--type"], "value is missing"),
        (["create", "node", "--tyep=v4-8"], "unknown option '--tyep'"),
        (["push"], "NAME is missing"),
        (["push", "node", "other"], "unexpected 'other': only one NAME"),
        (["run", "node"], "the command to run is missing"),
        (["run", "node", "tfm", "train"], "a command to run after --"),
        (["push", "node", "--", "x"], "unexpected 'x'"),
        (["logs", "node", "--lines", "3; rm -r x"], "take numbers"),
    ],
)
def test_misuse_is_one_line_of_error(tpu, cloud, words, message):
    code, out, err = tpu(*words)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert calls(cloud) == []


def test_a_missing_clone_or_gcloud_is_an_error_with_a_remedy(tpu, cloud, clone):
    (clone / ".git").rename(clone / "not git")
    code, _, err = tpu("push", "node")
    assert code == 1
    assert "run it from a clone of tfm" in err
    (cloud / "bin" / "gcloud").unlink()
    bare = {"PATH": str(cloud / "bin")}
    for tool in ("bash", "cat", "dirname"):
        (cloud / "bin" / tool).symlink_to(shutil.which(tool))
    words = [cloud / "bin" / "bash", SCRIPT, "delete", "node"]
    done = subprocess.run(words, env=bare, text=True, capture_output=True)
    assert done.returncode == 1
    assert "gcloud is not installed: https://" in done.stderr


def test_help_names_every_command_and_option(tpu, cloud):
    everything = tpu("--help")[1]
    for command in COMMANDS:
        assert f"\n  {command} " in everything
        code, text, _ = tpu(command, "--help")
        assert code == 0
        assert text.startswith(f"tpu_vm.sh {command} NAME")
        everything += text
    source = SCRIPT.read_text()
    options = [
        line.split(")")[0].strip() for line in source.splitlines() if line.startswith("    --")
    ]
    assert len(options) > 10
    assert all(option in everything for option in options if option not in ("--", "--*=*"))
