"""The oracle's statements, as they run: `judging`, `crediting`, `rows`.

Settings are DuckDB variables (`getvariable`). Pixels are counted by `combo`, a number for eight names, and
only sums are unfolded into the rows of the eight scopes (`members`).
"""
