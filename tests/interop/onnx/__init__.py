"""Tests of fastlstm.interop.onnx."""
