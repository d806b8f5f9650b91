"""Many files at once, read by threads of ours: none of those may want something that waits for all of them."""

from __future__ import annotations

FILES, SIZE = 12, 1 << 20


def test_a_bulk_of_large_files_comes_first_though_our_own_modules_are_managed(place):
    # the threads of the reader run with triggers on: what they import late is a want, and would wait for the bulk
    data = place.tree / "data"
    data.mkdir()
    for number in range(FILES):
        (data / f"file{number}").write_bytes(bytes([number]) * SIZE)
    place.run(
        f"""
        import time
        own = os.path.dirname(collfs.__file__)
        session = start(prefixes=[sys.path[0], own], patience=20)
        assert session.fetcher.managed(own + "/reader/placing.py")
        begun = time.monotonic()
        collfs.prefetch([sys.path[0] + "/data"])
        took = time.monotonic() - begun
        assert took < 5, f"{{took:.1f}} s: a thread of the reader has waited for the fetch that it is part of"
        assert (session.fetcher.timeouts, session.fetcher.dead) == (0, "")
        for number in range({FILES}):
            path = f"{{sys.path[0]}}/data/file{{number}}"
            assert session.fetcher.copy_of(path), path
            with open(path, "rb") as file:
                assert file.read() == bytes([number]) * {SIZE}
        """
    )
