"""Where it runs: sessions, capacity, storage and job submission. Knows nothing of distillation."""
