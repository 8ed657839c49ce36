"""A server in the tests' own process, with a model that goes by color."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

pytest.importorskip("starlette", reason="needs atrous[serve]")
pytest.importorskip("prometheus_client", reason="needs atrous[serve]")

from starlette.testclient import TestClient

from atrous.bundle import DEFAULT
from atrous.data.files.image_form import ImageForm
from atrous.grid import Grid
from atrous.labels import LabelSet
from atrous.models.base import Output
from atrous.serve.app import make_app
from atrous.serve.served import ServedModel
from atrous.serve.settings import Limits, ServeSettings

COLORS = LabelSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


class ByColor(nn.Module):
    """Says which of the channels is brightest; waits for a gate where there is one."""

    label_set, name = COLORS, "by_color"
    settings: ClassVar[dict[str, Any]] = {}
    backbone = SimpleNamespace(in_channels=3)
    preprocessing = SimpleNamespace(dtype="uint8", ranges=())
    merges, scales = (), (1.0,)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.card: dict[str, Any] = {"architecture": "by_color", "description": "goes by color"}
        self.stride = 1
        self.wait: Callable[[], Any] = lambda: None

    @property
    def output_stride(self) -> int:
        return self.stride

    def preprocess(self, images: Tensor) -> Tensor:
        return images.float() / 255

    def main_output(self, images: Tensor) -> Output:
        self.wait()
        return Output("main", images, Grid(1, 0))


class FastTogether:
    """A predictor whose images run together, as on a GPU; notes how many came at once."""

    batches_pay, in_channels, label_set, images = True, 3, COLORS, ImageForm()

    def __init__(self) -> None:
        self.together: list[int] = []

    def labels(self, images: np.ndarray, inference: Any = None) -> np.ndarray:
        self.together.append(len(images))
        return images.argmax(-1).astype(np.uint8)

    def segment(self, decoded: Any, inference: Any = None, keep: bool = False, large: Any = None) -> Any:
        from atrous.inference.segmentation import Segmentation

        self.together.append(1)
        labels = decoded.pixels.argmax(-1).astype(np.uint8)
        return Segmentation(labels, decoded.pixels, COLORS, decoded.notes)


def served(name: str = "colors") -> ServedModel:
    return ServedModel(name, name, ByColor())  # type: ignore[arg-type]


def client_of(*models: ServedModel, settings: ServeSettings | None = None) -> TestClient:
    app = make_app(models or [served()], settings or ServeSettings(), cores=2)
    return TestClient(app, "http://server", raise_server_exceptions=False)


def bundled() -> ServedModel:
    """The bundled model."""
    import atrous

    return ServedModel(DEFAULT, DEFAULT, atrous.load(DEFAULT))


@contextmanager
def in_thread(*models: ServedModel) -> Iterator[str]:
    """A server in a thread, on a port of its own: its address."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs atrous[serve]")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(make_app(models, ServeSettings()), log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def limited(**limits: Any) -> ServeSettings:
    return ServeSettings(limits=Limits(**limits))


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 30), mode: str = "RGB") -> bytes:
    """Red left of blue."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2, 0] = pixels[:, size[0] // 2 :, 2] = 255
    buffer = BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def client() -> Iterator[TestClient]:
    with client_of() as client:
        yield client
