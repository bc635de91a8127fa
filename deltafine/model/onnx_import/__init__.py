"""Convolutional networks in ONNX files, as PyTorch exports them, as functional Keras models with the same answers.

Values stay where they lie: a tensor keeps the order of its ONNX axes beside it, channels last for pictures, and is
moved only where an operator asks for another order.
"""
