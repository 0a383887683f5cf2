#!/usr/bin/env bash
# The project's one entry: sets itself up, then runs what it is asked for.
set -euo pipefail
# What would lead Python, or `cd`, elsewhere. Nothing of the caller's folder is imported.
unset CDPATH PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONINSPECT PYTHONOPTIMIZE \
  PYTHONUSERBASE PYTHONPLATLIBDIR PYTHONEXECUTABLE __PYVENV_LAUNCHER__
export PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1

usage() {
  cat <<'TEXT'
usage: ./launch.sh COMMAND [OPTION ...]

  local [--output DIR]   make the demo corpus, preprocess it, train every model
                         and compare them (local --help)
  fma --subset SUBSET [--output DIR] [--mirror URL|FOLDER]
                         fetch the Free Music Archive (small, medium, large, full),
                         preprocess it, train every model and compare them
                         (DIR: fma-run); goes on where it was interrupted
  fma download|preprocess|train|compare OPTION ...
                         one of these steps; each needs those before it
  test [PYTEST OPTION]   check style and types (not after --no-checks), run the tests

  preprocess OPTION ...  audio files to TFRecords              (preprocess --help)
  inspect DATASET        what is in a dataset, and is it whole (inspect --help)
  train OPTION ...       models from a dataset, and compare    (train --help)
  baselines OPTION ...   scikit-learn's classifiers            (baselines --help)
  folds OPTION ...       cross-validation of small datasets    (folds --help)
  compare OPTION ...     all models in one report              (compare --help)
  report DIR             open or serve a report
  predict OPTION FILE    genres of audio files                 (predict --help)
  label OPTION ...       genres of a whole catalogue           (label --help)
  app OPTION ...         a page for dropped songs              (app --help)
  export OPTION ...      a model as a SavedModel for serving   (export --help)
  show FILE              draw the representations of an audio file
  demo OPTION ...        make the demo corpus                  (demo --help)
  weights                fetch the music models' weights for embeddings

  flink OPTION ...       preprocess on a Flink cluster         (flink --help)
  dataflow OPTION ...    preprocess on Google Cloud Dataflow   (dataflow --help)
  dataflow --label ...   genres of a catalogue on Dataflow     (dataflow --label --help)
  vertex OPTION ...      train on Vertex AI                    (vertex --help)

  setup                  install what is needed, look at every installed file
  run MODULE OPTION ...  any module, such as benchmarks.run

Each command first installs what is missing, into .venv; where the checkout cannot be
written to, into the user's cache; or into the folder that FMA_ENV names. Python 3.11
is needed; set PYTHON if it is not called python3.11.
TEXT
}

fail() {
  echo "error: $*" >&2
  exit 2
}

