"""The whole system on one machine: servers installed from wheels, traffic, flow, exporter, and at the end a
comparison with the truth.

Owns: the processes that it starts. Door: none; `flows.cli.demo` is the command.
Must not import: a stage.
"""
