"""Records to messages and back, without MPI: what arrives is what was sent, and no damage is believed."""

from __future__ import annotations

import os
from errno import EACCES, EAGAIN, ENOENT
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collfs.record import CONTENT, Name, Record, Stat, Want
from collfs.record.wire import pack
from collfs.stream import BEGIN, CHUNK, CLOSE, END, PART, PIECE, RECORDS, SUM, VAIN, WHOLE, outgoing
from collfs.stream.buffers import Buffers
from collfs.stream.intake import Intake

DIRECTORY = Stat(0o40755, 2, 1, 2, 0, 0, 0, 4096, 4096, 8, 1, 2, 3)


def file_of(size, mode=0o100644):
    return Stat(mode, 7, 1, 1, 0, 0, 0, size, 4096, 8, 10**18, 10**18 + 1, 3)


class Watched(Intake):
    """Remembers the files that became records."""

    def __init__(self, scratch):
        super().__init__(scratch)
        self.kept: set[str] = set()


@pytest.fixture
def intake(tmp_path):
    made = Watched(str(tmp_path))
    yield made
    made.close()
    assert {name for name in os.listdir(tmp_path) if name.startswith("in.")} <= made.kept, "left behind"


def sent(records, copy_of=lambda path: "", crowded=False):
    """The messages as they arrive."""
    found = [(kind, bytearray(load)) for kind, load in outgoing.messages(outgoing.parcels(records, copy_of, crowded))]
    assert all(len(payload) <= CHUNK for _, payload in found)
    return found


def taken(intake, messages):
    found = []
    for kind, payload in messages:
        found += intake.add(kind, payload)
    for record in found:
        if record.node_path is not None:
            intake.kept.add(os.path.basename(record.node_path))
    return found


def test_small_records_share_a_message_and_come_as_they_were(intake):
    records = [
        Record("/p/a", file_of(3), content=b"abc"),
        Record("/p/none", errno=ENOENT),
        Record("/p/closed", errno=EACCES),
        Record("/p", DIRECTORY, names=[Name("a", 8), Name("b", 4)]),
        Record("/p/empty", file_of(0), content=b""),
    ]
    messages = sent(records)
    assert [kind for kind, _ in messages] == [RECORDS]
    assert taken(intake, messages) == records
    assert intake.refused == 0


def source(tmp_path, where, content):
    (tmp_path / "copy").write_bytes(content)
    return (lambda path: str(tmp_path / "copy")) if where == "copy" else (lambda path: "")


