"""Models carried in and out: PyTorch, Keras and ONNX, each an optional extra of its own.

Nothing in the rest of the package imports this, and nothing here imports a framework before it
is asked for one: ``import fastlstm.interop.onnx``.
"""
