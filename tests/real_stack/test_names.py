"""A program sees the original names everywhere, and never that of a copy."""

from __future__ import annotations

STORE = "/collfs-"  # part of every path below a store


def test_modules_libraries_and_tracebacks_have_their_original_names(same, stack):
    out = same(
        stack,
        """
        import ctypes, linecache, inspect, os, sys, traceback
        import numpy, scipy.linalg, pandas
        for name, module in sorted(sys.modules.items()):
            if name.partition(".")[0] in ("numpy", "scipy", "pandas", "json"):
                print(name, getattr(module, "__file__", None), getattr(module, "__cached__", None))
        try:
            numpy.linalg.inv(numpy.zeros((2, 2)))
        except numpy.linalg.LinAlgError:
            print(traceback.format_exc())
        print(inspect.getsource(numpy.linalg.inv)[:300], inspect.getsourcefile(pandas.DataFrame))
        print(linecache.getline(numpy.__file__, 1), linecache.getline(scipy.__file__, 2))
        print(numpy.__spec__.origin, numpy.__loader__.path, numpy.__path__)
        """,
    )
    assert STORE not in out
    assert f"{stack.packages}/numpy/__init__.py" in out
    assert out.count("LinAlgError") >= 2


LINK_MAP = """
import ctypes, os
class DlPhdrInfo(ctypes.Structure):  # <link.h>, its first two fields
    _fields_ = [("dlpi_addr", ctypes.c_void_p), ("dlpi_name", ctypes.c_char_p)]
class LinkMap(ctypes.Structure):  # <link.h>
    pass
LinkMap._fields_ = [("l_addr", ctypes.c_void_p), ("l_name", ctypes.c_char_p), ("l_ld", ctypes.c_void_p),
                    ("l_next", ctypes.POINTER(LinkMap)), ("l_prev", ctypes.POINTER(LinkMap))]
def by_iteration():
    found = []
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(DlPhdrInfo), ctypes.c_size_t, ctypes.c_void_p)
    def note(info, size, data):
        found.append(os.fsdecode(info.contents.dlpi_name))
        return 0
    callback = kind(note)
    ctypes.CDLL(None).dl_iterate_phdr(callback, None)
    return found
def by_link_map():
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype = ctypes.c_void_p
    here, found = LinkMap.from_address(dlopen(None, 1)), []
    while True:
        found.append(os.fsdecode(here.l_name))
        if not here.l_next:
            return found
        here = here.l_next.contents
"""


def test_the_dynamic_linker_knows_original_names_only_those_found_by_origin_too(same, stack):
    out = same(
        stack,
        LINK_MAP
        + f"""
import numpy, scipy.linalg, scipy.optimize, pandas
assert by_iteration() == by_link_map()
names = [n for n in by_iteration() if n.startswith({str(stack.venv)!r})]
print("\\n".join(names))
""",
    )
    names = out.split()
    assert STORE not in out
    assert len(names) > 40
    # their libraries are found by $ORIGIN in RPATH or RUNPATH, and keep that spelling
    bundled = [name for name in names if ".libs/" in name]
    assert [name for name in bundled if "openblas" in name]
    assert all("/../" in name or name.startswith(str(stack.packages)) for name in bundled)


def test_metadata_and_resources_are_the_originals(same, stack):
    out = same(
        stack,
        """
        import importlib.metadata as metadata, pkgutil, sys, warnings
        warnings.simplefilter("ignore")  # 3.10 and 3.11: the dict interface of entry points is deprecated
        try:
            from importlib.resources import files
        except ImportError:
            files = None
        import numpy, json, scipy
        for name in ("numpy", "scipy", "pandas"):
            there = metadata.distribution(name)
            listed = sorted(str(f) for f in there.files)
            print(name, there.version, len(listed), listed[:3], there.files[0].locate())
        points = metadata.entry_points()
        points = points if sys.version_info >= (3, 12) else [p for g in dict(points).values() for p in g]
        print(sorted((p.group, p.name, p.value) for p in points))
        print(sorted(d.metadata["Name"] for d in metadata.distributions()))
        if files is not None:
            print(files("numpy"), sorted(p.name for p in files("numpy").iterdir())[:5])
            print(len((files("numpy") / "__init__.py").read_bytes()))
        print(len(pkgutil.get_data("numpy", "version.py")))
        print(sorted(m.name for m in pkgutil.walk_packages(numpy.fft.__path__, "numpy.fft.")))
        print(len([m.name for m in pkgutil.iter_modules(scipy.__path__)]))
        print([m.name for m in pkgutil.walk_packages(json.__path__, "json.")])
        """,
    )
    assert STORE not in out
    assert "numpy.fft._pocketfft" in out
    assert "json.tool" in out


def test_every_file_has_the_metadata_of_its_original(same, stack):
    out = same(
        stack,
        f"""
        import os, numpy, pandas
        fields = ("st_mode", "st_size", "st_mtime_ns", "st_ino", "st_dev", "st_nlink", "st_uid")
        directories = files = 0
        for folder, names, leaves in os.walk({str(stack.packages / "numpy")!r}):
            names.sort()
            st = os.stat(folder)
            print(folder, [getattr(st, f) for f in fields], sorted(names), sorted(leaves))
            for leaf in sorted(leaves):
                st = os.stat(os.path.join(folder, leaf))
                print(leaf, st.st_mode, st.st_size, st.st_mtime_ns, st.st_uid)
        """,
    )
    assert out.count("\n") > 500
