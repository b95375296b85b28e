"""Momentum Contrast."""
