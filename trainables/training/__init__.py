"""The one training loop, and what a step, an epoch and a trial need."""
