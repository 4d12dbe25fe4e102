#!/usr/bin/env bash
# One training run on a Cloud TPU VM: create the node, put tfm on it, run, follow, bring back, delete.
# Needs the Google Cloud CLI (`gcloud auth login` done) and, for `push`, git and tar.
set -euo pipefail

session=tfm # the tmux session on every worker; beside it the folder ~/tfm and ~/tfm-run/{log,exit}
saved=143   # the exit code of a tfm that was told to stop, saved, and can go on

usage() {
  case "${1-}" in
    create) cat <<'END' ;;
tpu_vm.sh create NAME --type TYPE [--runtime VERSION] [--spot] [--queued] [--create-flag FLAG]...
  Creates the node and waits until it is there.
    --type TYPE         v5litepod-16, v6e-8, v5p-128, v4-32, ...
    --runtime VERSION   the node's software; by default the one for the type
    --spot              cheaper, and taken away at any moment: see `keep`
    --queued            wait in line (a queued resource) instead of failing when there is no room
    --create-flag FLAG  given to gcloud as it stands, e.g. --create-flag=--service-account=A
END
    push) cat <<'END' ;;
tpu_vm.sh push NAME
  Copies this clone (what git tracks, and new files it does not ignore) to ~/tfm on every worker.
END
    install) cat <<'END' ;;
tpu_vm.sh install NAME
  Makes ~/tfm/.venv on every worker (with Python 3.11 or newer) and installs '.[tpu,bucket]' into it.
END
    run) cat <<'END' ;;
tpu_vm.sh run NAME -- COMMAND...
  Starts COMMAND in ~/tfm on every worker, each inside a tmux session, and comes back at once.
  Arguments reach it as they stand, spaces, quotes and globs included. The same command resumes:
    tpu_vm.sh run NAME -- tfm train experiments/wmt19_zh_en.py --workdir gs://BUCKET/wmt19
END
    logs) cat <<'END' ;;
tpu_vm.sh logs NAME [--worker N] [--lines N]
  Shows the last lines of a worker's log (worker 0, 50 lines) and follows it; Ctrl-C ends.
END
    status) cat <<'END' ;;
tpu_vm.sh status NAME [--queued]
  Says the node's state and, a line a worker, whether the run goes on or how it ended.
END
    stop) cat <<'END' ;;
tpu_vm.sh stop NAME
  Sends SIGTERM to the run on every worker: tfm saves and ends with code 143.
END
    resume) cat <<'END' ;;
tpu_vm.sh resume NAME --type TYPE [options of create] -- COMMAND...
  After a preemption: deletes what is left of the node, creates it again, pushes, installs, runs.
  A node that is ready is kept; a run that goes on is left alone.
END
    keep) cat <<'END' ;;
tpu_vm.sh keep NAME --type TYPE [options of create] [--every S] [--retries N] -- COMMAND...
  `resume`, again and again until COMMAND ends with code 0 on every worker. Looks every S seconds
  (60). A node that was preempted or terminated is made anew, and a run that ended with 143 (told to
  stop, saved) goes on, both without limit. It gives up after more than N (5) failed calls in a row,
  or when COMMAND has failed more than N times.
  The disk goes with the node: give COMMAND a --workdir in a bucket.
END
    delete) cat <<'END' ;;
tpu_vm.sh delete NAME [--queued]
  Deletes the node, and with --queued its queued resource. What is not in a bucket is lost.
END
    *) cat <<'END' ;;
tpu_vm.sh COMMAND NAME [--zone ZONE] [--project PROJECT] [--dry-run] ...
  create   make the node: on demand, --spot or --queued
  push     copy this clone to every worker
  install  install tfm for TPUs on every worker
  run      start a command on every worker, inside tmux
  logs     follow the log of a worker
  status   the node's state, and how the run does
  stop     tell the run to save and end
  resume   after a preemption: the node, the code and the run once more
  keep     `resume` until the run is done
  delete   delete the node
`tpu_vm.sh COMMAND --help` tells more. --dry-run prints every gcloud call and makes none; `resume`
and `keep` then show what they do about a preempted node. Zone and project are gcloud's own settings
unless given.
END
  esac
}

