"""tools/*.sh under shellcheck; the Slurm script with fake Slurm commands; the JobSet by its schema.

The schema is that of ``kubeflow-trainer-api``: classes generated from the OpenAPI definitions of
JobSet v1alpha2 and of Kubernetes' Job and Pod. They check names, types and required fields, but
neither the values of the enumerations used here nor the rules that the controllers check: tests
below assert those one by one.
"""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import pydantic
import pytest
import yaml
from kubeflow_trainer_api import models

TOOLS = Path(__file__).parents[2] / "tools"
SLURM = TOOLS / "slurm_train.sh"


@pytest.mark.parametrize("script", sorted(TOOLS.glob("*.sh")), ids=lambda path: path.name)
def test_shellcheck(script):
    checker = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([checker, "--enable=quote-safe-variables", script], capture_output=True)
    assert done.returncode == 0, done.stdout.decode()


@pytest.fixture
def slurm(tmp_path):
    """``slurm(code, state, *arguments)`` runs the script as a job whose srun exits with ``code``
    and whose state squeue prints; returns its exit code, its stderr and the calls it made.
    """
    bin_ = tmp_path / ".venv" / "bin"
    bin_.mkdir(parents=True)
    stubs = {
        "srun": 'for word; do printf "%s\\0" "$word"; done >"$HOME/srun"; exit "$CODE"',
        "squeue": 'echo "$STATE"',
        "scontrol": 'echo "$*" >"$HOME/scontrol"',
        "tfm": "",
    }
    for name, text in stubs.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin_ / name).chmod(0o755)

    def run(code, state, *arguments, job="7"):
        environment = {
            "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_ID": job,
            "CODE": str(code),
            "STATE": state,
        }
        words = ["bash", SLURM, *arguments]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        made = {
            f: (tmp_path / f).read_text() for f in ("srun", "scontrol") if (tmp_path / f).exists()
        }
        return done.returncode, done.stderr, made

    return run


def test_slurm_starts_tfm_with_unchanged_arguments(slurm, tmp_path):
    arguments = ["x.py", "--workdir", "a b/*", "--note", "it's $HOME", ""]
    code, err, made = slurm(0, "RUNNING", *arguments)
    assert code == 0, err
    words = made["srun"].split("\0")[:-1]
    start = words.index(f"{tmp_path}/.venv/bin/tfm")
    assert words[start + 1 :] == ["train", *arguments]
    assert words[:start] == ["--kill-on-bad-exit=0", "--wait=300"]


@pytest.mark.parametrize(
    "code, state, again",
    [
        (0, "RUNNING", False),  # done
        (143, "RUNNING", True),  # time limit: a checkpoint was saved
        (143, "COMPLETING", False),  # cancelled by its owner
        (143, "", False),
        (130, "RUNNING", False),  # Ctrl-C in srun
        (1, "RUNNING", False),  # failed
    ],
)
def test_slurm_requeues_a_job_that_saved_and_stopped(slurm, code, state, again):
    ended, _, made = slurm(code, state, "x.py", "--workdir", "w")
    assert ended == code
    assert made.get("scontrol") == ("requeue 7\n" if again else None)


def test_slurm_reports_misuse(slurm, tmp_path):
    for job, arguments in (("", ["x.py"]), ("7", [])):
        code, err, made = slurm(0, "RUNNING", *arguments, job=job)
        assert (code, made) == (2, {})
        assert err.startswith("usage: sbatch ")
    (tmp_path / ".venv/bin/tfm").unlink()
    code, err, made = slurm(0, "RUNNING", "x.py")
    assert (code, made) == (1, {})
    assert "pip install -e '.[cuda]'" in err


SBATCH = {  # the options used and the form of their values, from sbatch(1)
    "job-name": r"\w+",
    "nodes": r"\d+(-\d+)?",
    "gpus-per-node": r"(\w+:)?\d+",
    "ntasks-per-node": r"\d+",
    "cpus-per-task": r"\d+",
    "time": r"(\d+-)?\d+(:\d\d){0,2}",
    "signal": r"([BR]+:)?(\d+|[A-Z]+\d?)(@\d+)?",
    "requeue": None,
    "open-mode": r"append|truncate",
    "output": r"([\w./-]|%[AajJnNstuwx%])+",
}


