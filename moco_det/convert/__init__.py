"""Conversion: any known checkpoint in, backbone.pkl for detectron2 out, with proof. See ``convert.py``."""
