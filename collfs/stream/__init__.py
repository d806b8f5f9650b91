"""Records as messages of bounded size, for transports: what is sent never needs more memory than a message.

::

    message = kind + payload (at most CHUNK bytes)
    kinds   RECORDS  whole frames of collfs.record.wire, one after the other
            PART     a part of one frame that is too large for a message; the RECORDS that follows ends it
            WHOLE    a checksum, the frame of a record without its content, and the content
            BEGIN    the frame of a record without its content, which follows ...
            PIECE    ... in pieces ...
            END      ... up to here (its payload: length and checksum)
            VAIN     wants that couldn't be answered: nothing will come for them
            MARK     the sender's program has called importlib.invalidate_caches(): its listings so far are old
            CLOSE    the sender has closed; nothing follows

Between BEGIN and END of one content nothing else may come. How kind and payload travel is the transport's.

Rules of the folder: knows records, messages and files; no transport, store or table. This file: numbers only.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collfs.record import Buffer

    Message = tuple[int, Buffer]

CHUNK = 4 << 20  # bytes of payload at most: counts stay below 2 GiB, whatever the size of a file
RECORDS, PART, BEGIN, PIECE, END, VAIN, WHOLE, MARK, CLOSE = range(1, 10)
TAIL = struct.Struct("<QQ")  # payload of END: length of the content, and its checksum (sums.py) over the pieces
SUM = struct.Struct("<Q")  # at the head of WHOLE: checksum of the content
MOST = 256 << 20  # bytes of one frame: a listing of some two million names