def test_slurm_directives():
    lines = SLURM.read_text().splitlines()
    given = {}
    for number, line in enumerate(lines):
        if line.startswith("#SBATCH"):
            # sbatch reads them only before the first command.
            assert all(before.startswith("#") for before in lines[:number])
            option, equals, value = line.removeprefix("#SBATCH --").partition("=")
            form = SBATCH[option]
            assert re.fullmatch(form, value) if form else not equals, line
            given[option] = value
    # Under Slurm JAX uses one device per process, by the process's number on its node.
    assert given["ntasks-per-node"] == given["gpus-per-node"]
    # Sent to the processes, not to the batch shell ("B:"), and with time left to save.
    assert given["signal"] == "TERM@300"
    assert {"requeue", "open-mode"} <= given.keys()


def check_jobset(manifest):
    """Raises if the manifest is not a JobSet; the classes drop fields that they do not know."""
    found = models.JobsetV1alpha2JobSet.from_dict(copy.deepcopy(manifest)).to_dict()
    if found != manifest:
        raise ValueError("unknown fields")


@pytest.fixture
def manifest():
    return yaml.safe_load((TOOLS / "jobset.yaml").read_text())


def pod(manifest):
    return job(manifest)["template"]["spec"]


def job(manifest):
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]


def test_jobset_schema(manifest):
    check_jobset(manifest)
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m["spec"].update(failurePolicies={}),
        lambda m: m["spec"]["failurePolicy"].update(maxRestarts="5"),
        lambda m: m["spec"]["failurePolicy"]["rules"][0].pop("name"),
        lambda m: job(m).update(completion=2),
        lambda m: job(m)["podFailurePolicy"]["rules"][0]["onExitCodes"].update(values=["143"]),
        lambda m: pod(m)["containers"][0].update(arguments=[]),
        lambda m: pod(m)["containers"][0]["env"][1].update(value=2),
        lambda m: pod(m)["volumes"][0].pop("name"),
    ],
)
def test_jobset_schema_refuses(manifest, spoil):
    spoil(manifest)
    with pytest.raises((ValueError, pydantic.ValidationError)):
        check_jobset(manifest)


def test_jobset_restarts_on_143_and_on_a_lost_node(manifest):
    policy = manifest["spec"]["failurePolicy"]
    (rule,) = policy["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert policy["maxRestarts"] > 0
    stopped, lost = job(manifest)["podFailurePolicy"]["rules"]
    assert stopped["action"] == lost["action"] == "FailJob"
    container = pod(manifest)["containers"][0]["name"]
    assert stopped["onExitCodes"] == {"containerName": container, "operator": "In", "values": [143]}
    assert lost["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    # The Job controller accepts a podFailurePolicy only with this; and no pod may restart alone.
    assert pod(manifest)["restartPolicy"] == "Never"
    assert job(manifest)["backoffLimit"] == 0


def test_jobset_gives_every_process_its_number_and_the_coordinator(manifest):
    (replicated,) = manifest["spec"]["replicatedJobs"]
    (container,) = pod(manifest)["containers"]
    variables = {entry["name"]: entry for entry in container["env"]}
    name = manifest["metadata"]["name"]
    host, _, port = variables["JAX_COORDINATOR_ADDRESS"]["value"].partition(":")
    assert host == f"{name}-{replicated['name']}-0-0.{name}"
    assert manifest["spec"]["network"]["enableDNSHostnames"] is True
    assert 1024 < int(port) < 65536
    processes = int(variables["JAX_NUM_PROCESSES"]["value"])
    assert processes == job(manifest)["parallelism"] == job(manifest)["completions"]
    assert replicated["replicas"] == 1
    assert job(manifest)["completionMode"] == "Indexed"
    field = variables["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def test_jobset_script_replaces_the_shell_by_tfm(manifest, tmp_path):
    """The container's command with fake pip and tfm: tfm gets the arguments, and so SIGTERM."""
    (container,) = pod(manifest)["containers"]
    script, name, *arguments = container["args"]
    assert container["command"] == ["bash", "-c"]
    (tmp_path / "python").write_text("#!/bin/sh\n")
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/pip").write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/pip\n')
    (tmp_path / "venv/bin/tfm").write_text("#!/bin/sh\nprintf '%s\\n' $$ \"$@\"\nexit 143\n")
    for program in (tmp_path / "python", *(tmp_path / "venv/bin").iterdir()):
        program.chmod(0o755)
    words = ["bash", "-c", script.replace("/venv", f"{tmp_path}/venv"), name, *arguments]
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        out = process.stdout.read().splitlines()
    assert process.returncode == 143
    assert out == [str(process.pid), "train", *arguments]
    assert (tmp_path / "pip").read_text() == "install -q -e .[cuda]\n"
