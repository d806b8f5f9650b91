"""Which files will ld.so open when it loads a library: its DT_NEEDED closure, told before it happens.

An extension module drags libraries along, and ld.so looks for them in places that only the ELF files name. Nobody
announces those accesses, so they are worked out here, by the rules of glibc (elf/dl-load.c: _dl_map_object, open_path,
fillin_rpath, is_dst; man 8 ld.so), as far as they concern managed files:

1. A needed name with a slash (after $ORIGIN and the like are replaced) is a path.
2. Otherwise, if the library that needs it has no DT_RUNPATH: DT_RPATH of that library, of the one that loaded it, and
   so on up to the program; an object that has a DT_RUNPATH contributes no DT_RPATH (elf/get-dynamic-info.h).
3. LD_LIBRARY_PATH as it was when the process started.
4. DT_RUNPATH of the library that needs it, of no other.
5. ld.so.cache and the default directories: not ours. The walk of that name ends.

Where only the running ld.so knows (which $LIB, $PLATFORM or glibc-hwcaps directory), all candidates count: wants are
hints, and one too many costs a fetch, one too few a native open.

Rules of the file: bytes from outside never raise, offsets are checked, loops are bounded; no file is touched here.
"""

from __future__ import annotations

import os
from struct import Struct, error

from collfs.record import CONTENT, LIST, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from collfs.record import Buffer

    _Slot = tuple[list[str], str, "_Object"]  # where a needed name was found (to be filled), the name, who needs it

# <elf.h>; layouts in the ELF-64 object file format, little endian.
_EHDR = Struct("<4sBBB9xHHIQQQIHHHHHH")  # e_ident (magic, class, data, version), e_type, e_machine, ...
_PHDR = Struct("<IIQQQQQQ")  # p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
_DYN = Struct("<qQ")  # d_tag, d_un
_ELFCLASS64, _ELFDATA2LSB = 2, 1
_ET_EXEC, _ET_DYN = 2, 3
_MACHINES = (62, 183)  # EM_X86_64, EM_AARCH64
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 14, 15, 29

# Bounds for damaged or hostile files; real ones have a dozen program headers, some 60 entries, and RPATHs up to 10 kB.
_MAX_PHDRS = 256
_MAX_DYNS = 4096
_MAX_TEXT = 64 << 10
_MAX_OBJECTS = 4096
_MAX_DEPTH = 64

_WORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_MACHINE = os.uname().machine
_LIB = ("lib64", f"lib/{_MACHINE}-linux-gnu", "lib")  # DL_DST_LIB: Fedora and SUSE; Debian; Arch, Alpine's gcompat
_PLATFORM = ("haswell", "xeon_phi", "x86_64") if _MACHINE == "x86_64" else (_MACHINE,)  # sysdeps/x86/cpu-features.c
_HWCAPS = tuple(f"/glibc-hwcaps/x86-64-v{n}" for n in (4, 3, 2)) if _MACHINE == "x86_64" else ()  # since glibc 2.33


class Dynamic:
    """What the dynamic section of an ELF file says about other files, strings as written there.

    ``rpath`` and ``runpath`` are split at colons; None: the entry is missing. With a ``runpath`` there is no ``rpath``.
    """

    __slots__ = ("needed", "rpath", "runpath", "soname")

    def __init__(
        self, needed: list[str], soname: str | None, rpath: list[str] | None, runpath: list[str] | None
    ) -> None:
        self.needed = needed
        self.soname = soname
        self.rpath = rpath if runpath is None else None
        self.runpath = runpath

    def __repr__(self) -> str:
        return f"Dynamic({self.needed}, {self.soname!r}, {self.rpath}, {self.runpath})"


