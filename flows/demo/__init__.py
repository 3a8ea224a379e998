"""The demo: runs the whole system on one machine under simulated traffic, and compares numbers at its end.

Owns: the processes that it starts. Door: none; `flows.cli.demo` is the command.
Must not import: a stage.
"""
