"""Formulas of representations that several objectives share: pure functions of tensors."""
