"""A transport that fills the node's table from a thread of its own: that thread never waits for what it fills."""

from __future__ import annotations

FILLS = """
    import queue, threading, time
    from collfs.reader import Reader
    from collfs_local import LocalTransport
    class Fills(LocalTransport):
        name, follows, is_root = "fills", True, False
        def __init__(self):
            super().__init__(Reader())
            self.asked, self.imported = queue.SimpleQueue(), []
        def listen(self, deliver, scratch, copy_of):
            self.thread = threading.Thread(target=self.run, args=(deliver,), daemon=True)
            self.thread.start()
        def ask(self, wants):
            self.asked.put(wants)
        def run(self, deliver):
            self.rest(True)
            while True:
                wants = self.asked.get()
                if wants is None:
                    break
                if not self.imported:
                    import package_0
                    self.imported.append(package_0.VALUE)
                deliver([self.reader.answer(want) for want in wants])
            self.rest(False)
            self.rested = session.fetcher.resting()
        def close(self):
            self.asked.put(None)
            self.thread.join(20)
"""


def test_what_such_a_thread_imports_is_no_want(place):
    place.run(
        FILLS
        + """
    fills = Fills()
    session = collfs.initialize(fills, prefixes=sys.path[:1], manifest="none", job="fills", patience=10)
    assert not session.idle, session.idle
    begun = time.monotonic()
    import package_3
    took = time.monotonic() - begun
    assert package_3.VALUE == 3
    assert fills.imported == [0]
    assert took < 5, f"{took:.1f} s: the thread has waited for itself"
    fetcher = session.fetcher
    assert (fetcher.silences, fetcher.unanswered, fetcher.dead) == ([], 0, "")
    assert fetcher.copy_of(package_3.__file__), "it came by the table"
    assert not fetcher.copy_of(sys.modules["package_0"].__file__), "nobody wanted this one"
    collfs.finalize()
    assert fills.rested is False
    """
    )
