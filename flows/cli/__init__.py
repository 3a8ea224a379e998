"""The command line: one file a command; `audiopixel`, `python -m flows.cli`.

Door: none; a command imports what it needs when it runs, so that `--help` loads nothing.
"""
