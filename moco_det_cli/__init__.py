"""The commands' names and options, and the doctor: what must run before, or without, ``import moco_det``.

A package of its own, of Python's standard library alone: importing any module of ``moco_det`` imports torch,
torchvision and detectron2, which take seconds and are what the doctor examines.
"""
