"""How state is kept: compiled loops, a hash table, HyperLogLog, incremental snapshots; knows no pixel.

Owns: files of snapshots. Receives: rows of 64-bit words. Sends: their packed form.
Door: none; a shelf of independent files.
Must not import: anything of ours but errors.
"""
