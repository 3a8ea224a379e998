"""Tools that keep state: compiled loops, a hash table, HyperLogLog, incremental snapshots. No tool here
depends on pixels.

Owns: files of snapshots. Receives: rows of 64-bit words. Sends: their packed form.
Door: none; a shelf of independent files.
Must not import: anything of ours but errors.
"""
