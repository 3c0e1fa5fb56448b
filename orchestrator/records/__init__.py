"""What a run has done: the ledger and its one writer.

What is chosen from it (finalists, champion) and summed up of it is here too, and reads nothing but records.
"""
