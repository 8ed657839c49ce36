"""What every request passes: tokens, other sites, ids, metrics, the log; and load through HTTP."""

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from atrous.errors import InputError
from atrous.serve.gate import JsonLines
from atrous.serve.settings import ServeSettings
from tests.serve.conftest import FastTogether, client_of, limited, picture, served


def test_a_token_is_asked_for_where_work_is_done() -> None:
    with client_of(settings=ServeSettings(token="s3cret")) as client:
        for headers in (
            {},
            {"Authorization": "Bearer other"},
            {"Authorization": "s3cret"},
            {"Authorization": "Basic x"},
        ):
            answer = client.post("/segment", content=picture(), headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert client.get("/models").status_code == client.get("/metrics").status_code == 401
        for headers in ({"Authorization": "Bearer s3cret"}, {"Authorization": "Basic bGFiZWw6czNjcmV0"}):
            assert client.post("/segment", content=picture(), headers=headers).status_code == 200
        for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json", "/health"):
            assert client.get(path).status_code == 200


def test_pages_of_other_sites_are_refused_unless_listed() -> None:
    with client_of(settings=ServeSettings(host="0.0.0.0", origins=("https://friend.example",))) as client:
        own = client.post("/segment", content=picture(), headers={"Origin": "http://server"})
        friend = client.post("/segment", content=picture(), headers={"Origin": "https://friend.example"})
        other = client.post("/segment", content=picture(), headers={"Origin": "https://other.example"})
        assert (own.status_code, friend.status_code, other.status_code) == (200, 200, 403)
        assert friend.headers["access-control-allow-origin"] == "https://friend.example"
    with client_of() as client:
        answer = client.get("/models", headers={"Origin": "https://friend.example"})
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://localhost:8000", "localhost:8000", 200),
        ("http://[::1]:8000", "[::1]:8000", 200),
        ("http://evil.example:8000", "evil.example:8000", 403),  # whose name points here
        ("http://localhost:9000", "localhost:8000", 403),
        ("http://[", "[", 403),
        ("null", "localhost:8000", 403),
    ],
)
def test_a_server_for_this_machine_knows_its_own_pages_by_its_names(
    client: TestClient, origin: str, host: str, status: int
) -> None:
    answer = client.post("/segment", content=picture(), headers={"Origin": origin, "Host": host})
    assert answer.status_code == status


def test_a_token_is_one_that_a_header_can_carry() -> None:
    with client_of(settings=ServeSettings(token="s3cret\n")) as client:
        headers = {"Authorization": "Bearer s3cret"}
        assert client.post("/segment", content=picture(), headers=headers).status_code == 200
    for token in ("", " \n", "schlüssel", "a\nb"):
        with pytest.raises(InputError, match="printable ASCII"):
            ServeSettings(token=token)


def test_answers_carry_an_id_and_may_not_be_sniffed_or_kept(client: TestClient) -> None:
    assert client.get("/models", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    made = client.get("/models", headers={"X-Request-Id": "mine 1\r\n"[:7]})
    assert len(made.headers["x-request-id"]) == 16
    assert made.headers["x-content-type-options"] == "nosniff"
    assert made.headers["cache-control"] == "no-store"
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]


def test_requests_are_counted_and_logged_without_what_they_hold(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "atrous.serve"):
        client.post("/segment?model=secret-name", files={"image": ("private.png", picture())})
        client.post("/segment", files={"image": ("private.png", picture())}, headers={"X-Request-Id": "r1"})
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name == "atrous.serve"]
    assert [(line["route"], line["status"]) for line in lines] == [("/segment", 404), ("/segment", 200)]
    assert (lines[1]["request"], lines[1]["model"], lines[1]["width"]) == ("r1", "colors", 40)
    assert lines[1]["compute"] >= 0
    assert "private" not in json.dumps(lines)
    text = client.get("/metrics").text
    assert 'atrous_requests_total{route="/segment",status="200"} 1.0' in text
    assert 'atrous_compute_seconds_count{model="colors"} 1.0' in text
    assert "atrous_waiting_images 0.0" in text


def test_a_stopping_server_finishes_and_takes_nothing_new() -> None:
    model, inside, door = served(), threading.Event(), threading.Event()
    model.model.wait = lambda: (inside.set(), door.wait(20))  # type: ignore[union-attr]
    with client_of(model) as client, ThreadPoolExecutor() as pool:
        under_way = pool.submit(client.post, "/segment", content=picture())
        assert inside.wait(20)
        client.app.closing = True  # type: ignore[attr-defined]
        refused = client.post("/segment", content=picture())
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        door.set()
        assert under_way.result(20).status_code == 200


def test_beyond_the_queue_the_answer_is_429_and_it_recovers() -> None:
    model, door = served(), threading.Event()
    model.model.wait = lambda: door.wait(20)  # type: ignore[union-attr]
    with client_of(model, settings=limited(waiting=2)) as client, ThreadPoolExecutor(10) as pool:
        waiting = [pool.submit(client.post, "/segment", content=picture()) for _ in range(10)]
        while sum(future.done() for future in waiting) < 6:
            time.sleep(0.01)
        door.set()
        answers = [future.result(20) for future in waiting]
        assert sorted(answer.status_code for answer in answers) == [200] * 4 + [429] * 6
        busy = next(answer for answer in answers if answer.status_code == 429)
        assert int(busy.headers["retry-after"]) >= 1
        assert client.post("/segment", content=picture()).status_code == 200


def test_what_is_not_begun_in_time_is_dropped() -> None:
    model, door = served(), threading.Event()
    model.model.wait = lambda: door.wait(20)  # type: ignore[union-attr]
    with client_of(model, settings=limited(seconds=0.2)) as client:
        late = client.post("/segment", content=picture())
        door.set()
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        assert "was not segmented within 0.2 s" in late.json()["detail"]
        assert 'atrous_dropped_total{reason="late"} 1.0' in client.get("/metrics").text


def test_images_of_one_size_run_together_where_that_pays() -> None:
    model, fast = served(), FastTogether()
    model._predictors[1] = fast  # type: ignore[assignment]
    with client_of(model, settings=limited(window=0.2)) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/segment", content=picture()), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(fast.together) == 8
    assert max(fast.together) > 1


def test_uploads_share_a_bounded_memory() -> None:
    with client_of(settings=limited(bodies=1000)) as client:
        full = client.post("/segment", content=b"\0" * 2000)
        assert full.status_code == 429
        assert client.post("/segment", content=picture()).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    def slowly() -> object:
        yield b"x"
        time.sleep(0.5)
        yield b"y"

    with client_of(settings=limited(reading=0.1)) as client:
        assert client.post("/segment", content=slowly()).status_code in (200, 408, 415)
