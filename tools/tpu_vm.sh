#!/usr/bin/env bash
# One training run on a Cloud TPU VM: create the node, install tfm, run, follow, resume, delete.
# Needs the Google Cloud CLI (`gcloud auth login` done) and, for `push`, git and tar.
set -euo pipefail

session=tfm # the tmux session on every worker, which also has ~/tfm and ~/tfm-run/{log,exit}
saved=143   # tfm's exit code after SIGTERM: it has saved a checkpoint and can resume
stopped=130 # its exit code after Ctrl-C: somebody does not want it to go on

usage() {
  case "${1-}" in
    create) cat <<'END' ;;
tpu_vm.sh create NAME --type TYPE [--runtime VERSION] [--spot] [--queued] [--create-flag FLAG]...
  Creates the node and waits until it is ready.
    --type TYPE         v5litepod-16, v6e-8, v5p-128, v4-32, ...
    --runtime VERSION   the node's software version; by default the usual one for the type
    --spot              cheaper, but may be preempted at any time: see `keep`
    --queued            request a queued resource: wait for capacity instead of failing
    --create-flag FLAG  passed on to gcloud, e.g. --create-flag=--service-account=A
END
    push) cat <<'END' ;;
tpu_vm.sh push NAME
  Copies this clone (tracked files, and untracked ones that git does not ignore) to ~/tfm on every
  worker.
END
    install) cat <<'END' ;;
tpu_vm.sh install NAME
  Creates ~/tfm/.venv on every worker (Python 3.11 or newer) and installs '.[tpu,bucket]' into it.
END
    run) cat <<'END' ;;
tpu_vm.sh run NAME -- COMMAND...
  Starts COMMAND in ~/tfm on every worker, inside a tmux session, and returns at once. Arguments
  are passed unchanged, spaces, quotes and globs included. The same command resumes the run:
    tpu_vm.sh run NAME -- tfm train experiments/wmt19_zh_en.py --workdir gs://BUCKET/wmt19
END
    logs) cat <<'END' ;;
tpu_vm.sh logs NAME [--worker N] [--lines N]
  Shows the last lines of a worker's log (worker 0, 50 lines) and follows it until Ctrl-C.
END
    status) cat <<'END' ;;
tpu_vm.sh status NAME [--queued]
  Prints the state of the node and, one line per worker, of the run: running, ended with its exit
  code, or not-started.
END
    stop) cat <<'END' ;;
tpu_vm.sh stop NAME
  Sends SIGTERM to the run on every worker: tfm saves a checkpoint and exits with code 143.
END
    resume) cat <<'END' ;;
tpu_vm.sh resume NAME --type TYPE [options of create] -- COMMAND...
  After a preemption: deletes what is left of the node, creates it again, pushes, installs, runs.
  A node that is ready is kept, and a run that is still going is left alone.
END
    keep) cat <<'END' ;;
tpu_vm.sh keep NAME --type TYPE [options of create] [--every S] [--retries N] -- COMMAND...
  Repeats `resume` every S seconds (60) until COMMAND has ended with code 0 on every worker. A node
  that was preempted or terminated is created again and a run that ended with code 143 (SIGTERM,
  checkpoint saved) is started again, both without limit. Gives up after more than N (5) failed
  calls in a row, when COMMAND has failed more than N times, or when somebody has stopped it with
  Ctrl-C (code 130).
  The disk is deleted with the node: give COMMAND a --workdir in a bucket.
END
    delete) cat <<'END' ;;
tpu_vm.sh delete NAME [--queued]
  Deletes the node, and with --queued its queued resource. Files that are not in a bucket are lost.
END
    *) cat <<'END' ;;
tpu_vm.sh COMMAND NAME [--zone ZONE] [--project PROJECT] [--dry-run] ...
  create   create the node: on demand, --spot or --queued
  push     copy this clone to every worker
  install  install tfm for TPUs on every worker
  run      start a command on every worker, inside tmux
  logs     follow the log of a worker
  status   print the state of the node and of the run
  stop     make the run save a checkpoint and exit
  resume   after a preemption: create the node, install the code and start the run again
  keep     repeat `resume` until the run is done
  delete   delete the node
