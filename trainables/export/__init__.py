"""Writes a student as safetensors, ONNX and torch.export with its card, and checks each file."""
