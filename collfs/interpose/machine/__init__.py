"""The machine code: its sources, its bytes, and the memory in which it runs.

``layout``  the structures that Python and the machine code share
``code``    the bytes, mapped read-execute beside the private cell of the process
"""
