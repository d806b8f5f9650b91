"""Triggers: what Python is about to do, turned into wants before it does it.

``finder``   a ``sys.meta_path`` finder that finds nothing: "about to import X"
``audit``    an audit hook: "about to open P", "about to dlopen L", "about to list D"
``needed``   which libraries ``ld.so`` will open for a library
``library``  an extension module with all that it needs

After ``finalize`` they do nothing. They never raise and never change what Python does.
"""
