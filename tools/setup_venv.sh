#!/usr/bin/env bash
# Make an environment from the pins, or do nothing when it is current. Called by `make setup`.
#   VENV=.venv             where; a relative path is below the checkout (default: .venv)
#   PYTHON=python3.12      the interpreter to build on (3.10 to 3.14; default: the newest of these found)
#   REQUIREMENTS=FILE      other pins than those of requirements.txt (tools/test_versions.sh gives some)
#   DETECTRON2=wheel       the pinned wheel, checked by its hash, without its compiled part; where it cannot be had,
#                          the same commit from upstream's source (default)
#   DETECTRON2=source      that commit from upstream's source (needs git, a compiler and the network)
#   DETECTRON2=git         upstream's head, likewise
#   DETECTRON2=WHAT        anything else that pip takes: a checkout or wheel of your own, an address
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
detectron2=${DETECTRON2:-wheel}
requirements=${REQUIREMENTS:-requirements.txt}

works() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; }
python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3.14 python3.13 python3.12 python3.11 python3.10 python3; do
    if works "$candidate"; then python=$candidate; break; fi
  done
fi
if [ -z "$python" ] || ! works "$python"; then
  echo "setup: no Python 3.10 to 3.14 with the modules venv and ensurepip found${PYTHON:+ at PYTHON=$PYTHON}; name one: make setup PYTHON=/path/to/python3.11" >&2
  exit 1
fi

# The stamp names everything the environment was made from; another stamp means: make it anew.
stamp=$( { "$python" -V; echo "$detectron2"; cat "$requirements" requirements-*.txt setup.py tools/setup_venv.sh; } | cksum | tr ' ' '-')
if [ -e "$venv/stamp-$stamp" ]; then exit 0; fi
# Only what this script made is replaced.
made_here() { [ -e "$venv/made-by-setup_venv" ] || compgen -G "$venv/stamp-*" >/dev/null; }
if [ -n "$(ls -A "$venv" 2>/dev/null)" ] && ! made_here; then
  echo "setup: $venv is there and was not made by this script, so it stays; name another folder: make setup VENV=.venv-moco_det" >&2
  exit 1
fi

echo "setup: making $venv with $("$python" -V), detectron2 from '$detectron2'"
mkdir -p "$venv"
rm -rf "${venv:?}"/*  # not the folder itself, which may be a link to a larger disk
touch "$venv/made-by-setup_venv"
"$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install --quiet --upgrade 'pip>=25,<26'
"${pip[@]}" install --quiet -r "$requirements"
"${pip[@]}" install --quiet --no-deps -r requirements-no-deps.txt

upstream=git+https://github.com/facebookresearch/detectron2.git
commit=a59f05630a8f205756064244bf5beb8661f96180  # 2024-04-17, of which the pinned wheel is made
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# Tagged cp310, but plain Python apart from a _C that loads with no current torch. Its stray top-level tools/ would
# shadow ours; without _C, Python 3.10 behaves as the others do.
pinned_wheel() {
  "${pip[@]}" install --quiet --no-deps --only-binary=:all: --python-version 3.10 --target "$site" \
    -r requirements-detectron2.txt && rm -rf "$site/tools" "$site"/detectron2/_C*.so
}
build() { "${pip[@]}" install --no-build-isolation --no-deps "$1"; }

case $detectron2 in
  wheel)
    if ! pinned_wheel; then
      echo "setup: the pinned wheel of detectron2 cannot be had (above); building its commit from upstream's source" >&2
      build "$upstream@$commit"
    fi
    ;;
  source) build "$upstream@$commit" ;;
  git) build "$upstream" ;;
  *) build "$detectron2" ;;
esac
"${pip[@]}" install --quiet --no-build-isolation --no-deps -e .
"$venv/bin/python" -c 'import moco_det; moco_det.check_environment()'
touch "$venv/stamp-$stamp"
echo "setup: done"
