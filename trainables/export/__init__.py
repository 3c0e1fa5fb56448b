"""Writes a student as safetensors, ONNX and torch.export, with a card.

Each file is loaded again and compared with the student before it counts.
"""
