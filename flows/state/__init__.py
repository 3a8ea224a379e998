"""Tools that keep state: compiled loops, a hash table, HyperLogLog, incremental snapshots. They know no
pixel.

Owns: files of snapshots. Receives: rows of 64-bit words. Sends: their packed form.
Door: none; a shelf of independent files.
Must not import: anything of ours but errors.
"""
