"""Packaging of moco_det: the package, its configs and the console entry points.

detectron2 is not a requirement here: the package index has no official wheel of it, so which build to take
is the user's choice (INSTALL.md). `import moco_det` says in one sentence when it is missing or too old.
"""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithConfigs(build_py):
    """Puts the top-level configs/ into the wheel as moco_det/configs, where model_zoo looks for them."""

    def run(self):
        super().run()
        if not self.editable_mode:
            sources = sorted((ROOT / "configs").rglob("*.yaml"))
            if not sources:
                raise FileNotFoundError(f"no recipes below {ROOT / 'configs'}: the source is not complete")
            for source in sources:
                target = Path(self.build_lib, "moco_det", source.relative_to(ROOT))
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(source), str(target))


def version() -> str:
    namespace = {}
    exec((ROOT / "moco_det" / "version.py").read_text(), namespace)
    return namespace["__version__"]


setup(
    name="moco_det",
    version=version(),
    description="Momentum Contrast pre-training and its transfer to detection and segmentation, on detectron2",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["moco_det", "moco_det.*", "moco_det_cli", "moco_det_cli.*"]),
    cmdclass={"build_py": BuildWithConfigs},
    install_requires=[
        "torch>=2.4",  # first with weights_only loading that covers what we save
        "torchvision>=0.19",  # the ResNets, the color operations, NMS and RoIAlign
        "numpy>=1.26",
        "pillow>=10.1",  # decoding of the unlabeled images
        "fvcore",  # checkpointer, registries: detectron2's own base
        "iopath",  # file access as detectron2 does it
        "pycocotools",  # COCO metric and masks
        "matplotlib",  # figures of the report
        "scipy",  # the t-quantile of the report's intervals; projects/DensePose's .mat files
        "tabulate",  # tables in a terminal, as detectron2 prints its own
        "contourpy",  # polygons of the toy world's masks; matplotlib's own contour library
        "tensorboard",  # training curves
        "tqdm",  # progress bars
    ],
    extras_require={
        "convert": ["safetensors"],  # to read and write .safetensors; all else of convert needs no more
        "onnx": ["onnx"],  # to convert ONNX files
        "bands": ["tifffile", "imagecodecs"],  # images of many channels or 16 bits, in TIFF and PNG
        "fast-decode": ["simplejpeg"],  # INPUT.DECODE fast
        "dicom": ["pydicom"],  # medical images
        "peers": ["lightly"],  # the loop that tools/benchmark_speed.py --part loop measures beside ours
        # Cityscapes alone needs them. It also needs cityscapesscripts, which no extra can name: it must come with
        # --no-deps, since it drags in a "typing" that hides Python's own module (INSTALL.md).
        "cityscapes": ["shapely", "pyquaternion"],
        # One package under two names, each for what a user wants: TEST.COCO_EVALUATOR faster_coco_eval, or LVIS.
        "fast-eval": ["faster-coco-eval"],
        "lvis": ["faster-coco-eval"],  # the LVIS metric; LVIS's own package runs with no current numpy
    },
    entry_points={
        "console_scripts": [
            "moco-det=moco_det_cli.command:main",
            "moco-det-pretrain=moco_det_cli.command:run_by_script",
            "moco-det-convert=moco_det_cli.command:run_by_script",
            "moco-det-inspect=moco_det_cli.command:run_by_script",
            "moco-det-classify=moco_det_cli.command:run_by_script",
            "moco-det-train=moco_det_cli.command:run_by_script",
            "moco-det-check-datasets=moco_det_cli.command:run_by_script",
            "moco-det-report=moco_det_cli.command:run_by_script",
            "moco-det-toyworld=moco_det_cli.command:run_by_script",
            "moco-det-stats=moco_det_cli.command:run_by_script",
            "moco-det-speed=moco_det_cli.command:run_by_script",
            "moco-det-pack=moco_det_cli.command:run_by_script",
        ]
    },
)
