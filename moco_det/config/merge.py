"""A config from defaults, a recipe, overlays and the command line."""

import difflib
import os
import re
from collections.abc import Callable, Iterable

import yaml
from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg as _detectron2_get_cfg

from moco_det.config.keys import KEYS
from moco_det.config.rules import add_keys, known_keys, new_name, value_of


def add_moco_config(cfg: CN) -> None:
    """Add moco_det's keys, with their defaults, to a detectron2 config."""
    add_keys(cfg, KEYS)


def get_cfg(add_configs: Iterable[Callable[[CN], None]] = ()) -> CN:
    """detectron2's defaults plus moco_det's keys and those that a project adds, as a fresh config."""
    cfg = _detectron2_get_cfg()
    for add_config in (add_moco_config, *add_configs):
        add_config(cfg)
    return cfg


def merge_config(
    cfg: CN, config_file: str, opts: list[str], overlays: tuple[str | CN, ...] = ()
) -> list[str]:
    """Merge recipe < overlays (YAML files, or nodes) < KEY VALUE pairs into ``cfg``.

    YAML tags never run code here (``allow_unsafe=False``).

    Returns:
        the full names of the keys that were set by any of the three (yacs cannot tell a key that was set
        from a default).

    Raises:
        ValueError: a file is missing, a key is unknown (the closest match is named), a value has the
            wrong type, or the pairs are not pairs.
    """
    names = known_keys(cfg)
    set_keys = []
    for path in filter(None, (config_file, *overlays)):
        if not isinstance(path, CN) and not os.path.isfile(path):
            raise ValueError(f"config file {path!r} does not exist (looked in {os.getcwd()!r})")
        loaded = path if isinstance(path, CN) else load_yaml(path)
        keys = known_keys(CN(loaded))
        _refuse_unknown(keys, names, path)
        set_keys += keys
        try:
            cfg.merge_from_other_cfg(CN(loaded))
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path}: {error}") from error
    late = [word for word in opts if word.startswith("--")]
    if late:
        raise ValueError(f"the flag {late[0]} stands after a KEY VALUE pair; flags go before the first pair")
    if len(opts) % 2:
        raise ValueError(f"options after the flags must be KEY VALUE pairs; found {len(opts)} words: {opts}")
    _refuse_unknown(opts[0::2], names, "the command line")
    for key, word in zip(opts[0::2], opts[1::2], strict=True):
        _merge_word(cfg, key, word)
    return set_keys + list(opts[0::2])


_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a word", tuple: "(a, b, …)"}


def _merge_word(cfg: CN, key: str, word: str) -> None:
    """Set a key from the command line; a whole number will do where a number is expected."""
    found = value_of(cfg, key)
    if isinstance(found, float) and re.fullmatch(r"[+-]?\d+", str(word)):
        word = f"{word}.0"
    try:
        cfg.merge_from_list([key, word])
    except (ValueError, AssertionError, KeyError) as error:
        kind = _KINDS.get(type(found), "a value")
        raise ValueError(f"command line: {key} is {word!r}; expected {kind}, such as {found!r}") from error


def load_yaml(path: str) -> dict:
    """A YAML file over its ``_BASE_``, without running its tags.

    Raises:
        ValueError: the file is no YAML of keys and plain values.
    """
    try:
        loaded = CN.load_yaml_with_base(path, allow_unsafe=False)
    # The last three: what stands where keys or a name of a file should.
    except (yaml.YAMLError, UnicodeDecodeError, AssertionError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} (or its _BASE_): not YAML of plain values: {reason}") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: holds {loaded!r:.40}; expected keys and values")
    return loaded


def _refuse_unknown(keys: list[str], names: list[str], where: str) -> None:
    for key in keys:
        if key not in names:
            if new_name(key) != key:
                raise ValueError(f"config key {key!r} in {where} is called {new_name(key)!r} now; write that")
            near = difflib.get_close_matches(key, names, n=1, cutoff=0)
            raise ValueError(f"unknown config key {key!r} in {where}; closest match: {near[0]!r}")
