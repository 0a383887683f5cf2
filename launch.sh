#!/usr/bin/env bash
# The project's one entry: sets itself up, then runs what it is asked for.
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
root=$PWD
python=$root/.venv/bin/python

usage() {
  cat <<'TEXT'
usage: ./launch.sh COMMAND [OPTION ...]

  local [--output DIR]   make the demo corpus, preprocess it, train every model
                         and compare them (DIR: demo-run)
  test [PYTEST OPTION]   check style and types, run the tests

  preprocess OPTION ...  audio files to TFRecords              (preprocess --help)
  inspect DATASET        what is in a dataset, and is it whole (inspect --help)
  train OPTION ...       one model from a dataset              (train --help)
  folds OPTION ...       cross-validation of small datasets    (folds --help)
  compare OPTION ...     all models in one report              (compare --help)
  report DIR             open or serve a report
  predict OPTION FILE    genres of audio files                 (predict --help)
  export OPTION ...      a model as a SavedModel for serving   (export --help)
  show FILE              draw the representations of an audio file

  dataflow OPTION ...    preprocess on Google Cloud Dataflow   (dataflow --help)
  vertex OPTION ...      train on Vertex AI                    (vertex --help)
  setup                  only install what is needed, into .venv

Each command first installs what is missing. Python 3.11 is needed; set PYTHON
if it is not called python3.11.
TEXT
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3 python; do
    if [[ -n $candidate ]] && "$candidate" -c \
      'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: Python 3.11 is needed (found: $(python3 --version 2>&1 || true));" \
    "install it, or set PYTHON to its path." >&2
  exit 2
}

# install LOCKFILE: makes .venv hold the lock file's packages, once.
install() {
  local lock=$1 stamp=.venv/installed log=.venv/install.log wanted
  wanted=$(cat "$lock" | cksum)
  if [[ -f $stamp ]] && grep -qxF "$lock $wanted" "$stamp"; then
    return
  fi
  if [[ ! -x $python ]]; then
    local base
    base=$(find_python)
    echo "Setting up .venv"
    if ! "$base" -m venv .venv >/dev/null 2>&1; then
      echo "error: '$base -m venv .venv' fails; on Debian and Ubuntu install" \
        "python3.11-venv." >&2
      rm -rf .venv
      exit 2
    fi
  fi
  echo "Installing $(grep -c == "$lock") packages of $lock (a few minutes; see $log)"
  if ! "$python" -m pip install --disable-pip-version-check --require-hashes \
    --no-input -r "$lock" >"$log" 2>&1; then
    grep -v '^WARNING' "$log" | tail -20 >&2
    echo "error: the installation failed; the whole log is $log" >&2
    exit 1
  fi
  echo "$lock $wanted" >>"$stamp"
}

# The development lock file holds everything of the other.
install_for_use() {
  local wanted
  wanted=$(cat requirements-dev.lock | cksum)
  if [[ -f .venv/installed ]] &&
    grep -qxF "requirements-dev.lock $wanted" .venv/installed; then
    return
  fi
  install requirements.lock
}

# run MODULE OPTION ...: in the caller's folder, where relative paths belong.
run() {
  (cd "$caller" && PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m "$@")
}

step() {
  printf '\n== %s\n' "$*"
}

run_local() {
  local output=demo-run
  while (($#)); do
    case $1 in
      --output) output=${2:?"--output needs a folder"} && shift 2 ;;
      --output=*) output=${1#*=} && shift ;;
      *) echo "error: unknown option; see ./launch.sh. Received: $1" >&2 && exit 2 ;;
    esac
  done
  local corpus=$output/corpus dataset=$output/dataset models=$output/models
  step "1/4 Demo corpus"
  run pipeline.demo --output "$corpus"
  step "2/4 Preprocessing"
  run pipeline.preprocess --audio "$corpus/fma_demo/**.mp3" \
    --metadata "$corpus/fma_metadata/tracks.csv" --subset small \
    --representations windows mel features statistics \
    --description "Synthetic demo corpus, made by pipeline.demo" --synthetic \
    --output "$dataset" --overwrite
  step "3/4 Training"
  local model
  for model in windows mel features statistics; do
    run trainer.task --data "$dataset" --model "$model" --output "$models/$model"
  done
  run trainer.baselines --data "$dataset" --output "$models"
  step "4/4 Comparison on held-out tracks"
  run trainer.compare --models "$models" --output "$output" \
    --data "$dataset" --audio "$corpus/fma_demo"
  cat <<TEXT

corpus   $corpus
dataset  $dataset
models   $models
report   $output/report.html (./launch.sh report $output)

Try a model:
  ./launch.sh predict --model $models/features $corpus/fma_demo/000/000002.mp3
TEXT
}

run_tests() {
  "$python" -m ruff check .
  "$python" -m ruff format --check .
  "$python" -m mypy pipeline trainer
  # A file's tests share what they set up, so they stay in one process.
  exec "$python" -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
}

command=${1:-}
(($#)) && shift
case $command in
  local | preprocess | inspect | train | folds | compare | report | predict | export | \
    show | dataflow | vertex | setup) install_for_use ;;
  test) install requirements-dev.lock ;;
esac
case $command in
  local) run_local "$@" ;;
  test) run_tests "$@" ;;
  preprocess) run pipeline.preprocess "$@" ;;
  inspect) run pipeline.inspect "$@" ;;
  train) run trainer.task "$@" ;;
  folds) run trainer.folds "$@" ;;
  compare) run trainer.compare "$@" ;;
  report) run trainer.compare.serve "$@" ;;
  predict) run trainer.predict "$@" ;;
  export) run trainer.export "$@" ;;
  show) run pipeline.show "$@" ;;
  dataflow) run pipeline.cloud.dataflow "$@" ;;
  vertex) run trainer.vertex "$@" ;;
  setup) ;;
  '' | help | -h | --help) usage ;;
  *)
    echo "error: unknown command. Received: $command" >&2
    usage >&2
    exit 2
    ;;
esac