def read_dynamic(buffer: Buffer, executable: bool = False) -> Dynamic | None:
    """The dynamic section of an ELF64 little-endian shared object for x86-64 or aarch64; None if *buffer* is none.

    Damaged parts are left out. Never raises for any content.

    :param executable: take a program that is not position independent, too (its DT_RPATH counts for all its libraries)
    """
    try:
        with memoryview(buffer) as raw, raw.cast("B") as view:
            return _read_dynamic(view, (_ET_DYN, _ET_EXEC) if executable else (_ET_DYN,))
    except error:  # a struct that reaches over the end
        return None


def _read_dynamic(view: memoryview, kinds: tuple[int, ...]) -> Dynamic | None:
    magic, klass, data, _, kind, machine, _, _, phoff, _, _, _, phentsize, phnum, *_ = _EHDR.unpack_from(view)
    if (magic, klass, data) != (b"\x7fELF", _ELFCLASS64, _ELFDATA2LSB):
        return None
    if kind not in kinds or machine not in _MACHINES or phentsize != _PHDR.size or phoff >= len(view):
        return None
    loads, section = [], None
    for index in range(min(phnum, _MAX_PHDRS)):
        p_type, _, offset, vaddr, _, filesz, _, _ = _PHDR.unpack_from(view, phoff + index * _PHDR.size)
        if p_type == _PT_LOAD:
            loads.append((vaddr, offset, filesz))
        elif p_type == _PT_DYNAMIC:
            section = (offset, filesz)
    if section is None or section[0] >= len(view):
        return None
    start, end = section[0], min(sum(section), len(view), section[0] + _MAX_DYNS * _DYN.size)
    needed, last = [], {}
    for at in range(start, end - _DYN.size + 1, _DYN.size):
        tag, value = _DYN.unpack_from(view, at)
        if tag == _DT_NULL:
            break
        if tag == _DT_NEEDED:
            needed.append(value)
        else:
            last[tag] = value  # of several entries ld.so keeps the last
    strings = _Strings(view, loads, last.get(_DT_STRTAB, 0), last.get(_DT_STRSZ, 0))
    names = [strings.at(offset) for offset in needed]
    return Dynamic(
        [name for name in names if name],
        strings.at(last.get(_DT_SONAME)),
        _split(strings.at(last.get(_DT_RPATH))),
        _split(strings.at(last.get(_DT_RUNPATH))),
    )


class _Strings:
    """The string table that DT_STRTAB (an address) and DT_STRSZ describe."""

    __slots__ = ("_end", "_start", "_view")

    def __init__(self, view: memoryview, loads: list[tuple[int, int, int]], address: int, size: int) -> None:
        self._view = view
        self._start = self._end = 0
        for vaddr, offset, filesz in loads:
            if vaddr <= address < vaddr + filesz:
                self._start = offset + address - vaddr
                self._end = min(self._start + size, len(view))
                break

    def at(self, offset: int | None) -> str | None:
        """The string at *offset*; None if there is none, or it doesn't end within the table."""
        if offset is None:
            return None
        start = self._start + offset
        for length in (256, _MAX_TEXT):  # most are short, and the table can have megabytes
            text, nul, _ = bytes(self._view[start : min(start + length, self._end)]).partition(b"\0")
            if nul:
                return os.fsdecode(text)
        return None


def _split(text: str | None) -> list[str] | None:
    return None if text is None else text.split(":") if text else []


def normalise(path: str) -> str:
    """*path* without empty parts, "." and "..", by the letters alone: what it is called in records and wants.

    :raises ValueError: for a relative path
    """
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is relative: give the absolute path")
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def expand(text: str, origin: str) -> list[str]:
    """*text* with $ORIGIN, $LIB and $PLATFORM (or ${...}) replaced: every string that ld.so may form.

    :param origin: the directory of the object that holds *text*; "" if unknown, then a text with $ORIGIN gives nothing
    """
    if "$" not in text:
        return [text]
    parts, tokens = [], []
    head, *tails = text.split("$")
    for tail in tails:
        if tail.startswith("{"):
            end = tail.find("}") + 1
            token = tail[1 : end - 1]
        else:
            end = 0
            while end < len(tail) and tail[end] in _WORD:
                end += 1
            token = tail[:end]
        if token not in ("ORIGIN", "LIB", "PLATFORM"):
            token, end = "", 0
        tokens.append(token)
        parts.append(tail[end:])
    if "ORIGIN" in tokens and not origin:
        return []
    texts = []
    for lib in _LIB if "LIB" in tokens else ("",):
        for platform in _PLATFORM if "PLATFORM" in tokens else ("",):
            values = {"ORIGIN": origin, "LIB": lib, "PLATFORM": platform, "": "$"}
            texts.append(head + "".join([values[token] + part for token, part in zip(tokens, parts)]))
    return texts


