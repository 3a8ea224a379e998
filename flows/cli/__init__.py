"""The command line, `audiopixel` or `python -m flows.cli`, one file a command.

Door: none; a command imports what it needs when it runs, so that `--help` loads nothing.
"""
