"""Bodies of the subcommands: each reads its options, calls one function and prints."""
