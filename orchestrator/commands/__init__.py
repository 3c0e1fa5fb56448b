"""Bodies of the subcommands, and what only they need.

Each reads its options, calls one function of the parts below, and prints what came of it.
"""
