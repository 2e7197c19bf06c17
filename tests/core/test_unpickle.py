"""Reading pickles without running them: plain values come back, everything else stays inert."""

import io
import os
import pickle
import subprocess
import sys
from collections import OrderedDict, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.unpickle import MAX_BYTES, MAX_WORK, Inert, Reference, UnpickleError, read_pickle

ROOT = Path(__file__).resolve().parents[2]

# --- plain values

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
numbers = st.integers(-(2**64), 2**64)
keys = st.none() | st.booleans() | numbers | st.text(max_size=8) | st.tuples(st.integers(0, 2**16), st.text())
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(numbers, max_size=4)
        | st.frozensets(st.text(max_size=4), max_size=4)
    ),
    max_leaves=20,
)


@given(value=plain, protocol=st.integers(0, 5))
@settings(deadline=None, max_examples=200)
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol=protocol)) == value


def test_containers_with_classes_become_plain_ones() -> None:
    ordered = OrderedDict(a=1, b=OrderedDict())
    ordered.note = "attributes are dropped"  # type: ignore[attr-defined]
    counts: defaultdict[str, int] = defaultdict(int, {"x": 2})
    for protocol in range(6):
        back = read_pickle(pickle.dumps([ordered, counts], protocol=protocol))
        assert back == [{"a": 1, "b": {}}, {"x": 2}]
        assert [type(value) for value in back] == [dict, dict]


def test_shared_and_endless_values_keep_their_identity() -> None:
    shared = [1]
    endless: list[Any] = [shared, shared]
    endless.append(endless)
    back = read_pickle(pickle.dumps(endless))
    assert back[0] is back[1]
    assert back[2] is back


def test_pickles_that_follow_one_another() -> None:
    stream = io.BytesIO(pickle.dumps(1) + pickle.dumps("two") + b"rest")
    assert read_pickle(stream) == 1
    assert read_pickle(stream) == "two"
    assert stream.read() == b"rest"


# --- what is not plain stays inert


class Thing:
    def __init__(self) -> None:
        self.values = [1, 2]


class Words(dict[str, int]):
    pass


class Row(list[int]):
    pass


def test_objects_show_their_name_and_what_they_would_have_held() -> None:
    for protocol in (2, 5):
        thing, words, row = read_pickle(pickle.dumps([Thing(), Words(a=1), Row([3])], protocol=protocol))
        assert thing.name == f"{__name__}.Thing"
        assert repr(thing) == f"<{__name__}.Thing(...)>"
        assert thing.arguments == ()
        assert thing.state == {"values": [1, 2]}
        assert words.entries == {"a": 1}
        assert row.items == [3]


def test_classes_and_functions_are_names() -> None:
    for protocol in range(6):
        value = read_pickle(pickle.dumps(os.getcwd, protocol=protocol))
        assert isinstance(value, Inert)
        assert (value.name, value.arguments, repr(value)) == ("posix.getcwd", None, "<posix.getcwd>")


def test_references_keep_their_identifier() -> None:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", 7) if isinstance(value, Thing) else None

    file = io.BytesIO()
    Pickler(file, protocol=2).dump([Thing()])
    (reference,) = read_pickle(file.getvalue())
    assert isinstance(reference, Reference)
    assert reference.identifier == ("storage", 7)
    (reference,) = read_pickle(b"(lP12\na.")
    assert reference.identifier == "12"


def test_a_result_of_a_call_is_not_the_thing_called() -> None:
    value = read_pickle(b"cbuiltins\ngetattr\n(NtR(tR(tR.")
    assert value.name == "a result of builtins.getattr"


# --- malice

