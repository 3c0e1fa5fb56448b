"""The run: its stages in order, and what each of them does."""
