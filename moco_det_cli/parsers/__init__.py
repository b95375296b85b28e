"""The options of every command, defined once and of Python's standard library alone.

``--help`` and a wrong option are answered before torch and detectron2 are imported. Each function makes the
parser of a command; ``prog`` is the name in its usage, by default the script's.
"""
