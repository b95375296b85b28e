"""The one table of checkpoint families: how content tells them apart, where the backbone is, its preprocessing.

A new family is one more entry here and one example in tests/family_examples.py; docs/CONVERTING.md shows both.
"""

from moco_det.sources.families import (
    MSRA,
    SWAV,
    UNIT,
    Family,
    read_detectron2,
    read_huggingface,
    read_onnx_record,
    read_openmmlab,
    read_own,
    read_timm,
)

_TWO_ENCODERS = {"query": "encoder_q.", "key": "encoder_k."}
_QUEUE = (r"queue2?(_ptr)?$", "dictionary")
_PARTS = "projector|classifier|predictor|projection_head|prediction_head"
_HEADS = (rf"((momentum_)?({_PARTS})|prototypes\d*)\b", "heads")
_NECK = (r"(neck|head|data_preprocessor)\.", "neck and head")
# Heads of MMDetection's and MMSegmentation's models.
_MM_HEADS = (
    r"((auxiliary|bbox|decode|mask|panoptic|panoptic_fusion|query|roi|rpn|rpn_and|seg|semantic)_head|bbox_embedding"
    r"|memory_trans_\w+|level_embed|encoder|decoder|(dn_)?query_\w+|positional_encoding)\b"
)
_AGAIN = (r"backbone\.", "query encoder, a second time")
_SOLO = "vturrisi/solo-learn@c980e9e solo/methods/base.py, @08e027a mocov2plus.py"
_LIGHTLY = "lightly 1.6.0; lightly-ai/lightly@0e4125d examples/pytorch_lightning/moco.py, @03464db dino.py"
_LIGHTLY_BENCHMARK = "lightly-ai/lightly@32c2b47 benchmarks/imagenet/resnet50/byol.py, @106fec9 dino.py"
_OPENSELFSUP = (
    "open-mmlab/mmselfsup@5e67129 openselfsup/models/moco.py, byol.py, @b742b7c backbones/resnet.py"
)
_MMPRETRAIN = (
    "open-mmlab/mmpretrain@326bc0c mmpretrain/models/selfsup/moco.py; open-mmlab/mmselfsup@1e16016 byol.py"
)

