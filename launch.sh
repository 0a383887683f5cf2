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

  local OPTION ...       make the demo corpus, preprocess it, train every model
                         and compare them                      (local --help)
  fma OPTION ...         fetch the Free Music Archive, preprocess it, train every
                         model and compare them; goes on where it was
                         interrupted                           (fma --help)
  fma STEP OPTION ...    download, preprocess, train or compare alone
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

# suggest WORD: the command that may have been meant.
suggest() {
  local base
  base=$(find_python 2>/dev/null) || return 0
  usage | sed -n 's/^  \([a-z]*\) .*/\1/p' | "$base" -I -c 'import difflib, sys
names = sys.stdin.read().split()
for name in difflib.get_close_matches(sys.argv[1], names, n=1, cutoff=0.7):
    print(f"; did you mean {name}?")' "$1"
}

# is_whole LOCK ...: whether the environment holds one of the lock files' packages.
is_whole() {
  [[ -x $environment/bin/python ]] && "$environment/bin/python" -I -S \
    "$root/pipeline/launch/environment/installed.py" "$environment" "$root" \
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
runpy.run_module("pipeline.launch.environment.set_up", run_name="__main__", alter_sys=True)' \
    "$root" --environment "$environment" --root "$root" "${options[@]}"
}

run_tests() {
  cd -- "$root"
  local types='' code=0
  if [[ ${1:-} == --no-checks ]]; then
    shift
  else
    "$python" -m ruff check .
    "$python" -m ruff format --check .
    # Beside the tests, which leave some of the CPUs' time.
    "$python" -m mypy pipeline trainer benchmarks >&2 &
    types=$!
  fi
  # A file's tests share what they set up, so they stay in one process; tests/conftest.py
  # puts long files first. A worker that dies fails the run; replacing it can hang xdist
  # (its issue 784).
  "$python" -m pytest -n auto --maxprocesses 4 --dist loadfile \
    --no-loadscope-reorder --max-worker-restart 0 "$@" || code=$?
  [[ -z $types ]] || wait "$types" || fail "mypy found what it says above."
  exit "$code"
}

# needs_extras COMMAND OPTION ...: whether it takes what few want, and all would wait for.
needs_extras() {
  local line=" $* "
  case $line in
    *' --format '[lo]* | *' --format='[lo]*) [[ $1 == export ]] ;;
    *' --track'[\ =]'wandb'[\ ,]*) [[ $1 == train || $1 == folds ]] ;;
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
    *) fail "unknown command$(suggest "$command") (see ./launch.sh help)." \
      "Received: $command" ;;
  esac
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
    # In place of this shell, so that signals arrive.
    run) exec "$python" -m "$@" ;;
    *) exec "$python" -m pipeline.launch.commands "$command" "$@" ;;
  esac
}

main "$@"
