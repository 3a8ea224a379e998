"""Viewers for people: exporter, live page, top, explain, overlap. Viewers read Redis and cost the flow
nothing.

Owns: nothing that lasts. Receives: rows out of Redis. Sends: pages, series, tables.
Door: none; the files are independent, so that `top` never loads a compiler.
Must not import: a stage, the engine.
"""
