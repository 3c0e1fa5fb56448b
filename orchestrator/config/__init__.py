"""The two files that a user writes: their schema, reading, checks and error messages."""
