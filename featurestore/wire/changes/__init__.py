"""Records that change what others said, to events that undo and do: behind it an undo is a sign of -1 and nothing more.

`envelopes` are changes of a table's rows, which say what a row was. `replacements` are events that are sent again with
other values: what they replace is remembered, by `versions`. `decoder` chooses.
"""