`tpu_vm.sh COMMAND --help` describes a command. With --dry-run every gcloud call is printed and none
is made; `resume` and `keep` then show what they do after a preemption. Zone and project default to
gcloud's own settings.
END
  esac
}

say() { printf 'tpu_vm.sh: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }
misused() { say "$* (tpu_vm.sh ${verb:+$verb }--help)"; exit 2; }

# The words as one shell command line, quoted where necessary.
quote() {
  local word escaped="'\\''" out=
  for word; do
    case "$word" in
      '' | *[!A-Za-z0-9_./:=@%+,-]*) word="'${word//\'/$escaped}'" ;;
    esac
    out+="$word "
  done
  printf '%s' "${out% }"
}

# gcloud compute tpus GROUP VERB ...; with --dry-run it is only printed, on the script's stdout (3).
tpus() {
  local call=(gcloud compute tpus "$@" ${zone:+"--zone=$zone"} ${project:+"--project=$project"})
  if [[ $dry_run ]]; then printf '%s\n' "$(quote "${call[@]}")" >&3; else "${call[@]}" 3>&-; fi
}

# on WORKERS SCRIPT: runs the script in the login shell of those workers (a number, or `all`).
on() { tpus tpu-vm ssh "$name" "--worker=$1" "--command=$2"; }

# Prints the state of the node, or of its queued resource if there is no node yet, or nothing if
# there is neither. It lists all nodes, since a failed `describe` proves nothing.
state() {
  local nodes queue=
  nodes=$(tpus tpu-vm list '--format=value(name.basename(),state)') || return
  if [[ $queued ]]; then
    queue=$(tpus queued-resources list '--format=value(name.basename(),state.state)') || return
  fi
  if [[ $dry_run ]]; then echo PREEMPTED; fi
  awk -v name="$name" '$1 == name { print $2; exit }' <<<"$nodes"$'\n'"$queue"
}

default_runtime() {
  case "$type" in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
  esac
}

create() {
  local flags=("--accelerator-type=$type")
  if [[ $spot ]]; then flags+=(--spot); fi
  flags+=(${create_flags[@]+"${create_flags[@]}"})
  if [[ $queued ]]; then
    tpus queued-resources create "$name" "--node-id=$name" "--runtime-version=$runtime" \
      "${flags[@]}" && await_queue
  else
    tpus tpu-vm create "$name" "--version=$runtime" "${flags[@]}"
  fi
}

await_queue() {
  local now
  while true; do
    now=$(tpus queued-resources describe "$name" '--format=value(state.state)') || now=unknown
    case "$now$dry_run" in
      ACTIVE | yes) return ;;
      FAILED | SUSPENDING | SUSPENDED) say "the queued resource '$name' is $now"; return 1 ;;
    esac
    say "waiting for the queued resource: $now"
    sleep "$every"
  done
}

delete() {
  if [[ $queued ]]; then
    tpus queued-resources delete "$name" --force --quiet
  else
    tpus tpu-vm delete "$name" --quiet
  fi
}

# pack ROOT ARCHIVE: the tracked and the new files of the clone that exist.
pack() (
  cd "$1"
  git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [[ -e $file ]]; then printf '%s\0' "$file"; fi
  done | tar --null -czf "$2" -T -
)

# The workers delete their copy of the package first, so that modules deleted here disappear there.
push() {
  local root folder code=0
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  git -C "$root" rev-parse --git-dir >/dev/null 2>&1 \
    || fail "$root is not a git clone: push copies what git tracks, so run it from a clone of tfm"
  folder=$(mktemp -d)
  pack "$root" "$folder/tfm.tgz" \
    && tpus tpu-vm scp "$folder/tfm.tgz" "$name:tfm.tgz" --worker=all \
    && on all 'mkdir -p ~/tfm && rm -rf ~/tfm/tfm && tar -xzf ~/tfm.tgz -C ~/tfm' || code=1
  rm -r "$folder"
  return "$code"
}

