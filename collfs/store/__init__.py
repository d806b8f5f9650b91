"""The node store: what a node has already got, for all its ranks.

``table``   the path table, one shared-memory file: names -> copies and recorded metadata
``node``    the private directory: made, joined, and removed when its job is dead
``stager``  records -> copies, mirror directories and entries of the table

::

    <node-local directory>/collfs-<uid>-<random>/      0700
      job      which job it belongs to
      alive    locked shared by every process that uses it; nobody: the next start removes it
      write    locked by the one process that fetches and stages
      t        the path table
      f/<n>    copies, short flat names: the cost of a hit is the depth of the copy's name (measured)
      m/<e>    mirror directories, for listings only; <e> is the entry's place in the table and a sequence number
      n/<e>    mirror directories that are being made
      c        does not exist; the canary's prefix
"""
