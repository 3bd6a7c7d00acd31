"""The official Python client against the edge at SEDGE_URL; SEDGE_KEY, if there is one, is the key that opens it.

The client of this version has no words of its own for producers, closing and forks: it sends the fields that it is given.
"""

import asyncio
import os
import re
import socket
import threading
import uuid

import httpx
import pytest
from durable_streams import (
    DurableStream,
    DurableStreamError,
    SeqConflictError,
    StreamExistsError,
    StreamNotFoundError,
    astream,
    stream,
)

URL = os.environ["SEDGE_URL"].rstrip("/")
KEY = os.environ.get("SEDGE_KEY")
HEADERS = {"Authorization": f"Bearer {KEY}"} if KEY else {}


def name(what):
    return f"{URL}/v1/stream/py-{what}-{uuid.uuid4()}"


def create(what, content_type="application/json", headers=None, **more):
    handle = DurableStream.create(
        name(what), content_type=content_type, headers=HEADERS | (headers or {}), **more
    )
    # Without the fields that were meant for its creation alone.
    return DurableStream(handle.url, content_type=content_type, headers=HEADERS)


def post(handle, body=b"", **fields):
    fields = {name.replace("_", "-"): value for name, value in fields.items()}
    return httpx.post(handle.url, content=body, headers=HEADERS | {"content-type": handle.content_type} | fields)


def messages(handle, **options):
    with handle.stream(live=False, **options) as response:
        return response.read_json()


class Cutting:
    """A proxy that cuts each connection after so many bytes of the answers, another number each time."""

    def __init__(self, least, spread):
        self.least, self.spread, self.cuts = least, spread, 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.server.accept()
            at = httpx.URL(URL)
            upstream = socket.create_connection((at.host, at.port))
            threading.Thread(target=self.pump, args=(client, upstream, None), daemon=True).start()
            left = self.least + self.cuts * 3_889 % self.spread
            threading.Thread(target=self.pump, args=(upstream, client, left), daemon=True).start()

    def pump(self, source, sink, left):
        try:
            while data := source.recv(4096 if left is None else min(left, 4096)):
                sink.sendall(data)
                if left is not None:
                    left -= len(data)
                    if left == 0:
                        self.cuts += 1
                        break
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def test_created_appended_read_deleted():
    handle = create("plain", "text/plain")
    with pytest.raises(StreamExistsError):
        DurableStream.create(handle.url, content_type="text/html", headers=HEADERS)
    first = handle.append("one ").next_offset
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", first)
    assert handle.append("two").next_offset > first
    with stream(handle.url, headers=HEADERS, live=False) as response:
        assert response.read_text() == "one two"
    with stream(handle.url, headers=HEADERS, live=False, offset=first) as response:
        assert response.read_bytes() == b"two"
    assert handle.head().content_type == "text/plain"
    handle.delete()
    with pytest.raises(StreamNotFoundError):
        handle.head()


def test_bytes_come_back_as_they_are():
    handle = create("bytes", "application/octet-stream")
    data = bytes(range(256)) * 300
    handle.append(data)
    with stream(handle.url, headers=HEADERS, live=False) as response:
        assert response.read_bytes() == data


def test_json_messages_keep_their_edges():
    handle = create("json")
    assert messages(handle) == []
    sent = [{"n": 1}, [1, [2]], "äöü 🌊", None, 1.5]
    for message in sent:
        handle.append(message)
    assert messages(handle) == sent


def test_sequence_numbers_of_writers():
    handle = create("seq")
    handle.append({"n": 1}, seq="a-002")
    with pytest.raises(SeqConflictError):
        handle.append({"n": 2}, seq="a-001")
    assert messages(handle) == [{"n": 1}]


def test_a_producer_whose_connections_are_cut():
    handle = create("producer")
    proxy = Cutting(1, 1_500)
    number = 0
    fields = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": lambda: str(number)}
    through = DurableStream(
        handle.url.replace(URL, proxy.url),
        content_type="application/json",
        headers=HEADERS | fields,
        batching=False,
    )
    for number in range(60):
        while True:
            try:
                through.append({"n": number})
                break
            except httpx.TransportError:
                continue
    assert messages(handle) == [{"n": n} for n in range(60)]
    assert proxy.cuts > 5


@pytest.mark.parametrize("live", ["long-poll", "sse"])
def test_followed_while_it_grows(live):
    handle = create("live")
    handle.append(0)
    got = []
    with handle.stream(live=live, offset="-1") as response:
        for number in response.iter_json():
            got.append(number)
            if len(got) == 30:
                break
            # The next one only when this one has come: whatever is kept back stops the test.
            handle.append(len(got))
    assert got == list(range(30))


@pytest.mark.parametrize("live", ["long-poll", "sse"])
def test_resumed_after_cuts_in_the_middle_of_events(live):
    handle = create("cut")
    proxy = Cutting(700, 20_000)
    sent = [{"n": n, "pad": "x" * (n % 97)} for n in range(200)]

    def publish():
        for message in sent:
            handle.append(message)

    publisher = threading.Thread(target=publish)
    publisher.start()
    got, offset = [], "-1"
    while len(got) < len(sent):
        try:
            with stream(handle.url.replace(URL, proxy.url), headers=HEADERS, live=live, offset=offset) as response:
                for event in response.iter_events(mode="json"):
                    got.extend(event.data)
                    offset = event.next_offset
                    if len(got) >= len(sent):
                        break
        except (httpx.TransportError, DurableStreamError):
            continue
    publisher.join()
    assert got == sent
    assert proxy.cuts >= 2


def test_closed_is_closed():
    handle = create("closed", "text/plain")
    handle.append("the end")
    assert post(handle, stream_closed="true").status_code == 204
    refused = post(handle, b"more")
    assert (refused.status_code, refused.headers["stream-closed"]) == (409, "true")
    with stream(handle.url, headers=HEADERS, live="sse", offset="-1") as response:
        assert "".join(response.iter_text()) == "the end"


def test_a_fork_goes_its_own_way():
    source = create("source")
    offset = source.append({"n": 1}).next_offset
    source.append({"n": 2})
    path = httpx.URL(source.url).path
    fork = create("fork", headers={"Stream-Forked-From": path, "Stream-Fork-Offset": offset})
    fork.append({"n": 3})
    assert messages(fork) == [{"n": 1}, {"n": 3}]
    assert messages(source) == [{"n": 1}, {"n": 2}]


def test_async():
    handle = create("async")
    handle.append({"n": 1})

    async def follow():
        got = []
        async with astream(handle.url, headers=HEADERS, live="sse", offset="-1") as response:
            async for message in response.iter_json():
                got.append(message)
                if len(got) == 2:
                    return got
                await asyncio.to_thread(handle.append, {"n": 2})

    assert asyncio.run(follow()) == [{"n": 1}, {"n": 2}]


@pytest.mark.skipif(not KEY, reason="the edge has no keys")
def test_without_its_key_nobody_gets_in():
    handle = create("locked")
    for attempt in (
        lambda: DurableStream.create(name("locked"), content_type="text/plain"),
        lambda: DurableStream(handle.url, content_type="application/json").append({"n": 1}),
        lambda: stream(handle.url, live=False),
        lambda: DurableStream(handle.url).head(),
        lambda: DurableStream(handle.url).delete(),
    ):
        with pytest.raises(DurableStreamError) as refused:
            attempt()
        assert refused.value.status == 401