# The images have Python 3.10; uv finds a newer one or downloads it.
install() {
  on all 'set -e; cd ~/tfm
command -v tmux >/dev/null || sudo apt-get install -y -q tmux
if [ ! -x .venv/bin/pip ]; then
  python3 -m pip install -q --user uv
  python3 -m uv venv -q --seed --python ">=3.11" .venv
fi
.venv/bin/pip install -q -e ".[tpu,bucket]"'
}

# On shutdown a machine sends SIGHUP right after SIGTERM: with nohup tfm can finish saving, and the
# trap keeps the shell alive to write down the exit code.
run() {
  local inside
  inside="trap : TERM; export PATH=\"\$PWD/.venv/bin:\$PATH\"
nohup $(quote "$@") >>~/tfm-run/log 2>&1 </dev/null
echo \$? >~/tfm-run/exit"
  on all "if tmux has-session -t $session 2>/dev/null; then
  echo \"\$(hostname): a run is already going; stop it first\" >&2; exit 1; fi
mkdir -p ~/tfm-run && rm -f ~/tfm-run/exit && cd ~/tfm &&
tmux new-session -d -s $session bash -c $(quote "$inside")"
}

# One line per worker: "WORKER running", "WORKER not-started", or "WORKER ended CODE".
runs() {
  on all "if tmux has-session -t $session 2>/dev/null; then echo \"\$(hostname) running\"
elif [ -f ~/tfm-run/exit ]; then echo \"\$(hostname) ended \$(cat ~/tfm-run/exit)\"
else echo \"\$(hostname) not-started\"; fi"
}

# The lines of `runs` as one word: running, not-started or an exit code (130 before another failure,
# a failure before 143 or 0).
outcome() {
  awk -v saved="$saved" -v stopped="$stopped" '
    $2 == "running" { running = 1 }
    $2 == "not-started" { missing = 1 }
    $2 == "ended" { ended = 1; if ($3 != 0 && (code == 0 || code == saved)) code = $3 }
    $2 == "ended" && $3 == stopped { code = stopped }
    END { print running ? "running" : missing || !ended ? "not-started" : code + 0 }'
}

stop() { on all "tmux list-panes -t $session -F '#{pane_pid}' | xargs -n 1 pkill -TERM -P"; }

logs() {
  tpus tpu-vm ssh "$name" "--worker=$worker" --ssh-flag=-t \
    "--command=tail -n $lines -F ~/tfm-run/log"
}

status() {
  local now
  now=$(state) || fail "listing the nodes failed; see gcloud's message above"
  if [[ ! $dry_run ]]; then echo "$name: ${now:-no such node}"; fi
  if [[ $now == READY || $dry_run ]]; then runs; fi
}

install_and_run() { push && install && run "$@"; }

# Checks node and run once and does the next thing they need. Returns 0 if the run is done, 10 if it
# is going or was started, 11 if a call failed, 12 if the run failed. $first is set until the
# command is known to have started: an exit code found before then is that of an earlier run.
advance() {
  local now run_state
  now=$(state) || { say "listing the nodes failed"; return 11; }
  case "$now" in
    READY) run_state=$(runs) || { say "the workers do not answer"; return 11; } ;;
    '') say "no node '$name': creating it"
      create && install_and_run "$@" || return 11
      first='' && return 10 ;;
    PREEMPTED | TERMINATED | FAILED | SUSPENDED) say "'$name' is $now: creating it again"
      delete && create && install_and_run "$@" || return 11
      first='' && return 10 ;;
    STOPPED | STOPPING | HIDDEN) fail "somebody has set '$name' to $now: start or delete it" ;;
    *) say "'$name' is $now"; return 10 ;;
  esac
  run_state=$(outcome <<<"$run_state")
  case "${first:-again} $run_state" in
    *' running') ;;
    *' not-started') install_and_run "$@" || return 11 ;;
    first* | "again $saved") say "starting the run"; run "$@" || return 11 ;;
    "again $stopped") fail "somebody has stopped the run with Ctrl-C: resume starts it again" ;;
    'again 0') say "the run is done"; return 0 ;;
    *) say "the run failed with code $run_state (tpu_vm.sh logs $name): starting it again"
      run "$@" || return 11
      return 12 ;;
  esac
  first='' && return 10
}

