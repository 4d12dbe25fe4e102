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
# One training run on GPU nodes under Slurm, one process per GPU. Install once, on a disk that all
# nodes share:
#   python3 -m venv .venv && .venv/bin/pip install -e '.[cuda]'
# then, in that folder (options of sbatch go before the script and override those above):
#   sbatch --nodes=4 tools/slurm_train.sh experiments/wmt19_zh_en.py --workdir /shared/runs/wmt19
#
# Five minutes before the time limit Slurm sends SIGTERM to every process (--signal): tfm saves a
# checkpoint and exits with 143, this script requeues the job, and the same command resumes. Slurm
# itself requeues a job that was preempted or whose node failed (--requeue). A job that failed, was
# cancelled or was stopped by SIGINT (exit code 130) is not requeued. JAX finds its coordinator from Slurm's environment variables.
set -euo pipefail

saved=143 # tfm's exit code after SIGTERM: it has saved a checkpoint and can resume

if [[ -z ${SLURM_JOB_ID-} || $# -eq 0 ]]; then
  echo "usage: sbatch [options of sbatch] $0 EXPERIMENT --workdir FOLDER [options of tfm train]" >&2
  exit 2
fi
tfm=${SLURM_SUBMIT_DIR:-.}/.venv/bin/tfm
if [[ ! -x $tfm ]]; then
  echo "$tfm is missing: python3 -m venv .venv && .venv/bin/pip install -e '.[cuda]'" >&2
  exit 1
fi

# If one process ends, the others get time to notice, report it and exit by themselves.
code=0
srun --kill-on-bad-exit=0 --wait=300 "$tfm" train "$@" || code=$?
if [[ $code == "$saved" && $(squeue -h -j "$SLURM_JOB_ID" -o %T) == RUNNING ]]; then
  echo "checkpoint saved; requeuing job $SLURM_JOB_ID" >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
