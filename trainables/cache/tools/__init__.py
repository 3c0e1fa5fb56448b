"""Looks into caches, repairs them, and brings logits in and out."""
