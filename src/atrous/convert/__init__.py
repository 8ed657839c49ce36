"""Weights of other programs, converted to Atrous models: each tensor of a file is used once, or reported.

There is one module for each program (caffe, pytorch, tensorflow, tflite), and to_pytorch for the other direction; they
use ``formats`` to read files and ``architectures`` to build models.
"""
