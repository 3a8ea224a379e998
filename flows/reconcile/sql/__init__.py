"""The oracle's statements, as they run: `judging`, `crediting`, `rows`.

Settings are DuckDB variables (`getvariable`). Pixels are counted by `combo`, a number for six names, and only
sums are unfolded into the rows of the six scopes (`members`).
"""