# fmt: off
FAMILIES = (
    Family("moco_det", "this project", (r"<moco_det>", r"encoder_[qk]\."), _TWO_ENCODERS,
           head="projection head", record=read_own,
           # A method of projects/ gives its further parts any names.
           others=((r"dictionary\.", "dictionary"), (r"(?!encoder_[qk]\.)", "other parts of the method"))),
    Family("backbone", "this project", (r"<moco_det>", r"(stem|res\d)\."), {"query": ""},
           layout="detectron2", record=read_own),
    Family("moco", "facebookresearch/moco@7397dfe moco/builder.py, @3b42c2a main_moco.py (v1 and v2)",
           (r"encoder_q\.(?!\d)",), _TWO_ENCODERS,
           lacks=("<moco_det>",), head="projection head", others=(_QUEUE,)),
    Family("moco_v3", "facebookresearch/moco-v3@0c5d00a moco/builder.py (ResNet)",
           (r"base_encoder\.(conv1|bn1|layer\d)\.",),
           {"query": "base_encoder.", "key": "momentum_encoder."}, head="projection head", others=(_HEADS,)),
    Family("pycontrast", "HobbitLong/PyContrast@d72bb9a networks/build_backbone.py, learning/contrast_trainer.py",
           (r"encoder\.layer1", r"head\."), {"query": "encoder.", "key": "model_ema.encoder."},
           others=((r"(model_ema\.)?head(_jig)?\.", "projection heads"),)),
    Family("pixpro", "zdaxie/PixPro@6689c38 contrast/models/PixPro.py",
           (r"encoder\.layer1", r"encoder_k\.layer1"), {"query": "encoder.", "key": "encoder_k."},
           others=((r"(projector|projector_instance)(_k)?\.|value_transform\.|predictor\.", "heads"),)),
    Family("simsiam", "facebookresearch/simsiam@39ac33e simsiam/builder.py",
           (r"encoder\.layer1", r"predictor\."), {"query": "encoder."},
           lacks=(r"projector", r"classifier", r"encoder_k\."), head="projection head", others=(_HEADS,)),
    Family("simclr", "Spijkervet/SimCLR@b844b01 simclr/simclr.py",
           (r"encoder\.layer1", r"projector\."), {"query": "encoder."},
           lacks=(r"classifier", r"predictor", r"encoder_k\.", r"momentum_"), others=(_HEADS,),
           preprocessing=UNIT),
    Family("simclr_sthalles", "sthalles/SimCLR@081e55b models/resnet_simclr.py",
           (r"backbone\.layer1", r"backbone\.fc\."), {"query": "backbone."},
           lacks=(r"(projector|classifier|neck|head)\.",), head="projection head", preprocessing=UNIT),
    Family("byol", "lucidrains/byol-pytorch@0095aa4 byol_pytorch/byol_pytorch.py",
           (r"online_encoder\.net\.",), {"query": "online_encoder.net.", "key": "target_encoder.net."},
           others=((r"net\.", "online network, a second time"),
                   (r"online_predictor\.|\w+_encoder\.projector\.", "heads"))),
    Family("swav", "facebookresearch/swav@04b8f43 src/resnet50.py, src/multicropdataset.py",
           (r"layer1\.", r"projection_head|prototypes"), {"query": ""}, others=(_HEADS,), preprocessing=SWAV),
    Family("dino", "facebookresearch/dino@787188e dino/main_dino.py",
           (r"student\.backbone\.", r"teacher\.backbone\."),
           {"query": "student.backbone.", "key": "teacher.backbone."}, default="key",
           others=((r"(student|teacher)\.head\.", "projection heads"),)),
    Family("barlow_twins", "facebookresearch/barlowtwins@046eec3 main.py",
           (r"backbone\.layer1", r"projector\.", r"bn\."), {"query": "backbone."},
           lacks=(r"classifier",), others=(_HEADS, (r"bn\.", "norm of the loss"))),
    Family("vicreg", "facebookresearch/vicreg@08c8c0c main_vicreg.py, @373b81c resnet.py",
           (r"backbone\.layer1", r"projector\."), {"query": "backbone."},
           lacks=(r"classifier", r"bn\.", r"momentum_"), others=(_HEADS,)),
    Family("vissl", "facebookresearch/vissl@152010d extra_scripts/convert_vissl_to_detectron2.py",
           (r"_feature_blocks\.",), {"query": "_feature_blocks."}),
    Family("densecl", "WXinlong/DenseCL@5d1c456 openselfsup/models/densecl.py",
           (r"encoder_q\.0\.", r"queue2"), {"query": "encoder_q.0.", "key": "encoder_k.0."},
           record=read_openmmlab, others=(_QUEUE, _NECK, _AGAIN, (r"encoder_[qk]\.1\.", "neck"))),
    Family("openselfsup", _OPENSELFSUP,
           (r"encoder_q\.0\.",), {"query": "encoder_q.0.", "key": "encoder_k.0."}, lacks=(r"queue2",),
           record=read_openmmlab, others=(_QUEUE, _NECK, _AGAIN, (r"encoder_[qk]\.1\.", "neck"))),
    Family("openselfsup_byol", _OPENSELFSUP,
           (r"online_net\.0\.",), {"query": "online_net.0.", "key": "target_net.0."},
           record=read_openmmlab, others=(_NECK, _AGAIN, (r"(online|target)_net\.1\.", "neck"))),
    Family("mmpretrain", _MMPRETRAIN,
           (r"backbone\.layer1", r"(neck|head)\."), {"query": "backbone."},
           lacks=(r"(encoder_[qk]|target_net|online_net)\.", _MM_HEADS), record=read_openmmlab,
           others=(_QUEUE, _NECK)),
    Family("mmdet", "open-mmlab/mmdetection@0112d8f mmdet/models/detectors/two_stage.py, @5a678e6 base_detr.py",
           (r"backbone\.layer1", _MM_HEADS), {"query": "backbone."}, record=read_openmmlab,
           others=((r"(?!backbone\.)", "other parts of the detector"),)),
    Family("smp", "qubvel-org/segmentation_models.pytorch@05859aa segmentation_models_pytorch/base/model.py",
           (r"encoder\.layer1", r"(decoder|segmentation_head)\."), {"query": "encoder."},
           lacks=(r"classifier", r"projector"),
           others=((r"(decoder|segmentation_head|classification_head)\.", "other parts of the segmenter"),)),
    Family("torchvision_detection", "torchvision 0.26.0 torchvision/models/detection",
           (r"backbone\.body\.layer1",), {"query": "backbone.body."},
           others=((r"backbone\.fpn\.|rpn\.|roi_heads\.|head\.", "other parts of the detector"),)),
    Family("mmpretrain_moco", _MMPRETRAIN,
           (r"backbone\.layer1", r"encoder_k\.0\."), {"query": "backbone.", "key": "encoder_k.0."},
           lacks=(r"encoder_q\.",), record=read_openmmlab,
           others=(_QUEUE, _NECK, (r"encoder_k\.(1\.|steps)", "neck of the key encoder"))),
    Family("mmpretrain_byol", _MMPRETRAIN,
           (r"backbone\.layer1", r"target_net\.0\."), {"query": "backbone.", "key": "target_net.0."},
           lacks=(r"online_net\.",), record=read_openmmlab,
           others=(_NECK, (r"target_net\.(1\.|steps)", "neck of the target network"))),
    Family("solo_learn", _SOLO,
           (r"backbone\.layer1", r"classifier\.(weight|bias)$"),
           {"query": "backbone.", "key": "momentum_backbone."}, others=(_QUEUE, _HEADS)),
    Family("solo_learn_1.0", "solo-learn 1.0.2 solo/methods/base.py",
           (r"encoder\.layer1", r"classifier\.(weight|bias)$"), {"query": "encoder.", "key": "momentum_encoder."},
           others=(_QUEUE, _HEADS)),
    Family("lightly", _LIGHTLY,
           (r"backbone\.0\.weight", r"backbone\.4\."), {"query": "backbone.", "key": "backbone_momentum."},
           layout="children", others=(_HEADS, (r"pro\w+_head_momentum|criterion|loss\w*\.", "heads and loss"))),
    Family("lightly_teacher", _LIGHTLY,
           (r"student_backbone\.0\.", r"teacher_backbone\.0\."),
           {"query": "student_backbone.", "key": "teacher_backbone."}, default="key", layout="children",
           others=((r"(student|teacher)_\w*head|criterion", "heads and loss"),)),
    Family("lightly_named", _LIGHTLY_BENCHMARK,
           (r"backbone\.layer1", r"projection_head\."), {"query": "backbone.", "key": "teacher_backbone."},
           lacks=(r"student_backbone",),
           others=(_HEADS, (r"teacher_\w*head|(online_)?(classifier|criterion)", "classifier and heads"))),
    Family("lightly_dino", _LIGHTLY_BENCHMARK,
           (r"backbone\.layer1", r"student_backbone\.layer1"),
           {"query": "student_backbone.", "key": "backbone."}, default="key",
           others=(_HEADS, (r"student_\w*head|(online_)?(classifier|criterion)", "classifier and heads"))),
    Family("timm", "timm 1.0.20, a folder with config.json", (r"layer1\.", r"<pretrained_cfg>"), {"query": ""},
           record=read_timm),
    Family("timm_training", "timm 1.0.20, timm/utils/checkpoint_saver.py, which train.py uses",
           (r"layer1\.", r"state_dict_ema\.layer1"), {"query": "", "key": "state_dict_ema."}),
    Family("huggingface", "transformers 4.57.1 ResNetModel, ResNetForImageClassification",
           (r"(resnet\.)?embedder\.embedder\.convolution",), {"query": ""},
           layout="huggingface", others=((r"classifier\.", "classifier"),), record=read_huggingface),
    Family("detectron2", "detectron2 a59f056 (0.6)",
           (r"(backbone\.(bottom_up\.)?|roi_heads\.)?(stem|res\d)\.",), {"query": ""},
           lacks=("<moco_det>",), layout="detectron2", preprocessing=None, record=read_detectron2,
           others=((r"proposal_generator\.|roi_heads\.(?!res5)|sem_seg_head\.|backbone\.(fpn|top_block)",
                    "other parts of the detector"),
                   (r"pixel_(mean|std)|((backbone\.)?stem\.)?(fc|linear)\.", "classifier and constants"))),
    Family("caffe2", "detectron2 a59f056 checkpoint/c2_model_loading.py",
           (r"conv1_w$",), {"query": ""}, layout="caffe2", preprocessing=MSRA,
           others=((r"(pred|fc1000)_[wb]$", "classifier"), (r".*_momentum$", "optimizer"),
                   (r"conv1_b$", "bias of conv1, which detectron2 does not use either"))),
    Family("torchvision", "torchvision 0.26.0; also timm's bare state dicts, lightly-train 0.18.0's "
           "torch_state_dict, and the exported resnet50.pth of Barlow Twins, VICReg and DINO",
           (r"layer1\.0\.",), {"query": ""},
           lacks=(r"projection_head|prototypes|<pretrained_cfg>|state_dict_ema", "<onnx>"),
           others=((r"(last_linear|linear|head|classifier|projector|predictor|queue|queue_ptr)(\.|$)",
                    "classifier or heads"),)),
    Family("onnx", "ONNX, the graph of nodes; written by torch.onnx, other writers", (r"<onnx>",), {"query": ""},
           record=read_onnx_record),
    Family("children", "torch.nn.Sequential(*resnet.children())", (r"0\.weight", r"4\.0\.conv1\."), {"query": ""},
           layout="children", others=((r"[89]\.", "classifier"),)),
)
# fmt: on
