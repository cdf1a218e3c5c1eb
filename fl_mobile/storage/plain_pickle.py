"""Reads pickles without unpickling: FedScale publishes its traces that way, and sensor recordings come as data frames.

``pickle.load`` runs whatever a file asks for. Here is an interpreter of our own that knows only the instructions which
make numbers, text, lists, tuples and dicts. It has none that imports a module, calls a function, sets an attribute or
loads a persistent id, so a hostile file can be wrong but cannot act. Where objects are asked for, what would be called
is written down as a `Made`, and the reader of that file decides what it knows to be. Every instruction takes at least
one byte and makes at most one object no longer than the bytes it read: memory is linear in the file.

Instructions: CPython ``Lib/pickletools.py``; protocols 2 to 5.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fl_mobile.errors import DataError


@dataclass(frozen=True)
class Named:
    """A name that a pickle would import, such as ``"numpy dtype"``; nothing is imported."""

    name: str


@dataclass(eq=False)
class Made:
    """What unpickling would make by calling ``name(*args)`` and then set to ``state``; nothing is called."""

    name: str
    args: tuple[Any, ...]
    state: Any = None


def load_plain(raw: bytes, where: str, *, objects: bool = False) -> Any:
    """Returns what a pickle of plain data holds; parts may be shared, as in the file.

    Args:
        where: Name of the file, for messages.
        objects: Takes names and calls too, as `Named` and `Made`.

    Raises:
        DataError: Anything but plain data, or bytes that are no pickle.
    """
    machine, steps = _Machine(raw), _STEPS_OF_OBJECTS if objects else _STEPS
    try:
        while (code := machine.byte()) != _STOP:
            step = steps.get(code)
            if step is None:
                raise _Refused(f"instruction {_NAMES.get(code, f'0x{code:02x}')} is not for plain data")
            step(machine)
        if len(machine.stack) != 1 or machine.marks:
            raise _Refused("it ends in the middle")
        return machine.stack[0]
    except _Refused as error:
        reason = str(error)
    except (IndexError, struct.error):
        reason = "it is cut off"
    except UnicodeDecodeError:
        reason = "its text is not UTF-8"
    raise DataError(
        f"{where}: not a pickle of plain data: byte {machine.at}: {reason}. Expected numbers, text, lists and dicts,"
        " pickled with protocol 2 or later; nothing else is read, because unpickling can run code."
    )


class _Refused(Exception):
    """A pickle that is not plain data."""


@dataclass
class _Machine:
    raw: bytes
    at: int = 0
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def byte(self) -> int:
        self.at += 1
        return self.raw[self.at - 1]

    def number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.raw, self.at)
        self.at += struct.calcsize(form)
        return value

    def slice(self, length: int) -> bytes:
        if length > len(self.raw) - self.at:
            raise _Refused(f"it promises {length} bytes where {len(self.raw) - self.at} are left")
        self.at += length
        return self.raw[self.at - length : self.at]

    def since_mark(self) -> list[Any]:
        if not self.marks:
            raise _Refused("a mark is missing")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def last(self, count: int) -> list[Any]:
        if len(self.stack) - (self.marks[-1] if self.marks else 0) < count:
            raise _Refused("a value is missing")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise _Refused(f"expected a {kind.__name__} to fill")
        return self.stack[-1]

    def fill(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise _Refused("a dict with a key that has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int, float):  # hashing deeply nested tuples overflows the C stack
                raise _Refused(f"a dict key of type {type(key).__name__}")
            target[key] = value

    def recall(self, key: int) -> None:
        if key not in self.memo:
            raise _Refused(f"it recalls value {key} that it never stored")
        self.stack.append(self.memo[key])

    def store(self, key: int) -> None:
        if not self.stack:
            raise _Refused("a value is missing")
        self.memo[key] = self.stack[-1]

    def protocol(self, version: int) -> None:
        if not 2 <= version <= 5:
            raise _Refused(f"protocol {version}")

    def line(self) -> bytes:
        end = self.raw.find(b"\n", self.at)
        if end < 0:
            raise _Refused("it is cut off")
        text = self.slice(end - self.at)
        self.at += 1
        return text

    def boolean(self) -> None:
        text = self.line()
        if text not in (b"00", b"01"):
            raise _Refused(f"INT {text[:20]!r} is no truth value")
        self.stack.append(text == b"01")

    def call(self) -> None:
        name, args = self.last(2)
        if type(name) is not Named or type(args) is not tuple:
            raise _Refused("a call of something that has no name")
        self.stack.append(Made(name.name, args))

    def build(self) -> None:
        (state,) = self.last(1)
        self.top(Made).state = state

    def integer(self, length: int) -> None:
        self.stack.append(int.from_bytes(self.slice(length), "little", signed=True))

    def text(self, length: int) -> None:
        self.stack.append(self.slice(length).decode())


_STOP = ord(".")
_NAMES = {ord(op.code): op.name for op in pickletools.opcodes}
_CODES = {op.name: ord(op.code) for op in pickletools.opcodes}
_BY_NAME: dict[str, Callable[[_Machine], object]] = {
    "PROTO": lambda m: m.protocol(m.byte()),
    "FRAME": lambda m: m.number("<Q"),
    "EMPTY_DICT": lambda m: m.stack.append({}),
    "EMPTY_LIST": lambda m: m.stack.append([]),
    "EMPTY_TUPLE": lambda m: m.stack.append(()),
    "MARK": lambda m: m.marks.append(len(m.stack)),
    "SETITEM": lambda m: m.fill(m.last(2)),
    "SETITEMS": lambda m: m.fill(m.since_mark()),
    "APPEND": lambda m: _append(m, m.last(1)),
    "APPENDS": lambda m: _append(m, m.since_mark()),
    "TUPLE": lambda m: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": lambda m: m.stack.append(tuple(m.last(1))),
    "TUPLE2": lambda m: m.stack.append(tuple(m.last(2))),
    "TUPLE3": lambda m: m.stack.append(tuple(m.last(3))),
    "BINPUT": lambda m: m.store(m.byte()),
    "LONG_BINPUT": lambda m: m.store(m.number("<I")),
    "MEMOIZE": lambda m: m.store(len(m.memo)),
    "BINGET": lambda m: m.recall(m.byte()),
    "LONG_BINGET": lambda m: m.recall(m.number("<I")),
    "BININT": lambda m: m.stack.append(m.number("<i")),
    "BININT1": lambda m: m.stack.append(m.byte()),
    "BININT2": lambda m: m.stack.append(m.number("<H")),
    "LONG1": lambda m: m.integer(m.byte()),
    "BINFLOAT": lambda m: m.stack.append(m.number(">d")),
    "BINUNICODE": lambda m: m.text(m.number("<I")),
    "SHORT_BINUNICODE": lambda m: m.text(m.byte()),
    "SHORT_BINSTRING": lambda m: m.text(m.byte()),
    "NONE": lambda m: m.stack.append(None),
    "NEWTRUE": lambda m: m.stack.append(True),
    "NEWFALSE": lambda m: m.stack.append(False),
}
_OF_OBJECTS: dict[str, Callable[[_Machine], object]] = {
    "GLOBAL": lambda m: m.stack.append(Named(f"{m.line().decode()} {m.line().decode()}")),
    "REDUCE": lambda m: m.call(),
    "BUILD": lambda m: m.build(),
    "INT": lambda m: m.boolean(),  # how protocol 2 of Python 2 writes them
}
_STEPS = {_CODES[name]: step for name, step in _BY_NAME.items()}
_STEPS_OF_OBJECTS = _STEPS | {_CODES[name]: step for name, step in _OF_OBJECTS.items()}


def _append(machine: _Machine, items: list[Any]) -> None:
    machine.top(list).extend(items)
