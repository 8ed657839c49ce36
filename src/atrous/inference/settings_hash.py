"""What results were made with, in a few characters: so that a resumed run knows which ones are its own."""

from __future__ import annotations

from hashlib import blake2b
from json import dumps

import torch

from atrous.inference.large import Large
from atrous.inference.prepare import Precision, PreparedModel
from atrous.inference.test_time import Inference


def settings_hash(
    network: PreparedModel, inference: Inference, precision: Precision, large: Large | None = None
) -> str:
    """Hash a model, weights included, and all that its labels depend on besides the image: 16 hexadecimal digits.

    Args:
        network: its name, classes, settings and weights count, wherever it is stored.
        inference: views, their merge, and the CRF.
        precision: that was asked for; what it became on this machine counts too.
        large: how images are cut into tiles or shrunk, and which bands are read.
    """
    model, crf = network.model, inference.crf
    described = {
        "model": [model.name, model.label_set.to_dict(), model.settings],
        "precision": [precision, network.precision],
        "views": [inference.scales, inference.flip, inference.merge],
        "tiles": large and [repr(large.tiling), large.bands, large.longest_side],
        "crf": crf and [repr(crf.kernels), crf.iterations, crf.normalization, crf.order, crf.tolerance],
    }
    found = blake2b(dumps(described, sort_keys=True).encode(errors="backslashreplace"), digest_size=8)
    for module in (model, *([crf] if crf else [])):
        for name, tensor in module.state_dict().items():
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
