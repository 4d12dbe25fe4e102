#!/usr/bin/env bash
#SBATCH --job-name=tfm
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#
# One training run on GPU nodes under Slurm, one process a GPU. Once, on a disk that all nodes see:
#   python3 -m venv .venv && .venv/bin/pip install -e '.[cuda]'
# then, in that folder (options of sbatch stand before the script and win over those above):
#   sbatch --nodes=4 tools/slurm_train.sh experiments/wmt19_zh_en.py --workdir /shared/runs/wmt19
#
# Five minutes before the time is up Slurm sends SIGTERM to every process (--signal): tfm saves and
# ends with 143, and the job goes back into the queue, where the same command resumes. A job whose
# node died, or that was preempted, is put back by Slurm itself (--requeue). A cancelled job and one
# that failed stay down. JAX finds its coordinator from Slurm's variables.
set -euo pipefail

saved=143 # the exit code of a tfm that was told to stop, saved, and can go on

if [[ -z ${SLURM_JOB_ID-} || $# -eq 0 ]]; then
  echo "usage: sbatch [options of sbatch] $0 EXPERIMENT --workdir FOLDER [options of tfm train]" >&2
  exit 2
fi
tfm=${SLURM_SUBMIT_DIR:-.}/.venv/bin/tfm
if [[ ! -x $tfm ]]; then
  echo "$tfm is missing: python3 -m venv .venv && .venv/bin/pip install -e '.[cuda]'" >&2
  exit 1
fi

# When one process ends the others get time to notice, say so and end by themselves.
code=0
srun --kill-on-bad-exit=0 --wait=300 "$tfm" train "$@" || code=$?
if [[ $code == "$saved" && $(squeue -h -j "$SLURM_JOB_ID" -o %T) == RUNNING ]]; then
  echo "saved; job $SLURM_JOB_ID goes back into the queue" >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