say() { printf 'tpu_vm.sh: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }
misused() { say "$* (tpu_vm.sh ${verb:+$verb }--help)"; exit 2; }

# The words, each in quotes where a shell would need them: parsing the result gives them back.
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

# gcloud compute tpus GROUP VERB ...; with --dry-run its text on the script's own stdout (3).
tpus() {
  local call=(gcloud compute tpus "$@" ${zone:+"--zone=$zone"} ${project:+"--project=$project"})
  if [[ $dry_run ]]; then printf '%s\n' "$(quote "${call[@]}")" >&3; else "${call[@]}" 3>&-; fi
}

# on WORKERS SCRIPT: the script in the login shell of those workers (a number, or `all`).
on() { tpus tpu-vm ssh "$name" "--worker=$1" "--command=$2"; }

# The state of the node, or of its queued resource where there is no node yet; nothing if neither.
# A failed call is no answer: only a list without the name says that the node is not there.
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
    now=$(tpus queued-resources describe "$name" '--format=value(state.state)') || now='not told'
    case "$now$dry_run" in
      ACTIVE | yes) return ;;
      FAILED | SUSPENDING | SUSPENDED) say "the request '$name' ended as $now"; return 1 ;;
    esac
    say "waiting in line: $now"
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

# pack ROOT ARCHIVE: the files of the clone that are there.
pack() (
  cd "$1"
  git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [[ -e $file ]]; then printf '%s\0' "$file"; fi
  done | tar --null -czf "$2" -T -
)

# The package goes first on the other side, so that a module deleted here is gone there.
push() {
  local root folder code=0
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  git -C "$root" rev-parse --git-dir >/dev/null 2>&1 \
    || fail "$root is no git clone: push copies what git tracks, so run it from a clone of tfm"
  folder=$(mktemp -d)
  pack "$root" "$folder/tfm.tgz" \
    && tpus tpu-vm scp "$folder/tfm.tgz" "$name:tfm.tgz" --worker=all \
    && on all 'mkdir -p ~/tfm && rm -rf ~/tfm/tfm && tar -xzf ~/tfm.tgz -C ~/tfm' || code=1
  rm -r "$folder"
  return "$code"
}

# The images bring Python 3.10; uv takes a newer one where there is one, and fetches it where not.
install() {
  on all 'set -e; cd ~/tfm
command -v tmux >/dev/null || sudo apt-get install -y -q tmux
if [ ! -x .venv/bin/pip ]; then
  python3 -m pip install -q --user uv
  python3 -m uv venv -q --seed --python ">=3.11" .venv
fi
.venv/bin/pip install -q -e ".[tpu,bucket]"'
}

# A machine that goes down sends SIGHUP right after SIGTERM: nohup lets tfm save in peace, and the
# trap lets the shell live to see how it ended.
run() {
  local inside
  inside="trap : TERM; export PATH=\"\$PWD/.venv/bin:\$PATH\"
nohup $(quote "$@") >>~/tfm-run/log 2>&1 </dev/null
echo \$? >~/tfm-run/exit"
  on all "if tmux has-session -t $session 2>/dev/null; then
  echo \"\$(hostname): a run goes on already; stop it first\" >&2; exit 1; fi
mkdir -p ~/tfm-run && rm -f ~/tfm-run/exit && cd ~/tfm &&
tmux new-session -d -s $session bash -c $(quote "$inside")"
}

# One line a worker: "WORKER running", "WORKER never", or "WORKER ended CODE".
runs() {
  on all "if tmux has-session -t $session 2>/dev/null; then echo \"\$(hostname) running\"
elif [ -f ~/tfm-run/exit ]; then echo \"\$(hostname) ended \$(cat ~/tfm-run/exit)\"
else echo \"\$(hostname) never\"; fi"
}

# The lines of `runs` in one word: running, never, or the exit code that tells most.
outcome() {
  awk -v saved="$saved" '
    $2 == "running" { running = 1 }
    $2 == "never" { never = 1 }
    $2 == "ended" { ended = 1; if ($3 != 0 && (code == 0 || code == saved)) code = $3 }
    END { print running ? "running" : never || !ended ? "never" : code + 0 }'
}

stop() { on all "tmux list-panes -t $session -F '#{pane_pid}' | xargs -n 1 pkill -TERM -P"; }

