"""What a session leaves in the interpreter: nothing that grows, nothing that acts after finalize."""

from __future__ import annotations


def test_sessions_one_after_the_other_add_one_audit_hook_and_no_finder(run_python, tmp_path):
    (tmp_path / "m.py").write_text("x = 1\n")
    code = f"""
import sys
import collfs
added = []
sys.addaudithook(lambda event, args: event == "sys.addaudithook" and added.append(event))  # of hooks in C, too
collfs.Session  # from here on our own modules come from the bundle of an installation
before = list(sys.meta_path)
for _ in range(5):
    with collfs.session("local", prefixes=[{str(tmp_path)!r}], manifest="none"):
        assert len(sys.meta_path) == len(before) + 1
        with open({str(tmp_path / "m.py")!r}) as file:
            assert file.read() == "x = 1\\n"
        assert collfs.stats()["wants"]["wanted"] >= 1, collfs.stats()
print(len(added), [f for f in sys.meta_path if f not in before])
"""
    assert run_python(code).stdout == "1 []\n"
