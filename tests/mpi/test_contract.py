"""The shipped contract over transport mpi: alone, and on the root of two ranks. pytest itself runs in the job."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.mpi

PROGRAM = """
import os, sys
import pytest
from collfs.testing import TransportContract, options

class TestMpi(TransportContract):
    @pytest.fixture
    def transport(self, tree):
        from collfs_mpi import transport
        made = transport(options(comm=WITH, root=0))
        made.open([tree])
        made.listen(lambda records: None, SCRATCH, lambda path: "")
        yield made
        made.close()
"""

ALONE = """
from mpi4py import MPI
SCRATCH = os.environ["MPI_TEST_FOLDER"]
WITH = None if MPI.COMM_WORLD.Get_size() == 1 else MPI.COMM_WORLD
"""

DRIVER = """
import contextlib, io, os, sys
import pytest
from mpi4py import MPI
import collfs_mpi
from collfs.testing import options
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
if mpirank.rank == 0:
    file = mpirank.folder + "/test_it.py"
    with open(file, "w") as out:
        out.write(sys.argv[1])
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", mpirank.folder, "--basetemp",
                              mpirank.folder + "/tmp", "-c", os.devnull, file])
    mpirank.emit(status=int(status), said=said.getvalue()[-4000:])
    mpirank.comm.bcast(False)
else:
    # a leader of its own node for each transport that the root opens
    while mpirank.comm.bcast(None):
        made = collfs_mpi.transport(options(comm=MPI.COMM_WORLD, root=0))
        made.node_store = "/elsewhere"
        made.open([])
        made.listen(lambda records: None, mpirank.folder, lambda path: "")
        made.close()
"""


@pytest.mark.timeout(200)
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_contract_holds(mpirun, ranks):
    text = PROGRAM.replace("class TestMpi", ALONE.strip() + "\n\nclass TestMpi")
    if ranks > 1:
        text = text.replace("        made = transport", "        MPI.COMM_WORLD.bcast(True)\n        made = transport")
    ended = mpirun(ranks, DRIVER, text, timeout=150, check=False)
    root = ended.ranks[0]
    assert root.get("status") == 0, (root.get("said"), ended.output)
    assert " passed" in root["said"]
