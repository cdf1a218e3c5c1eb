"""Plants a bug: a piece of a module's source is replaced, and the code of its functions by what that compiles to."""

from __future__ import annotations

import contextlib
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def _functions(space: dict[str, Any], module: str) -> dict[str, types.FunctionType]:
    """Returns the functions that a module defines, those of its classes and properties too, by dotted name."""
    found: dict[str, types.FunctionType] = {}
    for name, thing in space.items():
        if isinstance(thing, types.FunctionType) and thing.__module__ == module:
            found[name] = thing
        elif inspect.isclass(thing) and thing.__module__ == module:
            for inner, member in vars(thing).items():
                member = getattr(member, "fget", None) or getattr(member, "func", None) or member
                if isinstance(member, types.FunctionType):
                    found[f"{name}.{inner}"] = member
    return found


def turns_red(module: types.ModuleType, old: str, new: str, checks: Iterable[Callable[[], object]]) -> bool:
    """Returns whether one of the checks fails while ``old`` is replaced by ``new`` in ``module``."""
    with planted(module, old, new):
        for check in checks:
            try:
                check()
            except Exception:
                return True
    return False


@contextlib.contextmanager
def planted(module: types.ModuleType, old: str, new: str) -> Iterator[None]:
    """Runs a block with ``old`` replaced by ``new`` in the functions and tables of ``module``."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{module.__name__} holds {source.count(old)} times: {old}"
    space: dict[str, Any] = {"__name__": module.__name__, "__file__": module.__file__}
    exec(compile(source.replace(old, new), str(module.__file__), "exec", dont_inherit=True), space)
    right, wrong = (_functions(s, module.__name__) for s in (vars(module), space))
    codes = {name: f.__code__ for name, f in right.items()}
    plain = {k: v for k, v in vars(module).items() if isinstance(v, (int, float, str, tuple)) and k in space}
    try:
        for name, function in right.items():
            function.__code__ = wrong[name].__code__
        vars(module).update({k: space[k] for k in plain})
        yield
    finally:
        for name, function in right.items():
            function.__code__ = codes[name]
        vars(module).update(plain)
