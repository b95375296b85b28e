"""Config keys: the table of them (keys.py), what follows from it (rules.py), and how a config is put together."""

from moco_det.config.merge import add_moco_config, get_cfg, load_yaml, merge_config
from moco_det.config.rules import add_keys, known_keys, value_of

__all__ = ["add_keys", "add_moco_config", "get_cfg", "known_keys", "load_yaml", "merge_config", "value_of"]
