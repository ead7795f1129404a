"""The language of `--where`: which records an expression selects. No I/O, no clock.

    level >= warning and status in (500, 503) and not path ~ "^/health"

`syntax` makes a tree of the text, `tree` is that tree. `literals` says what the values in it mean,
`levels` which of them are levels. `comparison` compares a literal with a value of a record,
`fields` finds the value in a stored line, `evaluation` decides a whole tree for a line.

`docs/filter.md` is the language's definition. Which lines of a block are examined at all is not
decided here, but in `logengine.reading.expression_search`.
"""
