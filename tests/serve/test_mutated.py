"""Mutated uploads: a sentence or a mask, never a fault. ``python -m tests.serve.mutated 10000`` sends more."""

import pytest
from starlette.testclient import TestClient

from tests.serve.conftest import client_of, limited, picture
from tests.serve.mutated import healthy, run


def test_what_is_mutated_works_before(client: TestClient) -> None:
    for path, kind, body in healthy():
        assert client.post(path, content=body, headers={"Content-Type": kind}).status_code == 200, path


@pytest.mark.slow
def test_mutated_uploads_are_answered_and_the_server_lives() -> None:
    with client_of(settings=limited(seconds=600)) as client:  # a changed header may announce a large image
        assert len(run(client, 220)) > 2
        assert client.post("/segment", content=picture()).status_code == 200
