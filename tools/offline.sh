#!/usr/bin/env bash
# For a machine that has a GPU, torch and torchvision, but neither a network nor detectron2: what is needed besides this
# checkout goes into one folder of some 55 MB, to be carried there with it.
#   tools/offline.sh pack FOLDER 3.12 [IMAGENETTE]   here: packages for that Python, and small copies of Imagenette's images
#   tools/offline.sh speed FOLDER OUTPUT             there, 9 minutes: OUTPUT/speed.json, to be kept as results/speed/gpu.json
#   tools/offline.sh imagenette FOLDER OUTPUT        there: each method of configs/Imagenette for EPOCHS (200), one seed each
#   tools/offline.sh own FOLDER OUTPUT OPTIONS…      there: tools/run_benchmark.py --suite own with these options
# IMAGENETTE has train/ and val/ (or test/) with a folder for each class, or shards. DEVICE=cpu and SMOKE=1 try it without a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:?pack, speed, imagenette or own}
folder=$(realpath -m "${2:?the folder}")
device=${DEVICE:-cuda}
gpus=1
if [ "$device" = cpu ]; then gpus=0; fi

pack() {  # Python, Imagenette
  local python=$1 images=${2:-} site=$folder/site
  wheels=$(mktemp -d)
  trap 'rm -rf "$wheels"' EXIT
  pin() { grep -hE "^$1==" requirements.txt requirements-detectron2.txt | grep -o '^[^ ;]*' | head -n 1; }
  # Without wheels on the index, but plain Python.
  python3 -m pip wheel --quiet --no-deps -w "$wheels" "$(pin fvcore)" "$(pin iopath)" antlr4-python3-runtime==4.9.3
  rm -rf "$site"
  get() {  # besides the index it takes the wheels that were just built
    PIP_FIND_LINKS=$wheels python3 -m pip install --quiet --no-deps --only-binary=:all: --no-compile --target "$site" \
      --python-version "$@"
  }
  get 3.10 "$(pin sal-detectron2)"
  rm -rf "$site/tools" "$site"/detectron2/_C*.so
  get "$python" fvcore iopath antlr4-python3-runtime==4.9.3 portalocker "$(pin pycocotools)" "$(pin termcolor)" "$(pin yacs)" \
    "$(pin omegaconf)" "$(pin hydra-core)" "$(pin tabulate)" "$(pin cloudpickle)" "$(pin tqdm)" \
    "$(pin simplejpeg)"
  rm -rf "$folder/imagenette"
  for part in ${images:+"$images"/*/}; do
    tools/pack_images.py --images "$part" --output "$folder/imagenette/$(basename "$part")" --shorter-side 96 --quality 60
  done
  du -sh "$folder"
}

export PYTHONPATH=$PWD:$folder/site${PYTHONPATH:+:$PYTHONPATH}
case $what in
  pack) pack "${3:?the Python there, such as 3.12}" "${4:-}" ;;
  speed)
    # The most important first: each part is written when it is done.
    timeout 540 python3 tools/benchmark_speed.py --device "$device" ${SMOKE:+--smoke} --rounds 3 --output "${3:?where to}" \
      --part step loop augment loader growth finetune momentum loss || [ $? = 124 ]
    ;;
  imagenette)
    python3 tools/run_ablation.py methods --images "$folder/imagenette/train" --classes "$folder/imagenette" --seeds 1 \
      --num-gpus $gpus --jobs "${JOBS:-3}" --output "${3:?where to}" --results "${3}/results" \
      -- SOLVER.EPOCHS "${EPOCHS:-200}" INPUT.VIEWS.SIZE "${SIZE:-96}" DATALOADER.NUM_WORKERS "${WORKERS:-5}"
    ;;
  own)
    output=${3:?where to}
    python3 tools/run_benchmark.py --suite own --num-gpus $gpus --output "$output" --results "$output/results" "${@:4}"
    ;;
  *) echo "offline: $what is none of pack, speed, imagenette and own" >&2; exit 2 ;;
esac
