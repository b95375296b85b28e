"""Bugs planted in a function's own lines, to see that a test catches them."""

import inspect
import textwrap
from collections.abc import Callable
from unittest import mock


def planted(owner, name: str, right: str, wrong: str):
    """A context in which ``owner.name`` is itself with one piece of its text replaced.

    Args:
        owner: the module or class that defines the function, which must not call ``super()``.
        right: must stand in it exactly once.
    """
    function = inspect.unwrap(inspect.getattr_static(owner, name))  # of a decorator, what it decorates
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(right) == 1, f"{right!r} stands {source.count(right)} times in {name}"
    defined = {}
    exec(source.replace(right, wrong), function.__globals__, defined)
    return mock.patch.object(owner, name, defined[name])


def assert_caught(check: Callable[..., None], *args, bug: object) -> None:
    """``check(*args)`` fails, as it must while ``bug`` is planted."""
    try:
        check(*args)
    except AssertionError:
        return
    raise AssertionError(f"a planted bug is not caught: {bug}")
