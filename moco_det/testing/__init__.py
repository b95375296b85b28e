"""Helpers for tests of the package and of projects: tiny configs, images and processes; a suite for methods."""