COMMAND = b"echo run > ran"
# Raw instructions; {c} stands for the command.
MALICE = {
    "reduce": b"cos\nsystem\n(S'{c}'\ntR.",
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0e{c}\x85R.",
    "names from the memo": (
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x8c\x0e{c}\x94000h\x00h\x01\x93h\x02\x85R."
    ),
    "inst": b"(S'{c}'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'{c}'\no.",
    "evaluation": b'cbuiltins\neval\n(S\'__import__("os").system("{c}")\'\ntR.',
    "nested calls": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'{c}'\ntR.",
    "dotted name": b"\x80\x04\x8c\x08platform\x8c\x09os.system\x93\x8c\x0e{c}\x85R.",
    "set state": (b"\x80\x02ctypes\nSimpleNamespace\n)\x81}(S'__setstate__'\ncos\nsystem\nubS'{c}'\nb."),
    "popen with keywords": (
        b"\x80\x04cfunctools\npartial\ncsubprocess\nPopen\n\x85}(S'args'\nS'{c}'\nS'shell'\n\x88u\x92)R."
    ),
    "inside a list": b"(lp0\n(dp1\nS'state_dict'\ncos\nsystem\n(S'{c}'\ntRsa.",
    "behind a dropped value": b"cos\nsystem\n(S'{c}'\ntR0N.",
    "as a key": b"(dcos\nsystem\n(S'{c}'\ntRNs.",
    "as a reference": b"\x80\x02cos\nsystem\n(S'{c}'\ntRQ.",
}
READ = """
import sys
from pathlib import Path
from core.unpickle import UnpickleError, read_pickle
data = {path.name: path.read_bytes() for path in sorted(Path("malice").iterdir())}
read_pickle(b"N.")
events = []
watched = ("import", "exec", "compile", "open", "os.", "subprocess.", "pickle.", "socket.", "ctypes.")
sys.addaudithook(lambda name, args: events.append((name, args)) if name.startswith(watched) else None)
for name, content in data.items():
    try:
        print(name, "read", repr(read_pickle(content)))
    except UnpickleError as error:
        print(name, "refused", error)
assert not events, events
"""


def malicious(kind: str) -> bytes:
    return MALICE[kind].replace(b"{c}", COMMAND)


@pytest.mark.parametrize("kind", MALICE)
def test_the_malice_is_real(kind: str, tmp_path: Path) -> None:
    """A control: the same bytes do run where they are unpickled."""
    code = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    if kind == "as a reference":
        code = code.replace(
            "pickle.loads", "(lambda d: pickle.Unpickler(__import__('io').BytesIO(d)).load())"
        )
    subprocess.run(
        [sys.executable, "-c", code], input=malicious(kind), cwd=tmp_path, capture_output=True, check=False
    )
    # Popen may still be at it when the reader is gone.
    for _ in range(200):
        if (tmp_path / "ran").exists():
            return
        subprocess.run(["sleep", "0.01"], check=True)
    pytest.fail(f"{kind} does nothing, so it proves nothing")


def test_nothing_runs(tmp_path: Path) -> None:
    """Python's audit events show every import, execution, process and file: there is none."""
    (tmp_path / "malice").mkdir()
    for kind in MALICE:
        (tmp_path / "malice" / kind.replace(" ", "-")).write_bytes(malicious(kind))
    result = subprocess.run(
        [sys.executable, "-c", READ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "ran").exists()
    assert len(result.stdout.splitlines()) == len(MALICE)
    assert "reduce read <os.system(...)>" in result.stdout
    assert "inst read <os.system(...)>" in result.stdout
    assert "nested-calls read <a result of builtins.getattr(...)>" in result.stdout


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "exhausted"),
        (b"N", "exhausted"),
        (b".", "finds no value"),
        (b"0.", "finds no value"),
        (b"(.", "finds no value"),
        (b"t.", "finds no mark"),
        (b"\xff", "unknown"),
        (b"NN.", "leaves values behind"),
        (b"\x80\x06N.", "protocol 6"),
        (b"h\x07.", "remembers nothing under 7"),
        (b"I1\n(tR.", "calls a int"),
        (b"cos\nsystem\nNR.", "arguments of a call are no tuple"),
        (b"NNb.", "attributes to a NoneType"),
        (b"]Nb.", "attributes to a list"),
        (b"NNa.", "appends to a NoneType"),
        (b"]NNs.", "stores keys in a list"),
        (b"](N\x90.", "adds members to a list"),
        (b"}(Nu.", "a key has no value"),
        (b"}]Ns.", "a key of a dictionary or set is a list"),
        (b"})\x85Ns.", "more than plain values"),
        (b"\x8f(}\x90.", "a key of a dictionary or set is a dict"),
        (b"NN\x93.", "is no text"),
        (b"cos\nsystem\n)RN\x93.", "is no text"),
        (b"(o.", "has no class"),
        (b"\x97.", "NEXT_BUFFER, which plain data does not need"),
        (b"\x8a\x09123.", "damaged"),
        (b"\x8e" + (2**62).to_bytes(8, "little") + b"abc.", "damaged"),
        (b"I" + b"9" * 5000 + b"\n.", "damaged"),
        (b"X\x02\x00\x00\x00\xff\xfe.", "damaged"),
    ],
)
def test_damage_is_explained(data: bytes, sentence: str) -> None:
    with pytest.raises(UnpickleError, match=sentence):
        read_pickle(data)