# The folder of this file, behind whatever links.
find_root() {
  local file=${BASH_SOURCE[0]} target
  while [[ -L $file ]]; do
    target=$(readlink -- "$file")
    [[ $target == /* ]] || target=$(dirname -- "$file")/$target
    file=$target
  done
  (cd -P -- "$(dirname -- "$file")" && pwd)
}

usage_local() {
  cat <<'TEXT'
usage: ./launch.sh local [--output DIR] [--quiet | --verbose]

Makes the demo corpus, preprocesses it, trains every model and compares them: one to
three minutes on two cores.

  --output DIR  folder for all of it, 0.4 GB (default: demo-run)
  --quiet       print results and errors only
  --verbose     print details too, such as each epoch

example:
  ./launch.sh local --output /tmp/first-run
TEXT
}

find_python() {
  local candidate found=''
  for candidate in "${PYTHON:-}" python3.11 python3 python; do
    [[ -n $candidate ]] && command -v -- "$candidate" >/dev/null || continue
    if "$candidate" -I -c 'import sys
sys.exit((sys.implementation.name, *sys.version_info[:2]) != ("cpython", 3, 11))' \
      2>/dev/null; then
      echo "$candidate"
      return
    fi
    found+="${found:+, }$candidate: $("$candidate" -I --version 2>&1 | tail -1)"
  done
  fail "CPython 3.11 is needed (found ${found:-no Python}); install it, or set PYTHON" \
    "to its path."
}

# is_whole LOCK ...: whether the environment holds one of the lock files' packages.
is_whole() {
  [[ -x $environment/bin/python ]] && "$environment/bin/python" -I -S \
    "$root/pipeline/launch/environment.py" "$environment" "$root" \
    "${@/#/$root/}" 2>/dev/null
}

# choose_environment LOCK ...
choose_environment() {
  environment=$root/.venv
  if [[ -n ${FMA_ENV:-} ]]; then
    environment=$FMA_ENV
    [[ $environment == /* ]] || environment=$PWD/$environment
  elif [[ ! -w $root || (-e $environment && ! -w $environment) ]] && ! is_whole "$@"
  then
    [[ -n ${XDG_CACHE_HOME:-}${HOME:-} ]] || fail "$root cannot be written to, and" \
      "HOME is not set; set FMA_ENV to a folder for the environment."
    environment=${XDG_CACHE_HOME:-${HOME:-}/.cache}/fma-genre-classifiers
    environment+=/$(cksum <<<"$root" | tr ' ' -)
  fi
  [[ $environment != *:* ]] || fail "Python makes no environment in a path with a" \
    "colon; set FMA_ENV to another folder. Received: $environment"
  python=$environment/bin/python
}

# set_up [--thorough] LOCK ...: makes sure of one of them, of the first if of none.
set_up() {
  local options=() base lock
  [[ $1 != --thorough ]] || { options=(--thorough) && shift; }
  choose_environment "$@"
  [[ ${#options[@]} -gt 0 ]] || ! is_whole "$@" || return 0
  base=$(find_python)
  for lock in "$@"; do
    options+=(--lock "$lock")
  done
  "$base" -I -c 'import runpy, sys
sys.path.append(sys.argv.pop(1))
runpy.run_module("pipeline.launch.set_up", run_name="__main__", alter_sys=True)' \
    "$root" --environment "$environment" --root "$root" "${options[@]}"
}

# fma NAME OPTION ...: a command, in the caller's folder, where relative paths belong.
fma() {
  "$python" -m pipeline.launch.commands "$@"
}

step() {
  [[ -n ${quiet:-} ]] || printf '%s== %s\n' "${gap-\n}" "$*"
  gap=$'\n'
}

# train_networks DATASET MODELS: what an earlier run has trained on it stays.
train_networks() {
  local model
  for model in windows mel features statistics embeddings; do
    [[ -d $1/$model ]] || continue
    if [[ $2/$model/report.json -nt $1/COMPLETED ]]; then
      echo "$2/$model is trained."
    else
      fma train --data "$1" --model "$model" --output "$2/$model"
    fi
  done
}

# show_results OUTPUT DATASET MODELS EXAMPLE [LABEL FOLDER]
show_results() {
  cat <<TEXT

${5:+$5 $6
}dataset  $2
models   $3
report   $1/report.html (./launch.sh report $1)

Try a model:
  ./launch.sh predict --model $3 $4
TEXT
}

run_local() {
  local output=demo-run quiet='' gap='' options=()
  while (($#)); do
    case $1 in
      --output) output=${2:?"--output needs a folder"} && shift 2 ;;
      --output=*) output=${1#*=} && shift ;;
      --quiet) quiet=yes && options=(--quiet) && shift ;;
      --verbose) options=(--verbose) && shift ;;
      *) fail "unknown option; see ./launch.sh local --help. Received: $1" ;;
    esac
  done
  local corpus=$output/corpus dataset=$output/dataset models=$output/models
  local begun=$SECONDS song=$corpus/fma_demo/000/000002.mp3
  [[ -n $quiet ]] || cat <<TEXT
Everything once, on music that is computed: 193 clips of eight genres (85 MB) are made,
turned into TFRecords (150 MB), and models are trained on them and compared. It takes
one to three minutes on two cores, and all of it goes into $output.

TEXT
  fma weights --optional
  step "1/3 Demo corpus"
  fma demo --output "$corpus" ${options[@]+"${options[@]}"}
  step "2/3 Preprocessing"
  fma preprocess --audio "$corpus/fma_demo/**.mp3" \
    --metadata "$corpus/fma_metadata/tracks.csv" --subset small \
    --description "Synthetic demo corpus, made by pipeline.demo" --synthetic \
    --output "$dataset" --overwrite ${options[@]+"${options[@]}"}
  step "3/3 Training and comparison on held-out tracks"
  fma train --data "$dataset" --output "$models" --report "$output" \
    --audio "$corpus/fma_demo" ${options[@]+"${options[@]}"}
  [[ -n $quiet ]] || cat <<TEXT
      ./launch.sh predict --model $(printf '%q %q' "$models" "$song")

$((SECONDS - begun)) s in all.
TEXT
}

# run_fma [STEP] OPTION ...: the steps, or one of them.
run_fma() {
  local steps=(download preprocess train compare) name
  local output=fma-run subset='' mirror=''
  case ${1:-} in
    # In place of this shell, so that signals arrive.
    download) shift && exec "$python" -m pipeline.launch.commands download "$@" ;;
    -h | --help) usage && return ;;
    preprocess | train | compare) steps=("$1") && shift ;;
  esac
  while (($#)); do
    case $1 in
      --output | --subset | --mirror)
        (($# > 1)) || fail "$1 needs a value; see ./launch.sh."
        printf -v "${1#--}" %s "$2" && shift 2 ;;
      --output=* | --subset=* | --mirror=*)
        name=${1%%=*} && printf -v "${name#--}" %s "${1#*=}" && shift ;;
      *) fail "unknown option; see ./launch.sh. Received: $1" ;;
    esac
  done
  local dataset=$output/dataset models=$output/models zips=$output/download shards
  [[ -z $mirror || ! -d $mirror ]] || zips=$mirror
  case $subset in
    small) shards=32 ;;
    medium) shards=128 ;;
    large | full) shards=512 ;;
    *) fail "--subset must be small, medium, large or full. Received: $subset" ;;
  esac
  local audio=$zips/fma_$subset.zip number=0
  for name in "${steps[@]}"; do
    step "$((++number))/${#steps[@]} FMA, $subset: $name"
    "fma_$name"
  done
}

fma_download() {
  fma download --subset "$subset" --output "$output" --whole_run \
    ${mirror:+--mirror "$mirror"}
}

fma_preprocess() {
  if [[ -e $dataset/COMPLETED ]]; then
    echo "$dataset is complete."
    return
  fi
  fma weights --optional
  fma preprocess --audio "$audio" --metadata "$zips/fma_metadata.zip" \
    --subset "$subset" --num_shards "$shards" \
    --description "Free Music Archive, fma_$subset" --output "$dataset"
}

fma_train() {
  train_networks "$dataset" "$models"
  # The feature vectors of more clips do not fit into memory.
  local inputs=(statistics)
  [[ $subset != small ]] || inputs+=(features)
  [[ ! -d $dataset/embeddings ]] || inputs+=(embeddings)
  fma baselines --data "$dataset" --output "$models" --representation "${inputs[@]}"
}

fma_compare() {
  fma compare --models "$models" --output "$output" --data "$dataset" \
    --audio "$audio"
  show_results "$output" "$dataset" "$models" "some-song.mp3" "audio   " "$audio"
}

run_tests() {
  cd -- "$root"
  if [[ ${1:-} == --no-checks ]]; then
    shift
  else
    "$python" -m ruff check .
    "$python" -m ruff format --check .
    "$python" -m mypy pipeline trainer
  fi
  # A file's tests share what they set up, so they stay in one process.
  # A worker that dies fails the run; replacing it can hang xdist (its issue 784).
  exec "$python" -m pytest -n auto --maxprocesses 4 --dist loadfile \
    --max-worker-restart 0 "$@"
}

# needs_extras COMMAND OPTION ...: whether it takes what few want, and all would wait for.
needs_extras() {
  local line=" $* "
  case $line in
    *' --format '[lo]* | *' --format='[lo]*) [[ $1 == export ]] ;;
    *) return 1 ;;
  esac
}

main() {
  local command=${1:-}
  (($#)) && shift
  case $command in
    local | fma | setup | test | preprocess | inspect | show | demo | weights) ;;
    dataflow | flink | train | baselines | folds | compare | report | predict) ;;
    label | app | export | vertex) ;;
    run) (($#)) || fail "run needs a module, such as benchmarks.run" ;;
    '' | help | -h | --help) usage && return ;;
    *) usage >&2 && fail "unknown command. Received: $command" ;;
  esac
  if [[ $command == local && ${1:-} =~ ^(-h|--help)$ ]]; then
    usage_local && return
  fi
  root=$(find_root)
  # For use, any of the three will do: each holds everything of the one before.
  local locks=(requirements.lock requirements-extras.lock requirements-dev.lock)
  ! needs_extras "$command" "$@" || locks=("${locks[@]:1}")
  case $command in
    test) set_up requirements-dev.lock ;;
    setup) set_up --thorough "${locks[@]}" ;;
    *) set_up "${locks[@]}" ;;
  esac
  # Links to this checkout's packages: all of it that can be imported.
  export PYTHONPATH=$environment/fma-setup/packages
  case $command in
    test) run_tests "$@" ;;
    setup) ;;
    local) run_local "$@" ;;
    fma) run_fma "$@" ;;
    # In place of this shell, so that signals arrive.
    run) exec "$python" -m "$@" ;;
    *) exec "$python" -m pipeline.launch.commands "$command" "$@" ;;
  esac
}

main "$@"
