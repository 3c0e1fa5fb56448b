"""What a person sees in a terminal: console, tables, progress, and how figures are written."""
