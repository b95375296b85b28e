"""The command ``moco-det`` and its ``doctor``: what must run where ``import moco_det`` fails.

A package of its own, of Python's standard library alone: importing any module of ``moco_det`` imports torch,
torchvision and detectron2, which are what the doctor examines.
"""
