// Nothing: only its precompiled headers are used.
