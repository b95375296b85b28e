"""Encoders and what they are built of."""
