"""Running exported models in ONNX Runtime or OpenVINO: needs neither torch nor timm."""
