"""The oracle's statements. They run in the order `judging`, `bases`, `client_windows`, `crediting`, `rows`.

Settings are DuckDB variables (`getvariable`). Pixels are counted by `combo`, a number for a combination of
one name of each scope. Only sums are then assigned to the rows of each scope (`members`).
"""
