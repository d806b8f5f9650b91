"""Every reading call on every kind of name gets what the file system would say.

Each test builds a real tree, stages it, and asks each question twice, of the path table and of the kernel, in a child.
"""

from __future__ import annotations

TREE = """
os.makedirs(top + "/d/sub/deep"), os.makedirs(top + "/n"), os.makedirs(top + "/e"), os.makedirs(top + "/u")
def make(name, text, mode=0o644):
    with open(f"{top}/{name}", "w") as file:
        file.write(text)
    os.chmod(f"{top}/{name}", mode)
    os.utime(f"{top}/{name}", ns=(10**18, 10**18 + 123456789))
make("d/staged.py", "print(1)"), make("d/exec", "#!", 0o755), make("d/meta.py", "meta"), make("d/w", "old")
make("d/empty", ""), make("d/sub/s", "s"), make("n/plain", "plain"), make("e/child", "c"), make("u/x", "x")
os.symlink("staged.py", top + "/d/lf"), os.symlink(top + "/d/meta.py", top + "/d/lmeta")
os.symlink("sub", top + "/d/ld"), os.symlink("sub/deep", top + "/d/far")
os.symlink("nowhere", top + "/d/broken"), os.symlink("loop", top + "/d/loop")
os.symlink("plain", top + "/n/link"), os.mkfifo(top + "/d/pipe")
h = Hooked(base, top)
h.stage([top, top + "/d", top + "/d/sub", top + "/d/ld", top + "/d/sub/deep", top + "/d/far"], LIST)
h.stage([top + "/n"], NAMES)
h.stage([top + "/d/" + n for n in ("staged.py", "exec", "empty", "w", "lf", "sub/s", "ld/s")], CONTENT)
h.stage([top + "/e", top + "/e/gone"], META)
DIRECTORIES = ["", "/d", "/d/sub", "/d/ld", "/d/sub/deep"]
KNOWN = ["/d/staged.py", "/d/exec", "/d/empty", "/d/sub/s", "/d/ld/s"]
ABSENT = ["/nope", "/d/nope", "/d/nope/x", "/d/nope/x/y", "/d/staged.py/x", "/d/meta.py/x/y", "/d/lf/x", "/e/gone"]
OTHER = ["/d/meta.py", "/d/lf", "/d/lmeta", "/d/broken", "/d/broken/x", "/d/loop", "/d/loop/x", "/d/pipe", "/d/pipe/x",
         "/n", "/n/plain", "/n/link", "/n/nope", "/e", "/e/child", "/e/unknown", "/u", "/u/x", "/u/x/y", "/d/w"]
PATHS = [top + n for n in DIRECTORIES + KNOWN + ABSENT + OTHER]
def spellings(path):
    head, tail = os.path.split(path)
    return [path, path + "/", path + "//", path + "/.", f"{head}//{tail}", f"{head}/./{tail}", path + "/..",
            path + "/x/..", f"{top}/d/far/../{tail}", f"{top}/d/far/../../{tail}",
            f"{top}/d/sub/../../{os.path.relpath(path, top)}", f"{top}/d/ld/../{os.path.relpath(path, top)}",
            f"{top}/d/nope/../{tail}", f"{top}/d/staged.py/../{tail}", path + "/../" + tail]
"""


def test_every_call_on_every_kind_of_name_in_every_spelling_is_answered_as_by_the_kernel(child):
    result = child(
        TREE
        + """
h.install()
for path in PATHS:
    for spelled in spellings(path):
        check(spelled)
counts = h.interposer.counts()
assert counts["open"]["redirected"] and counts["stat"]["redirected"] and counts["opendir"]["redirected"], counts
assert counts["stat"]["absent"] and counts["readlink"]["redirected"] and counts["access"]["redirected"], counts
# access for execution of a copy that can't be executed: the kernel is asked whether the original can
assert [op for op, c in counts.items() if c["fallback"]] == ["access"], counts
print("compared", len(PATHS))
"""
    )
    assert "compared" in result.stdout


def test_what_is_known_is_answered_without_the_original(child):
    child(
        TREE
        + """
NATIVE = {"open path", "open path nofollow", "access W"}  # these mean the original, and whether it can be written
FILE = {n for n in CALLS} - NATIVE
DIRECTORY = {"stat", "lstat", "statx", "statx nofollow", "exists", "access R", "access X", "listdir", "scandir"}
promised = {top + n: DIRECTORY for n in DIRECTORIES} | {top + n: FILE for n in KNOWN}
promised.update({top + n: set(CALLS) for n in ABSENT if n.startswith("/d/nope") or n in ("/nope", "/e/gone")})
promised.update({top + n: FILE for n in ("/d/staged.py/x", "/d/meta.py/x/y", "/d/lf/x")})
promised[top + "/d/meta.py"] = {"stat", "lstat", "statx", "exists", "readlink"}
promised[top + "/d/lf"] = {"stat", "lstat", "statx", "statx nofollow", "exists", "open", "readlink"}
promised[top + "/d/lmeta"] = {"stat", "lstat", "readlink", "exists"}
promised[top + "/d/ld"] = DIRECTORY | {"readlink"}
before = {path: answers(path) for path in promised}
os.rename(top, top + ".away")
h.install()
for path, calls in promised.items():
    if path.endswith("/d"):
        calls = calls - {"scandir"}  # the metadata of the fifo is not recorded
    after = answers(path)
    wrong = {c: (before[path][c], after[c]) for c in calls if before[path][c] != after[c]}
    assert not wrong, (path, wrong)
"""
    )
