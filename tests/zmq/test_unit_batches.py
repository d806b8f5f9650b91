"""Messages that several servers below share: each gets all of them, whoever is slow, whoever leaves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collfs.errors import RecordError
from collfs.record import Record, Stat
from collfs.record.wire import pack
from collfs.stream import outgoing
from collfs_zmq import batches
from collfs_zmq.batches import Batches

MIB = 1 << 20


def record(number, size):
    """A file with a content of its own."""
    stat = Stat(0o100644, number, 1, 1, 0, 0, 0, size, 4096, 0, 0, 0, 0)
    return Record(f"/p/f{number}", stat, content=bytes([number]) * size)


def taken(messages):
    """Copies: memory is used again."""
    return [(part, bytes(payload)) for part, payload in messages]


@pytest.fixture
def made(monkeypatch):
    """How often messages were made, by a list of one item for each."""
    counted = []

    def messages(found):
        for message in outgoing.messages(found):
            counted.append(message[0])
            yield message

    monkeypatch.setattr(batches, "messages", messages)
    return counted


RECORDS = [record(number, size) for number, size in enumerate([10, 2 * MIB, 100, 3 * MIB, 9 * MIB, 5, 2 * MIB])]
ALL = taken(outgoing.messages(outgoing.parcels(RECORDS, lambda path: "", False)))


def test_what_sixteen_take_side_by_side_is_made_once_and_kept_no_longer(made):
    shared = Batches(lambda path: "")
    takers = [shared.take(list(RECORDS)) for _ in range(16)]
    shared.settle()
    assert shared.waiting == sum(len(one.content) for one in RECORDS)
    found = [[] for _ in takers]
    for _ in ALL:
        for taker, own in zip(takers, found):
            own.extend(taken([next(taker)]))
    assert found == [ALL] * 16
    assert len(made) == len(ALL)
    assert shared.kept > 0
    for taker in takers:
        assert list(taker) == []
    assert (shared.kept, shared.waiting) == (0, 0)


def test_who_takes_alone_keeps_nothing(made):
    shared = Batches(lambda path: "")
    for part, payload in shared.take(RECORDS):
        assert shared.kept == 0, (part, len(payload))
    assert len(made) == len(ALL)
    assert shared.waiting == 0


def test_others_records_and_later_takers_have_batches_of_their_own(made):
    shared = Batches(lambda path: "")
    first, other = shared.take(RECORDS), shared.take(RECORDS[:3])
    shared.settle()
    later = shared.take(RECORDS)
    assert taken(first) == taken(later) == ALL
    assert taken(other) == ALL[: len(taken(outgoing.messages(outgoing.parcels(RECORDS[:3], lambda path: "", False))))]
    assert len(made) > 2 * len(ALL)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_each_taker_gets_all_whatever_the_others_do_and_what_is_kept_is_bounded(data):
    limit = data.draw(st.sampled_from([0, MIB, 4 * MIB, 64 * MIB]), "KEPT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "KEPT", limit)
        shared = Batches(lambda path: "")
        groups = [RECORDS, RECORDS[1:5]]
        takers = []
        for _ in range(data.draw(st.integers(1, 4), "takers")):
            records = groups[data.draw(st.integers(0, 1), "group")]
            whole = taken(outgoing.messages(outgoing.parcels(records, lambda path: "", False)))
            takers.append((shared.take(records), whole, []))
        shared.settle()
        while takers:
            at = data.draw(st.integers(0, len(takers) - 1), "who")
            taker, whole, own = takers[at]
            if data.draw(st.integers(0, 20), "leaves") == 20:
                taker.close()
                assert list(taker) == []
                takers.pop(at)
                continue
            message = next(taker, None)
            assert shared.kept <= limit
            if message is None:
                assert own == whole
                takers.pop(at)
            else:
                own += taken([message])
        taker = None
        assert (shared.kept, shared.waiting, len(shared._order)) == (0, 0, 0)


def shortened(taker):
    """Read all.

    :raises OSError: or RuntimeError, if there is less than there was
    """
    if len(list(taker)) < len(ALL):
        raise RuntimeError("less")


def test_a_copy_that_has_gone_ends_all_who_share_it_and_leaves_nothing_behind(tmp_path):
    shared = Batches(lambda path: str(tmp_path / "gone"))
    takers = [shared.take(RECORDS) for _ in range(2)]
    shared.settle()
    for taker in takers:
        with pytest.raises((OSError, RuntimeError)):
            shortened(taker)
    assert (shared.kept, shared.waiting) == (0, 0)


def test_when_much_waits_contents_come_from_their_copies(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "CROWDED", 4 * MIB)
    (tmp_path / "copy").write_bytes(RECORDS[2].content)
    shared = Batches(lambda path: str(tmp_path / "copy"))
    first = shared.take([record(9, 1000)] * 5000)
    assert shared.waiting == 5_000_000
    monkeypatch.setattr(outgoing, "SMALL", 50)
    second = shared.take([RECORDS[2]])
    assert shared.waiting == 5_000_000
    assert taken(second)
    first.close()
    assert shared.waiting == 0


def test_what_cannot_be_sent_is_said_once_to_each(monkeypatch):
    def refuse(record, checksum=True):
        if record.content is not None:
            raise RecordError("too long")
        return pack(record, checksum=checksum)

    monkeypatch.setattr("collfs.stream.outgoing.pack", refuse)
    shared = Batches(lambda path: "")
    takers = [shared.take(RECORDS[:1]) for _ in range(2)]
    found = [taken(taker) for taker in takers]
    assert found[0] == found[1]
    assert len(found[0]) == 1
