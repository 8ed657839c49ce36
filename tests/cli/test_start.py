"""What `atrous predict` imports: each package takes its time before the first mask."""

import subprocess
import sys

import numpy as np
from PIL import Image

ALLOWED = set(
    """
    PIL annotated_doc annotated_types anyio certifi charset_normalizer click cuda cv2 cython dateutil dill
    filelock fsspec google h11 hf_xet httpcore httpcore2 httpx httpx2 huggingface_hub idna llvmlite markdown_it
    mdurl networkx numba numpy packaging pydantic pydantic_core pydot pygments regex requests rich safetensors
    scipy setuptools shellingham sniffio socks timm torch torchgen torchvision tqdm triton truststore typer
    typing_extensions typing_inspection urllib3 yaml
""".split()
)
"""numba brings SciPy, where it is installed; timm brings huggingface_hub and what that talks HTTP with."""
COMPILER = {"torch._dynamo", "torch._inductor", "sympy"}
"""torch's compiler takes as long to import as all the rest of torch."""
SCRIPT = """
import sys
from atrous.cli import main
try:
    main()
finally:
    files = ((name, getattr(module, "__file__", None) or "") for name, module in list(sys.modules.items()))
    print("imported", *sorted(name for name, file in files if "site-packages" in file))
"""


def test_predict_imports_neither_the_compiler_nor_anything_unexpected(tmp_path) -> None:
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "photo.png")
    command = [sys.executable, "-c", SCRIPT, "predict", "photo.png", "--out", "masks", "--device", "cpu"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (tmp_path / "masks/photo.png").is_file()
    imported = set(result.stdout.splitlines()[-1].split()[1:])
    assert not imported & COMPILER
    packages = {name.partition(".")[0] for name in imported if not name.startswith("_")}
    assert not packages - ALLOWED
