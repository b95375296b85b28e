#!/usr/bin/env bash
# Which versions this works with: an environment a row, the tests in it, and a table in Markdown at the end.
#   tools/test_versions.sh                 all rows, one after the other (a row takes 5 GB while it runs); rows that are in
#                                          the table already are not run again
#   tools/test_versions.sh 3.13 3.10       the rows of these Pythons alone
#   TESTS="tests/data/test_views.py"       other tests; TESTS=all: those of `make test`
#   OUTPUT=output/versions                 folder of table.md and a log for each row (default)
# A Python is looked for as python3.13 on the PATH and in ~/.pyenv/versions. "newest" is what the index gives.
set -euo pipefail
cd "$(dirname "$0")/.."
output=${OUTPUT:-output/versions}
mkdir -p "$output"
# The part of `make test` that another version can break: files, views, encoders, converting, the step on one process and on
# two, resuming, fine-tuning of each kind.
fast="tests/data tests/modeling tests/weights tests/model_zoo tests/convert tests/test_packaging.py
  tests/pretrain/test_moco_model.py tests/pretrain/test_trainer.py tests/pretrain/test_official_numbers.py
  tests/classify/test_linear.py tests/finetune/test_finetune_trainer.py tests/finetune/test_segmentation.py
  tests/finetune/test_coco_evaluator.py tests/finetune/test_lvis_evaluator.py"
tests=${TESTS:-$fast}
if [ "$tests" = all ]; then tests=; fi
venv=$(mktemp -d "$PWD/.venv-versions-XXXXXX")
trap 'rm -rf "$venv"' EXIT

# Python, torch, torchvision, numpy, pillow
rows="
3.10 2.4.1  0.19.1 1.26.4 10.4.0
3.10 pinned pinned pinned pinned
3.11 2.8.0  0.23.0 2.2.6  pinned
3.12 pinned pinned pinned pinned
3.13 pinned pinned pinned pinned
3.13 newest newest newest newest
3.14 newest newest newest newest
"

interpreter() {
  local found
  for found in "$(command -v "python$1" || true)" "$HOME/.pyenv/versions/$1".*/bin/python; do
    if [ -x "$found" ] && "$found" -c pass 2>/dev/null; then echo "$found"; return; fi
  done
  return 1
}

# The pins of requirements.txt with those of a row in their places. What may disagree with another numpy is left open, and
# with a newest torch all that may disagree with that.
requirements() {
  local package version edit="s/#.*//"
  for package in torch torchvision numpy pillow; do
    version=$1; shift
    case $version in
      pinned) ;;
      newest) edit+="; s/^$package==.*/$package/" ;;
      *) edit+="; s/^$package==.*/$package==$version/" ;;
    esac
    # transformers 5 wants torch 2.5 or newer; that before it, another huggingface_hub.
    if [ "$package${version%.*}" = torch2.4 ]; then
      edit+="; s/^transformers==.*/transformers<5/; s/^(huggingface_hub|timm)==.*/\1/"
    fi
    if [ "$package" = numpy ] && [ "$version" != pinned ]; then edit+="; s/^ml_dtypes==.*/ml_dtypes/"; fi
  done
  case $edit in *"/torch/"*) edit+="; s/^(scipy|shapely|matplotlib|pycocotools|setuptools|tensorboard)==.*/\1/" ;; esac
  sed -E "$edit" requirements.txt | sort -u  # a package of two markers becomes two equal lines
}

run_row() {  # prints what became of it
  local python
  if ! python=$(interpreter "$1"); then echo "not run: no python$1"; return; fi
  requirements "${@:2}" > "$output/requirements.txt"
  if ! VENV=$venv PYTHON=$python REQUIREMENTS=$output/requirements.txt tools/setup_venv.sh >&2; then
    echo "setup failed"; return
  fi
  # shellcheck disable=SC2086
  "$venv/bin/python" -m pytest -m "not stress" $tests >&2 || true
  tail -n 1 "$log" | sed -E 's/ in [0-9].*//; s/=//g'
}

versions() {  # what is installed, for the table
  "$venv/bin/python" - <<'PYTHON' 2>/dev/null || echo "| | | | "
import importlib.metadata as m
print("|", " | ".join(m.version(p).split("+")[0] for p in ("torch", "torchvision", "numpy", "pillow", "setuptools")))
PYTHON
}

table=$output/table.md
if [ ! -e "$table" ]; then
  printf '| Python | row | torch | torchvision | numpy | pillow | setuptools | tests | date |\n' > "$table"
  printf '| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n' >> "$table"
fi
while read -r python rest; do
  if [ -z "$python" ] || { [ $# -gt 0 ] && [[ " $* " != *" $python "* ]]; }; then continue; fi
  name=$(echo "$rest" | tr -s ' ')
  if grep -qF "| $python | $name |" "$table"; then continue; fi
  log=$output/$python-${name// /-}.log
  echo "test_versions: Python $python, $name; log: $log"
  # shellcheck disable=SC2086
  became=$(run_row "$python" $rest 2>"$log" </dev/null)
  if [[ $became == not\ run* ]]; then installed="| | | | |"; else installed=$(versions); fi
  echo "| $python | $name $installed | $became | $(date +%F) |" >> "$table"
done <<< "$rows"
cat "$table"
