"""Rivals on the bench's log, each in a process of its own: `make bench PEERS=1`.

All do one job, about a third of the flow's: each pixel once by (placement, play, event), and for every minute
of every placement, by the pixels' event times, six counts and the exact number of distinct listeners who
consented. None has start cohorts, windows, roll-ups, lateness, conversions, an account, or Redis behind it.
"""
