"""The catalogue: every event, field, metric and column, declared once, as plain data.

Owns: names, meanings, words for people. It imports nothing of ours, and has no rule of counting.
Other modules derive the rest from it, each by one small function. These are codes and columns in
`flows.model.events` and `counts`, the layout of a row in `flows.model.fields`, the decoder's struct and the
scanner's words in `flows.intake`, the text of `flows.methodology`, series in `flows.metrics`, columns in
`flows.viewers.columns`, documents, the schema and the page's module in `flows.generated`. The oracle takes
names from here, and nothing else of the flow.
"""
