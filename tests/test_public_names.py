"""Every public name is documented and typed, and the package says where it lives."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import typing
from pathlib import Path

import pytest

import framp_private

MODULES = [name for _, name, _ in pkgutil.walk_packages(framp_private.__path__, "framp_private.")]


@pytest.mark.parametrize("module_name", MODULES)
def test_public_things_have_docstrings_and_types(module_name: str) -> None:
    module = importlib.import_module(module_name)
    assert module.__doc__, module_name
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module_name:
            continue
        if inspect.isfunction(thing):
            assert thing.__doc__, f"{module_name}.{name}"
            hints = typing.get_type_hints(thing)
            assert set(inspect.signature(thing).parameters) <= set(hints), f"{module_name}.{name}"
        elif inspect.isclass(thing):
            assert thing.__doc__, f"{module_name}.{name}"


def test_what_the_front_page_offers_is_exactly_what_is_exported() -> None:
    source = ast.parse(Path(framp_private.__file__).read_text())
    exported = {alias.asname for node in source.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    public = {
        name
        for name in vars(framp_private)
        if not name.startswith("_") and not inspect.ismodule(vars(framp_private)[name])
    }
    assert None not in exported
    assert public <= exported


def test_errors_are_drawn_in_their_docstring() -> None:
    from framp_private import errors

    for name in errors.__all__:
        assert name in (errors.__doc__ or "")
        assert issubclass(getattr(errors, name), errors.FrampError)
