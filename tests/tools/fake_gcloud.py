"""A fake gcloud for test_tpu_vm.py: nodes and workers are files and folders under $CLOUD.

It accepts exactly the flags that gcloud 528 defines for these commands, records every call, and
runs ssh commands as ssh does: the words joined by blanks and given to a shell.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

cloud = Path(os.environ["CLOUD"])
WORKERS = 2
EVERYWHERE = ["--zone", "--project", "--format"]
CREATE = ["--accelerator-type", "--spot!", "--network", "--service-account"]
FLAGS = {
    ("tpu-vm", "create"): ["--version", *CREATE],
    ("tpu-vm", "delete"): ["--quiet!"],
    ("tpu-vm", "list"): [],
    ("tpu-vm", "ssh"): ["--worker", "--command", "--ssh-flag"],
    ("tpu-vm", "scp"): ["--worker", "source"],
    ("queued-resources", "create"): ["--node-id", "--runtime-version", *CREATE],
    ("queued-resources", "delete"): ["--force!", "--quiet!"],
    ("queued-resources", "describe"): [],
    ("queued-resources", "list"): [],
}


def parse(words):
    """The group, verb and flags of a call; an unknown flag exits with code 2."""
    assert words[:2] == ["compute", "tpus"], words
    group, verb = words[2:4]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag in FLAGS[group, verb] + EVERYWHERE:
        switch = {"action": "store_true"} if flag.endswith("!") else {}
        parser.add_argument(flag.rstrip("!"), **switch)
    if verb != "list":
        parser.add_argument("name")
    return group, verb, parser.parse_args(words[4:])


def read(kind):
    file = cloud / kind
    return json.loads(file.read_text()) if file.exists() else {}


def write(kind, name, state):
    states = read(kind)
    states[name] = state
    (cloud / kind).write_text(json.dumps({k: v for k, v in states.items() if v}))


def homes(which="all"):
    return [cloud / f"worker{i}" for i in range(WORKERS) if which in ("all", str(i))]


def create(name):
    if read("tpu-vm").get(name):
        sys.exit(f"ALREADY_EXISTS: {name}")
    write("tpu-vm", name, "READY")
    for home in homes():
        home.mkdir()


def delete(name):
    write("tpu-vm", name, None)
    for home in homes():
        shutil.rmtree(home)


def ssh(home, command):
    path = f"{cloud}/bin:{os.environ['PATH']}"
    environment = {"HOME": str(home), "PATH": path, "CLOUD": str(cloud)}
    words = ["bash", "-c", " ".join(command.split(" "))]
    return subprocess.run(words, env=environment, cwd=home, stdin=subprocess.DEVNULL).returncode


def main():
    words = sys.argv[1:]
    with open(cloud / "calls", "a") as file:
        file.write(json.dumps(words) + "\n")
    group, verb, given = parse(words)
    fail = cloud / f"fail-{verb}"
    if fail.exists():
        sys.exit("UNAVAILABLE: try again later")
    if verb == "list":
        for name, state in read(group).items():
            print(f"{name}\t{state}")
    elif verb == "describe":
        print(read(group)[given.name])
    elif verb == "create":
        if group == "queued-resources":
            write(group, given.name, "ACTIVE")
        create(given.name)
    elif verb == "delete":
        if group == "queued-resources":
            write(group, given.name, None)
        if group == "tpu-vm" or given.name in read("tpu-vm"):
            delete(given.name)
    elif read("tpu-vm").get(given.name.partition(":")[0]) != "READY":
        sys.exit("FAILED_PRECONDITION: the node is not ready")
    elif verb == "scp":
        for home in homes(given.worker):
            shutil.copy(given.source, home / given.name.partition(":")[2])
    elif verb == "ssh":
        sys.exit(max(ssh(home, given.command) for home in homes(given.worker)))


if __name__ == "__main__":
    main()
