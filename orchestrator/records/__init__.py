"""The ledger of a run, its one writer, and what is selected and summed up from it."""
