"""The words that all stages share: events, the pixel's columns, counts, fields, ticks, messages, Redis keys.

Owns: definitions alone. Receives and sends: nothing.
Door: none; a shelf of independent files.
Must not import: anything of ours but `flows.state.arrays`.
"""
