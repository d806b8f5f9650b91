"""What the messages of the stream look like.

::

    message = head (24 bytes, one Ibcast)  +  payload (at most CHUNK bytes, one Ibcast)
    head    = magic, kind, payload length, sequence number
    kinds   RECORDS  whole frames of collfs.record.wire, one after the other
            PART     a part of one frame that is too large for a message; the RECORDS that follows ends it
            BEGIN    the frame of a record without its content, which follows ...
            PIECE    ... in pieces ...
            END      ... up to here (its payload: length and crc of the content)
            VAIN     wants that the root had and couldn't answer: nothing will come for them
            CLOSE    the root has closed; nothing follows

Rules of the file: numbers only; MPI is not needed to make or to take messages apart.
"""

from __future__ import annotations

import struct

CHUNK = 8 << 20  # bytes of payload at most: counts stay below 2 GiB, whatever the size of a file
HEAD = struct.Struct("<4sIQQ")
MAGIC = b"cfs1"
RECORDS, PART, BEGIN, PIECE, END, VAIN, CLOSE = range(1, 8)
TAIL = struct.Struct("<QI")  # payload of END: length and crc32 of the content
MOST = 256 << 20  # bytes of one frame: a listing of some two million names