logs() {
  tpus tpu-vm ssh "$name" "--worker=$worker" --ssh-flag=-t \
    "--command=tail -n $lines -F ~/tfm-run/log"
}

status() {
  local now
  now=$(state) || fail "the nodes could not be listed; gcloud's message stands above"
  if [[ ! $dry_run ]]; then echo "$name: ${now:-no such node}"; fi
  if [[ $now == READY || $dry_run ]]; then runs; fi
}

fresh() { push && install && run "$@"; }

# One look at node and run, and the next thing they need. Gives 0 when the run is done, 10 when it
# goes on or something is on its way, 11 when a call failed, 12 when the run did. $first is set
# until the command is known to run: a code left by an earlier one says nothing about it.
look() {
  local now told
  now=$(state) || { say "the nodes could not be listed"; return 11; }
  case "$now" in
    READY) told=$(runs) || { say "the workers do not answer"; return 11; } ;;
    '') say "no node '$name': creating it"
      create && fresh "$@" || return 11
      first='' && return 10 ;;
    PREEMPTED | TERMINATED | FAILED | SUSPENDED) say "'$name' is $now: making it anew"
      delete && create && fresh "$@" || return 11
      first='' && return 10 ;;
    STOPPED | STOPPING | HIDDEN) fail "'$name' is $now by somebody's will: start or delete it" ;;
    *) say "'$name' is $now"; return 10 ;;
  esac
  told=$(outcome <<<"$told")
  case "${first:-again} $told" in
    *' running') ;;
    *' never') fresh "$@" || return 11 ;;
    first* | "again $saved") say "starting the run"; run "$@" || return 11 ;;
    'again 0') say "the run is done"; return 0 ;;
    *) say "the run failed with code $told (tpu_vm.sh logs $name): starting it again"
      run "$@" || return 11
      return 12 ;;
  esac
  first='' && return 10
}

resume() {
  local code=0
  look "$@" || code=$?
  [[ $code == 0 || $code == 10 ]] || fail "'$name' could not be brought back; why stands above"
}

keep() {
  local code failed=0 crashed=0
  [[ " $*" == *' gs://'* || " $*" == *=gs://* ]] \
    || say "no gs:// path in the command: what it saves is lost with the node's disk"
  while true; do
    code=0
    look "$@" || code=$?
    if [[ $dry_run ]]; then runs; return; fi
    case $code in
      0) return ;;
      10) failed=0 ;;
      11) failed=$((failed + 1)) ;;
      12) crashed=$((crashed + 1)) ;;
    esac
    [[ $failed -le $retries ]] || fail "given up: $failed failed calls in a row (--retries $retries)"
    [[ $crashed -le $retries ]] || fail "given up: the run failed $crashed times (--retries $retries)"
    sleep "$every"
  done
}

verb=${1-}
case "$verb" in
  create | push | install | run | logs | status | stop | resume | keep | delete) shift ;;
  '' | -h | --help) usage; exit 0 ;;
  *) wrong=$verb verb=''; misused "no command '$wrong'" ;;
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
    -*) [[ $# -ge 2 ]] || misused "$1: no such option, or its value is missing" ;;
    *) [[ ! $name ]] || misused "'$1' is one name too many; a command to run stands after --"
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
    *) misused "no option '$1'" ;;
  esac
  shift 2
done

[[ $name ]] || misused "NAME is missing: what the node is called"
[[ $lines && $every && $retries && $lines$every$retries =~ ^[0-9.]+$ ]] \
  || misused "--lines, --every and --retries take numbers"
case "$verb" in
  run | resume | keep) [[ $# -gt 0 ]] || misused "the command to run is missing, after --" ;;
  *) [[ $# -eq 0 ]] || misused "'$1' is too much: only run, resume and keep take a command" ;;
esac
case "$verb" in
  create | resume | keep)
    [[ $type ]] || misused "--type is missing: which TPU, e.g. --type v5litepod-16"
    runtime=${runtime:-$(default_runtime)}
    [[ $runtime ]] || misused "no software version is known for --type '$type': give --runtime" ;;
esac
[[ $dry_run ]] || command -v gcloud >/dev/null \
  || fail "gcloud is not installed: https://cloud.google.com/sdk/docs/install"
exec 3>&1
"$verb" "$@"
