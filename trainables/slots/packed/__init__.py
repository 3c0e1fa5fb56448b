"""Students that a slot trains at once: which of them may share a pack, and what the slot does with it."""