@pytest.mark.parametrize("less", [CHUNK // 2, 4096, 0])
@pytest.mark.parametrize("where", ["copy", "memory"])
def test_content_that_fits_into_a_message_comes_in_one(intake, tmp_path, less, where):
    (sample,) = sent([Record("/p/large", file_of(outgoing.LARGE), content=bytes(outgoing.LARGE))])
    size = CHUNK - (len(sample[1]) - outgoing.LARGE) - less  # less == 0: to the last byte
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    record = Record("/p/large", file_of(size, 0o100755), content=content)
    messages = sent([record], source(tmp_path, where, content))
    assert [(kind, len(payload)) for kind, payload in messages] == [(WHOLE, CHUNK - less)]
    assert taken(intake, messages) == [record]
    assert intake.refused == 0


@pytest.mark.parametrize("damage", ["flip", "cut", "grown", "no sum", "other frame"])
def test_content_in_one_message_that_is_damaged_goes_native(intake, damage):
    ((kind, payload),) = sent([Record("/p/large", file_of(outgoing.LARGE), content=bytes(outgoing.LARGE))])
    if damage == "flip":
        payload[-1] ^= 1
    elif damage == "cut":
        del payload[-1]
    elif damage == "grown":
        payload += b"x"
    elif damage == "no sum":
        del payload[SUM.size - 1 :]
    else:
        payload[SUM.size :] = sent([Record("/p/closed", errno=EACCES)])[0][1]
    told = taken(intake, [(kind, payload)])
    lost = [Record("/p/large", errno=EAGAIN)] if damage in ("flip", "cut", "grown") else []
    assert told == lost, "who waits for it must hear that it won't come"
    assert intake.refused == 1
    small = [Record("/p/a", file_of(3), content=b"abc")]
    assert taken(intake, sent(small)) == small, "the stream goes on"


def test_a_copy_that_has_become_shorter_is_lost_not_sent(tmp_path):
    copy_of = source(tmp_path, "copy", bytes(outgoing.LARGE - 1))
    with pytest.raises(OSError, match="shorter"):
        sent([Record("/p/large", file_of(outgoing.LARGE), node_path="/x")], copy_of)


@pytest.mark.parametrize("size", [CHUNK, CHUNK + 1, 4 * CHUNK + 5])
@pytest.mark.parametrize("where", ["copy", "memory"])
def test_large_content_comes_in_pieces_into_a_file(intake, tmp_path, size, where):
    content = bytes(range(251)) * (size // 251 + 1)
    content = content[:size]
    messages = sent([Record("/p/large", file_of(size, 0o100755), content=content)], source(tmp_path, where, content))
    assert [kind for kind, _ in messages] == [BEGIN, *[PIECE] * -(-size // CHUNK), END]
    (record,) = taken(intake, messages)
    with open(record.node_path, "rb") as file:
        assert file.read() == content
    found = os.stat(record.node_path)
    assert (found.st_mode & 0o777, found.st_mtime_ns) == (0o755, 10**18 + 1)


def test_a_crowd_of_records_leaves_its_content_to_the_copies():
    records = [Record("/p/a", file_of(outgoing.SMALL), content=b"x" * outgoing.SMALL)]
    assert outgoing.held(outgoing.parcels(records, lambda path: "/copy", True)) == 0
    assert outgoing.held(outgoing.parcels(records, lambda path: "/copy", False)) == outgoing.SMALL


def test_a_frame_that_is_too_large_for_a_message_comes_in_parts(intake):
    names = [Name(f"{number:0200d}", 8) for number in range(100_000)]
    records = [Record("/p", DIRECTORY, names=names)]
    messages = sent(records)
    assert [kind for kind, _ in messages] == [PART] * (len(names) * 200 // CHUNK) + [RECORDS]
    assert len(messages) > 2
    assert taken(intake, messages) == records


def test_a_frame_that_is_too_large_for_anything_is_said_to_go_native(intake, monkeypatch):
    monkeypatch.setattr(outgoing, "MOST", 1000)
    names = [Name(f"{number:0200d}", 8) for number in range(10)]
    assert taken(intake, sent([Record("/p", DIRECTORY, names=names)])) == [Record("/p", errno=EAGAIN)]


def test_a_file_that_lies_on_the_roots_node_only_is_said_to_go_native(intake):
    assert taken(intake, sent([Record("/p/a", file_of(3), node_path="/elsewhere")])) == [Record("/p/a", errno=EAGAIN)]


def test_a_name_of_a_file_on_another_node_is_refused(intake):
    frame = b"".join(pack(Record("/p/a", file_of(3), node_path="/etc/passwd")))
    assert taken(intake, [(RECORDS, bytearray(frame))]) == []
    assert intake.refused == 1


def test_what_was_asked_in_vain_is_told_so(intake):
    wants = [Want(f"/p/{number}", CONTENT) for number in range(2500)]
    messages = [(kind, bytearray(payload)) for kind, payload in outgoing.vain(wants)]
    assert [kind for kind, _ in messages] == [VAIN] * 3
    assert [(r.path, r.errno) for r in taken(intake, messages)] == [(want.path, EAGAIN) for want in wants]


def test_a_copy_that_has_gone_is_an_error_of_the_iterator(tmp_path):
    found = outgoing.parcels([Record("/p/a", file_of(1 << 20), content=b"")], lambda path: str(tmp_path / "no"), False)
    with pytest.raises(OSError, match="no"):
        list(outgoing.messages(found))


def test_a_new_beginning_ends_what_was_not_finished(intake):
    one, two = (Record(f"/p/{n}", file_of(CHUNK), content=n.encode() * CHUNK) for n in "ab")
    assert [r.path for r in taken(intake, sent([one])[:2] + sent([two]))] == ["/p/b"]


def test_more_than_was_announced_is_refused_before_it_fills_the_store(intake):
    begin, piece, end = sent([Record("/p/a", file_of(CHUNK), content=b"x" * CHUNK)])
    assert taken(intake, [begin, piece, piece]) == [Record("/p/a", errno=EAGAIN)]
    assert taken(intake, [piece, end]) == []
    assert intake.refused == 1


MESSAGES = sent(
    [
        Record("/p/a", file_of(300), content=b"abc" * 100),
        Record("/p", DIRECTORY, names=[Name("a", 8), Name("b", 4)]),
        Record("/p/large", file_of(5 << 18), content=b"large" * (1 << 18)),
        Record("/p/huge", file_of(CHUNK + 2), content=b"huge!!" * (CHUNK // 6 + 1)),
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_no_damage_is_ever_believed(intake, data):
    messages = [(kind, bytearray(payload)) for kind, payload in MESSAGES]
    index = data.draw(st.integers(0, len(messages) - 1))
    kind, payload = messages[index]
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "kind", "drop", "twice", "swap"]))
    if how == "flip":
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del payload[data.draw(st.integers(0, len(payload) - 1)) :]
    elif how == "grow":
        payload += data.draw(st.binary(min_size=1, max_size=100))
    elif how == "kind":
        messages[index] = (data.draw(st.integers(0, CLOSE + 2)), payload)
    elif how == "drop":
        del messages[index]
    elif how == "twice":
        messages.insert(index, (kind, bytearray(payload)))
    else:
        other = data.draw(st.integers(0, len(messages) - 1))
        messages[index], messages[other] = messages[other], messages[index]
    for record in taken(intake, messages):
        if record.path == "/p/a" and not record.errno:
            assert bytes(record.content) == b"abc" * 100
        elif record.path == "/p/large" and not record.errno:
            assert bytes(record.content) == b"large" * (1 << 18)
        elif record.path == "/p/huge" and not record.errno:
            with open(record.node_path, "rb") as file:
                assert file.read() == b"huge!!" * (CHUNK // 6 + 1)
        elif record.path == "/p" and not record.errno:
            assert [name.name for name in record.names] == ["a", "b"]
        else:
            assert record.errno == EAGAIN
            assert record.path in ("/p/large", "/p/huge")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=300)), max_size=6))
def test_garbage_never_raises(intake, messages):
    taken(intake, [(kind, bytearray(payload)) for kind, payload in messages])


# -- memory that is used again ---------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["take", "slice", "release"]), st.integers(0, 30)), max_size=60))
def test_memory_is_used_again_only_when_nobody_holds_a_view_of_it(steps):
    """As pieces under way: MPI may read each as long as its view lives, in whatever order they are completed."""
    buffers, held, most = Buffers(16), [], 0
    for number, (step, which) in enumerate(steps):
        if step == "take":
            view = buffers.take()
            view[:] = bytes([number]) * 16
            held.append((number, view))
            del view
        elif held and step == "slice":  # what is sent of a short piece; the whole view may go before it
            old, view = held.pop(which % len(held))
            held.append((old, view[: which % len(view) + 1]))
            del view
        elif held:
            del held[which % len(held)]
        most = max(most, len(held))
        assert [bytes(view) for _, view in held] == [bytes([old]) * len(view) for old, view in held]
    assert len(buffers._all) == most, "what nobody holds is taken before new memory"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_pieces_of_each_file_arrive_right_when_many_are_in_flight(tmp_path, data):
    sizes = data.draw(st.lists(st.integers(1, 100), min_size=1, max_size=8))
    contents = {}
    for number, size in enumerate(sizes):
        contents[f"/p/{number}"] = bytes([number + 1]) * (size - 1) + b"!"
        (tmp_path / f"{number}").write_bytes(contents[f"/p/{number}"])
    with mock.patch.multiple(outgoing, CHUNK=16, LARGE=1, _buffers=Buffers(16)):
        streams, arrived, flying = {}, dict.fromkeys(contents, b""), []
        for path, content in contents.items():
            record = Record(path, file_of(len(content)), content=content)
            streams[path] = outgoing.messages(
                outgoing.parcels([record], lambda path: str(tmp_path / os.path.basename(path)), False)
            )
        while streams or flying:
            if streams and (len(flying) < 2 or data.draw(st.booleans())):
                path = data.draw(st.sampled_from(sorted(streams)))
                message = next(streams[path], None)
                if message is None:
                    del streams[path]
                elif message[0] == PIECE:
                    flying.append((path, message[1]))
                del message
            if flying and (not streams or data.draw(st.booleans())):
                path, payload = flying.pop(0)  # read only now, as by a network that is slow
                arrived[path] += payload
                del payload
    assert arrived == contents