@given(data=st.binary(max_size=60))
@settings(deadline=None, max_examples=300)
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    with suppress(UnpickleError):
        read_pickle(data)


@given(cut=st.integers(0, 400), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=300)
def test_no_change_of_a_pickle_does_more_than_be_refused(cut: int, byte: int) -> None:
    whole = pickle.dumps([{"a": (1.5, None)}, Thing(), OrderedDict(b={2, 3}), "text"], protocol=2)
    at = cut % len(whole)
    for data in (whole[:at], whole[:at] + bytes([byte]) + whole[at + 1 :]):
        with suppress(UnpickleError):
            read_pickle(data)


# --- bounds


@pytest.mark.parametrize(
    "data",
    [
        b"N" + b"\x85" * 500_000 + b".",
        b"]" * 500_000 + b"a" * 499_999 + b".",
        b"}" * 300_000 + b"N" + b"s" * 10 + b".",
        b"cos\nsystem\n" + b")R" * 200_000 + b".",
        b"ca\nb\n" + b"\x85ca\nb\n" * 100 + b".",
    ],
    ids=["tuples", "lists", "odd dictionaries", "calls of calls", "values left behind"],
)
def test_deep_and_odd_pickles_end_in_a_sentence(data: bytes) -> None:
    try:
        value = read_pickle(data)
    except UnpickleError:
        return
    assert len(repr(value)) < 300


def test_nesting_is_bounded() -> None:
    with pytest.raises(UnpickleError, match="more than 500 deep"):
        read_pickle(b"N" + b"\x85" * 502 + b".")
    read_pickle(b"N" + b"\x85" * 501 + b".")


def test_instructions_are_bounded() -> None:
    with pytest.raises(UnpickleError, match=f"more than {MAX_WORK} instructions"):
        read_pickle(b"N0" * MAX_WORK + b"N.")


def test_copies_count_as_work() -> None:
    """A long list, made into a set again and again, would take memory that grows with the square."""
    data = b"\x80\x02](" + b"K\x01" * 10_000 + b"eq\x00" + b"0c__builtin__\nset\nq\x010]"
    data += b"h\x01h\x00\x85Ra" * 10_000 + b"."
    with pytest.raises(UnpickleError, match="instructions or copied values"):
        read_pickle(data)


def test_hashing_takes_no_time() -> None:
    """A tuple that holds the tuple before it twice, a hundred times over: 2^100 steps to hash."""
    data = b"N" + b"2\x86" * 100 + b"N"
    with pytest.raises(UnpickleError, match="more than plain values"):
        read_pickle(b"}" + data + b"s.")


@pytest.mark.parametrize(
    "key",
    [2**65, -(2**65), "k" * 5000, b"k" * 5000, (2**17, 0), ("k" * 5000,), (0.5,), (1,) * 17],
    ids=lambda key: type(key).__name__,
)
def test_keys_that_are_slow_or_collide_are_refused(key: Any) -> None:
    """Such a number is hashed anew each time: half a million uses of one of 30 MB would take hours."""
    with pytest.raises(UnpickleError, match="a key of a dictionary or set is"):
        read_pickle(pickle.dumps({key: 1}))
    with pytest.raises(UnpickleError, match="a key of a dictionary or set is"):
        read_pickle(pickle.dumps({key}))


def test_long_names_are_cut_before_they_are_joined() -> None:
    """Thousands of names of ten megabytes take neither their memory nor their time."""
    text = b"\x8d" + (10 * 2**20).to_bytes(8, "little") + b"a" * 10 * 2**20
    value = read_pickle(b"\x80\x04" + text + b"\x940](" + b"h\x00h\x00\x93" * 5000 + b"e.")
    assert len(value) == 5000
    assert len(value[0].name) < 250


def test_size_is_bounded() -> None:
    with pytest.raises(UnpickleError, match=f"at most {MAX_BYTES} are read"):
        read_pickle(bytes(MAX_BYTES + 1))


def test_names_are_bounded_and_printable() -> None:
    value = read_pickle(b"c" + b"a" * 10_000 + b"\n\x1b[31m\n.")
    assert len(value.name) < 250
    assert value.name.isprintable()
    value = read_pickle(b"ca\n\x1b[31m\n.")
    assert value.name == "a.?[31m"
