"""Everything working on one machine: servers in wheels, traffic, flow, exporter, and a ledger at the end.

Owns: the processes that it starts. Door: none; `flows.cli.demo` is the command.
Must not import: a stage.
"""
