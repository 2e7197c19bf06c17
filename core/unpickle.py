"""Reading pickles without running them.

A pickle is a program: the usual reader imports whatever it names and calls it. :func:`read_pickle` is an
interpreter of the same instructions that knows plain values and containers alone. Every class and function
that a pickle names becomes an :class:`Inert` object, which carries the name, and every call of one an
:class:`Inert` object with the arguments it would have had. Nothing is imported and nothing is called; who
needs more than plain values (tensors, arrays) reads them off the inert objects.

The instructions are described in Python's module ``pickletools``, whose parser splits them here.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import Any

MAX_BYTES = 64 * 2**20
MAX_WORK = 1_000_000
"""Instructions and copied values of one pickle; the published checkpoints have about 50 000."""
MAX_DEPTH = 500
MAX_NAME = 200
LONGEST_KEY = 4096
LONGEST_KEY_TUPLE = 16
LARGEST_KEY = 2**64
LARGEST_IN_KEY_TUPLE = 2**16


class UnpickleError(ValueError):
    """A pickle that is damaged, too large or uses what no plain data needs; the message says what."""


class Inert:
    """Something that a pickle names, or the call of it, which stays undone.

    Attributes
    ----------
    name : module and qualified name, ``"os.system"``; of what would come of calling the result of a call,
        ``"a result of os.system"``
    arguments : None for the thing itself, a tuple for a call of it
    keywords : keyword arguments of the call
    state : what the pickle would have put into the object, None if nothing
    items : what it would have appended or added to it
    entries : what it would have stored in it by key
    """

    __slots__ = ("_entries", "_items", "arguments", "keywords", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] | None = None, keywords: Any = None) -> None:
        self.name = name
        self.arguments = arguments
        self.keywords = keywords
        self.state: Any = None
        # Most objects have neither, and a pickle may name a million of them.
        self._items: list[Any] | None = None
        self._entries: dict[Any, Any] | None = None

    @property
    def items(self) -> list[Any]:
        if self._items is None:
            self._items = []
        return self._items

    @property
    def entries(self) -> dict[Any, Any]:
        if self._entries is None:
            self._entries = {}
        return self._entries

    def children(self) -> Iterator[Any]:
        """Everything the object holds."""
        for part in (self.arguments, self.keywords, self.state, self._items, self._entries):
            if part is not None:
                yield part

    def __repr__(self) -> str:
        # Never the contents: they may be endless, or hold themselves.
        return f"<{self.name}>" if self.arguments is None else f"<{self.name}(...)>"


class Reference(Inert):
    """What a pickle takes from beside itself, by an identifier (a storage of a tensor, for example)."""

    __slots__ = ("identifier",)

    def __init__(self, identifier: Any) -> None:
        super().__init__("a reference")
        self.identifier = identifier


_MARK = object()
"""On the stack, below what a later instruction gathers."""


def read_pickle(data: bytes | BytesIO, *, max_bytes: int = MAX_BYTES) -> Any:
    """The plain values of a pickle; of a stream, the next pickle, leaving the position behind it.

    Gives None, bool, int, float, str, bytes, list, tuple, dict (also for ordered and default
    dictionaries), set, frozenset, and :class:`Inert` objects for everything else.

    Raises UnpickleError for damage, for more than ``max_bytes`` bytes or MAX_WORK instructions, for nesting
    beyond MAX_DEPTH, and for keys that are not plain.
    """
    stream = BytesIO(data) if isinstance(data, bytes) else data
    length = stream.getbuffer().nbytes - stream.tell()
    if length > max_bytes:
        raise UnpickleError(f"the pickle has {length} bytes; at most {max_bytes} are read")
    value = _Machine().run(stream)
    _check_depth(value)
    return value


def _instructions(stream: BytesIO) -> Iterator[tuple[str, Any]]:
    """(name, argument) of every instruction of one pickle. Raises UnpickleError for damage."""
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            yield opcode.name, argument
    except (ValueError, OverflowError, MemoryError, AttributeError) as error:
        raise UnpickleError(f"the pickle is damaged: {_clip(str(error))}") from error


def _clip(text: str, most: int = MAX_NAME) -> str:
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:most])
    return shown + ("..." if len(text) > most else "")


def _kind(value: Any) -> str:
    return f"<{value.name}>" if isinstance(value, Inert) else type(value).__name__


def _key(value: Any) -> Any:
    """``value`` as a key: hashing and comparing it must neither fail nor take long.

    So nested tuples are no keys, nor are large numbers: Python hashes a number anew for every use, and by a
    rule that lets anyone choose numbers which collide. Of text it keeps the hash, which nobody can foresee.
    """
    if isinstance(value, Inert) or _is_key(value, LARGEST_KEY):
        return value
    if isinstance(value, int | float | str | bytes):
        raise UnpickleError(f"a key of a dictionary or set is too long or too large a {_kind(value)}")
    if isinstance(value, tuple) and len(value) <= LONGEST_KEY_TUPLE:
        if all(_is_key(part, LARGEST_IN_KEY_TUPLE) for part in value):
            return value
        raise UnpickleError("a key of a dictionary or set is a tuple of more than plain values")
    raise UnpickleError(f"a key of a dictionary or set is a {_kind(value)}")


def _is_key(value: Any, largest: int) -> bool:
    if isinstance(value, str | bytes):
        return len(value) <= LONGEST_KEY
    if isinstance(value, int):
        return -largest <= value <= largest
    # Floats collide in small numbers only, but in a tuple each of its parts adds to the choice.
    return value is None or (isinstance(value, float) and largest == LARGEST_KEY)


_DICTIONARIES = ("collections.OrderedDict", "builtins.dict", "__builtin__.dict")
_COPIES: dict[str, Callable[[Iterable[Any]], Any]] = {
    "builtins.list": list,
    "__builtin__.list": list,
    "builtins.tuple": tuple,
    "__builtin__.tuple": tuple,
    "torch.Size": tuple,
    "builtins.set": lambda items: {_key(item) for item in items},
    "__builtin__.set": lambda items: {_key(item) for item in items},
    "builtins.frozenset": lambda items: frozenset(_key(item) for item in items),
    "__builtin__.frozenset": lambda items: frozenset(_key(item) for item in items),
}


class _Machine:
    """Stack and memo of the interpreter. It never calls itself, so no nesting exhausts Python's stack."""

    def __init__(self) -> None:
        self.work = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: BytesIO) -> Any:
        """The value of the next pickle."""
        for name, argument in _instructions(stream):
            self._spend(1)
            if name == "STOP":
                break
            step = _STEPS.get(name)
            if step is None:
                raise UnpickleError(f"the pickle uses the instruction {name}, which plain data does not need")
            step(self, argument)
        value = self.pop()
        if self.stack:
            raise UnpickleError("the pickle is damaged: it leaves values behind")
        return value

    def _spend(self, work: int) -> None:
        self.work += work
        if self.work > MAX_WORK:
            raise UnpickleError(f"the pickle has more than {MAX_WORK} instructions or copied values")

    # --- the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.peek()
        self.stack.pop()
        return value

    def peek(self) -> Any:
        """The topmost value; an instruction never reaches below the last mark."""
        if not self.stack or self.stack[-1] is _MARK:
            raise UnpickleError("the pickle is damaged: an instruction finds no value")
        return self.stack[-1]

    def gather(self) -> list[Any]:
        """Take what lies above the last mark, and the mark."""
        for below in range(len(self.stack) - 1, -1, -1):
            if self.stack[below] is _MARK:
                values = self.stack[below + 1 :]
                del self.stack[below:]
                return values
        raise UnpickleError("the pickle is damaged: an instruction finds no mark")

    def drop(self, value: Any) -> None:
        """What was taken is not needed."""

    def take(self, count: int) -> list[Any]:
        """The topmost ``count`` values, the lowest first."""
        return [self.pop() for _ in range(count)][::-1]

    # --- the memo

    def get(self, number: int) -> None:
        if number not in self.memo:
            raise UnpickleError(f"the pickle is damaged: it remembers nothing under {number}")
        self.push(self.memo[number])

    # --- containers

    def append(self, items: list[Any]) -> None:
        target = self.peek()
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Inert):
            target.items.extend(items)
        else:
            raise UnpickleError(f"the pickle appends to a {_kind(target)}")

    def add(self, items: list[Any]) -> None:
        target = self.peek()
        if isinstance(target, set):
            target.update(_key(item) for item in items)
        elif isinstance(target, Inert):
            target.items.extend(items)
        else:
            raise UnpickleError(f"the pickle adds members to a {_kind(target)}")

    def store(self, flat: list[Any]) -> None:
        target = self.peek()
        if len(flat) % 2:
            raise UnpickleError("the pickle is damaged: a key has no value")
        pairs = zip(flat[::2], flat[1::2], strict=True)
        if isinstance(target, dict):
            target.update((_key(key), value) for key, value in pairs)
        elif isinstance(target, Inert):
            target.entries.update((_key(key), value) for key, value in pairs)
        else:
            raise UnpickleError(f"the pickle stores keys in a {_kind(target)}")

    def pairs(self, flat: list[Any]) -> None:
        self.push({})
        self.store(flat)

    # --- names and calls

    def name(self, module: Any, attribute: Any) -> None:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise UnpickleError("the pickle is damaged: the name of a class or function is no text")
        # Cut before they are joined: a name of megabytes can be given again and again.
        module, attribute = module[: MAX_NAME + 1], attribute[: MAX_NAME + 1]
        self.push(Inert(_clip(f"{module}.{attribute}")))

    def call(self, function: Any, arguments: Any, keywords: Any = None) -> None:
        if not isinstance(arguments, tuple):
            raise UnpickleError("the pickle is damaged: the arguments of a call are no tuple")
        if not isinstance(function, Inert):
            raise UnpickleError(f"the pickle calls a {_kind(function)}")
        if function.arguments is not None or isinstance(function, Reference):
            prefix = "a result of "
            self.push(Inert(prefix + function.name.removeprefix(prefix), arguments, keywords))
            return
        value = None if keywords else self._container(function.name, arguments)
        self.push(Inert(function.name, arguments, keywords) if value is None else value)

    def _container(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """The plain container that a call stands for; None if it stands for anything else."""
        if name == "collections.defaultdict" and len(arguments) <= 1:
            return {}
        if name in _DICTIONARIES and not arguments:
            return {}
        if name in ("builtins.bytes", "__builtin__.bytes") and not arguments:
            return b""
        if name == "_codecs.encode" and len(arguments) == 2 and arguments[1] == "latin1":
            return self._encoded(arguments[0])
        if len(arguments) > 1 or not (name in _COPIES or name in _DICTIONARIES):
            return None
        given = arguments[0] if arguments else []
        if not isinstance(given, list | tuple | set | frozenset):
            return None
        self._spend(len(given))
        if name in _COPIES:
            return _COPIES[name](given)
        if all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in given):
            return {_key(key): value for key, value in given}
        return None

    def _encoded(self, text: Any) -> bytes | None:
        """How the older protocols write bytes."""
        if not isinstance(text, str):
            return None
        self._spend(len(text) // 64)
        try:
            return text.encode("latin1")
        except UnicodeEncodeError as error:
            raise UnpickleError("the pickle is damaged: bytes out of range") from error

    def build(self, state: Any) -> None:
        target = self.peek()
        if isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, dict):
            # Ordered dictionaries may carry attributes, which are dropped; nothing else that is plain does.
            raise UnpickleError(f"the pickle gives attributes to a {_kind(target)}")