def search_path(entries: Iterable[str], origin: str) -> list[list[str]]:
    """The directories of an RPATH, RUNPATH or LD_LIBRARY_PATH, in the spelling of ld.so without the slash at the end.

    One list per entry, with more than one directory where only the running ld.so knows which. Relative entries and
    empty ones (the working directory) are left out: ld.so then opens relative names, which are never managed.
    """
    found = []
    for entry in entries:
        group = [directory.rstrip("/") for directory in expand(entry, origin) if directory.startswith("/")]
        if group and group not in found:
            found.append(group)
    return found


class _Object:
    """A library that is on its way in: the part of glibc's struct link_map that a search needs."""

    __slots__ = ("dynamic", "loader", "origin", "rpath")

    def __init__(self, l_name: str, dynamic: Dynamic, loader: _Object | None) -> None:
        self.dynamic = dynamic
        self.loader = loader
        self.origin = l_name.rpartition("/")[0] or "/"
        self.rpath = search_path(dynamic.rpath or (), self.origin)


class Closure:
    """The wants that make a library and everything it needs local. Use it once, by iterating or by :meth:`rounds`.

    What is known already (from *content*, *names*, *loaded*) gives no want, so a walk on a warm node is silent. Fetch
    each want before taking the next one; or each round, all of whose wants are independent, before the next round.

    :param path: the literal name by which ld.so will know the library (l_name; $ORIGIN is its directory)
    :param content: the bytes of a managed library by its normalised path; None: unknown or unmanaged
    :param names: the names in a managed directory that is completely listed; None: unknown or unmanaged
    :param loaded: the names that are loaded already (sonames), which ld.so doesn't look for again
    :param library_path: LD_LIBRARY_PATH at the start of the process
    :param outer_rpath: the expanded DT_RPATH directories of the caller of dlopen, of those above it and of the program
    :param program_origin: the directory of the program, for $ORIGIN in *library_path*
    :param listing: the aspect that is wanted of directories (LIST; NAMES does as well and is cheaper for the reader)
    :raises ValueError: if *path* is relative
    """

    __slots__ = (
        "_asked",
        "_content",
        "_known",
        "_library_path",
        "_listing",
        "_names",
        "_outer",
        "_path",
        "_settled",
        "libraries",
        "needs",
    )

    def __init__(
        self,
        path: str,
        content: Callable[[str], Buffer | None],
        names: Callable[[str], Collection[str] | None],
        *,
        loaded: Iterable[str] = (),
        library_path: str = "",
        outer_rpath: Sequence[str] = (),
        program_origin: str = "",
        listing: str = LIST,
    ) -> None:
        normalise(path)
        self._path = path
        self._content = content
        self._names = names
        self._settled = set(loaded)
        self._library_path = search_path(library_path.replace(";", ":").split(":"), program_origin)
        self._outer = search_path(outer_rpath, "")
        self._listing = listing
        self._asked: set[str] = set()
        self._known: dict[str, Collection[str]] = {}
        #: the literal names under which ld.so will open the libraries, *path* first, as far as the walk has come
        self.libraries: list[str] = []
        #: file name of a library -> its soname and all that it needs, as far as the walk has come
        self.needs: dict[str, list[str]] = {}

    def __iter__(self) -> Iterator[Want]:
        for wants in self.rounds():
            yield from wants

    def rounds(self) -> Iterator[list[Want]]:
        """The wants in batches, breadth first as ld.so goes: directories, the libraries found there, and so on."""
        level: list[tuple[str, _Object | None]] = [(self._path, None)]
        for _ in range(_MAX_DEPTH):
            fresh = []
            for l_name, loader in level:
                path = normalise(l_name)
                if path not in self._asked and len(self._asked) < _MAX_OBJECTS:
                    self._asked.add(path)
                    self.libraries.append(l_name)
                    fresh.append((l_name, path, loader))
            data = {path: self._content(path) for _, path, _ in fresh}
            wants = [Want(path, CONTENT) for path, buffer in data.items() if buffer is None]
            if wants:
                yield wants
                data.update({want.path: self._content(want.path) for want in wants})
            objects = [this for this in (self._object(n, data[path], by) for n, path, by in fresh) if this is not None]
            slots: list[_Slot] = [([], name, this) for this in objects for name in self._needs(this)]
            yield from self._search(slots)
            level = [(l_name, this) for places, _, this in slots for l_name in places]
            if not level:
                return

    def _object(self, l_name: str, data: Buffer | None, loader: _Object | None) -> _Object | None:
        dynamic = None if data is None else read_dynamic(data)
        if dynamic is None:
            return None
        this = _Object(l_name, dynamic, loader)
        names = [name for text in dynamic.needed for name in expand(text, this.origin)]
        if dynamic.soname:
            self._settled.add(dynamic.soname)
            names.append(dynamic.soname)
        self.needs[l_name.rpartition("/")[2]] = names
        return this

    def _needs(self, this: _Object) -> Iterator[str]:
        """What one library needs and nobody did before: each name is looked for once, then loaded, or all ends."""
        for text in this.dynamic.needed:
            for name in expand(text, this.origin):
                if name not in self._settled:
                    self._settled.add(name)
                    yield name

    def _search(self, slots: list[_Slot]) -> Iterator[list[Want]]:
        """Put the places of each name into its slot. All go side by side, so that directories are wanted in batches."""
        for places, name, _ in slots:
            if name.startswith("/"):
                places.append(name)
        pending = [(places, name, self._search_path(this)) for places, name, this in slots if "/" not in name]
        step = 0
        while pending:
            pending = [search for search in pending if not search[0] and step < len(search[2])]
            directories = [directory for _, _, path in pending for directory in path[step]]
            yield from self._listed(directories)
            yield from self._listed([d + sub for d in directories if "glibc-hwcaps" in self._in(d) for sub in _HWCAPS])
            for places, name, path in pending:
                for folder in [d + sub for d in path[step] for sub in (*_HWCAPS, "")]:
                    if name in self._in(folder):
                        places.append(f"{folder}/{name}")
            step += 1

    def _search_path(self, this: _Object) -> list[list[str]]:
        if this.dynamic.runpath is not None:
            return self._library_path + search_path(this.dynamic.runpath, this.origin)
        groups: list[list[str]] = []
        above: _Object | None = this
        while above is not None:
            groups += above.rpath
            above = above.loader
        return groups + self._outer + self._library_path

    def _listed(self, directories: list[str]) -> Iterator[list[Want]]:
        """Want those directories whose names are not known; afterwards they count as known, empty if nobody says."""
        fresh = []
        for directory in dict.fromkeys(map(normalise, (d + "/" for d in directories))):
            if directory not in self._known:
                names = self._names(directory)
                self._known[directory] = names or ()
                if names is None:
                    fresh.append(directory)
        if fresh:
            yield [Want(directory, self._listing) for directory in fresh]
            for directory in fresh:
                self._known[directory] = self._names(directory) or ()

    def _in(self, directory: str) -> Collection[str]:
        return self._known.get(normalise(directory + "/"), ())