resume() {
  local code=0
  advance "$@" || code=$?
  [[ $code == 0 || $code == 10 ]] || fail "'$name' could not be resumed; see the messages above"
}

keep() {
  local code failed=0 crashed=0
  [[ " $*" == *' gs://'* || " $*" == *=gs://* ]] \
    || say "no gs:// path in the command: what it saves is deleted with the node's disk"
  while true; do
    code=0
    advance "$@" || code=$?
    if [[ $dry_run ]]; then runs; return; fi
    case $code in
      0) return ;;
      10) failed=0 ;;
      11) failed=$((failed + 1)) ;;
      12) crashed=$((crashed + 1)) ;;
    esac
    [[ $failed -le $retries ]] \
      || fail "giving up: $failed failed calls in a row (--retries $retries)"
    [[ $crashed -le $retries ]] \
      || fail "giving up: the run failed $crashed times (--retries $retries)"
    sleep "$every"
  done
}

verb=${1-}
case "$verb" in
  create | push | install | run | logs | status | stop | resume | keep | delete) shift ;;
  '' | -h | --help) usage; exit 0 ;;
  *) wrong=$verb verb=''; misused "unknown command '$wrong'" ;;
esac

name='' zone='' project='' type='' runtime='' spot='' queued='' dry_run='' first=first
worker=0 lines=50 every=60 retries=5 create_flags=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --) shift; break ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
  esac
  case "$1" in
    -h | --help) usage "$verb"; exit 0 ;;
    --dry-run) dry_run=yes; shift; continue ;;
    --spot) spot=yes; shift; continue ;;
    --queued) queued=yes; shift; continue ;;
    -*) [[ $# -ge 2 ]] || misused "$1: unknown option, or its value is missing" ;;
    *) [[ ! $name ]] || misused "unexpected '$1': only one NAME, and a command to run after --"
      name=$1; shift; continue ;;
  esac
  case "$1" in
    --zone) zone=$2 ;;
    --project) project=$2 ;;
    --type) type=$2 ;;
    --runtime) runtime=$2 ;;
    --create-flag) create_flags+=("$2") ;;
    --worker) worker=$2 ;;
    --lines) lines=$2 ;;
    --every) every=$2 ;;
    --retries) retries=$2 ;;
    *) misused "unknown option '$1'" ;;
  esac
  shift 2
done

[[ $name ]] || misused "NAME is missing: the name of the node"
[[ $lines && $every && $retries && $lines$every$retries =~ ^[0-9.]+$ ]] \
  || misused "--lines, --every and --retries take numbers"
case "$verb" in
  run | resume | keep) [[ $# -gt 0 ]] || misused "the command to run is missing, after --" ;;
  *) [[ $# -eq 0 ]] || misused "unexpected '$1': only run, resume and keep take a command" ;;
esac
case "$verb" in
  create | resume | keep)
    [[ $type ]] || misused "--type is missing: the kind of TPU, e.g. --type v5litepod-16"
    runtime=${runtime:-$(default_runtime)}
    [[ $runtime ]] || misused "unknown software version for --type '$type': give --runtime" ;;
esac
[[ $dry_run ]] || command -v gcloud >/dev/null \
  || fail "gcloud is not installed: https://cloud.google.com/sdk/docs/install"
exec 3>&1
"$verb" "$@"