def _instance(machine: _Machine, name: str) -> None:
    module, _, attribute = name.partition(" ")
    arguments = tuple(machine.gather())
    machine.name(module, attribute)
    machine.call(machine.pop(), arguments)


def _object(machine: _Machine, _: Any) -> None:
    gathered = machine.gather()
    if not gathered:
        raise UnpickleError("the pickle is damaged: an object has no class")
    machine.call(gathered[0], tuple(gathered[1:]))


def _stack_global(machine: _Machine, _: Any) -> None:
    machine.name(*machine.take(2))


def _call(machine: _Machine, _: Any) -> None:
    machine.call(*machine.take(2))


def _call_with_keywords(machine: _Machine, _: Any) -> None:
    machine.call(*machine.take(3))


def _protocol(_: _Machine, number: int) -> None:
    if number > 5:
        raise UnpickleError(f"the pickle has the protocol {number}; up to 5 are known")


def _plain(machine: _Machine, value: Any) -> None:
    machine.push(value)


def _put(machine: _Machine, number: int) -> None:
    machine.memo[number] = machine.peek()


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _protocol,
    "FRAME": lambda m, _: None,
    "NONE": _plain,
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "MARK": lambda m, _: m.push(_MARK),
    "POP_MARK": lambda m, _: m.drop(m.gather()),
    "POP": lambda m, _: m.drop(m.gather() if m.stack and m.stack[-1] is _MARK else m.pop()),
    "DUP": lambda m, _: m.push(m.peek()),
    "GET": lambda m, number: m.get(number),
    "PUT": _put,
    "MEMOIZE": lambda m, _: _put(m, len(m.memo)),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_SET": lambda m, _: m.push(set()),
    "LIST": lambda m, _: m.push(m.gather()),
    "TUPLE": lambda m, _: m.push(tuple(m.gather())),
    "DICT": lambda m, _: m.pairs(m.gather()),
    "FROZENSET": lambda m, _: m.push(frozenset(_key(item) for item in m.gather())),
    "TUPLE1": lambda m, _: m.push(tuple(m.take(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.take(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.take(3))),
    "APPEND": lambda m, _: m.append(m.take(1)),
    "APPENDS": lambda m, _: m.append(m.gather()),
    "ADDITEMS": lambda m, _: m.add(m.gather()),
    "SETITEM": lambda m, _: m.store(m.take(2)),
    "SETITEMS": lambda m, _: m.store(m.gather()),
    "BYTEARRAY8": lambda m, value: m.push(bytes(value)),
    "GLOBAL": lambda m, name: m.name(*name.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "NEWOBJ_EX": _call_with_keywords,
    "INST": _instance,
    "OBJ": _object,
    "BUILD": lambda m, _: m.build(m.take(1)[0]),
    "PERSID": lambda m, identifier: m.push(Reference(identifier)),
    "BINPERSID": lambda m, _: m.push(Reference(m.pop())),
    "EXT1": lambda m, number: m.push(Inert(f"extension {number}")),
    "EXT2": lambda m, number: m.push(Inert(f"extension {number}")),
    "EXT4": lambda m, number: m.push(Inert(f"extension {number}")),
}
_STEPS |= {f"{prefix}GET": _STEPS["GET"] for prefix in ("BIN", "LONG_BIN")}
_STEPS |= {f"{prefix}PUT": _STEPS["PUT"] for prefix in ("BIN", "LONG_BIN")}
_VALUES = (
    ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
)
_STEPS |= {name: _plain for names in _VALUES for name in names}


def _check_depth(value: Any) -> None:
    """Refuse values nested so deeply that whoever walks them could run out of stack."""
    seen, layer, depth = {id(value)}, [value], 0
    while layer:
        if depth > MAX_DEPTH:
            raise UnpickleError(f"the pickle nests values more than {MAX_DEPTH} deep")
        following = []
        for parent in layer:
            for child in _children(parent):
                if isinstance(child, list | tuple | dict | set | frozenset | Inert) and id(child) not in seen:
                    seen.add(id(child))
                    following.append(child)
        layer, depth = following, depth + 1


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return (part for pair in value.items() for part in pair)
    if isinstance(value, Reference):
        return (value.identifier,)
    if isinstance(value, Inert):
        return value.children()
    return value if isinstance(value, list | tuple | set | frozenset) else ()
