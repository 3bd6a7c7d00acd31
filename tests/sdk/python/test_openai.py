"""openai-python against the edge: everything an application does with it, and every way it is told of a failure."""

import asyncio
import threading

import httpx
import httpx2
import openai
import pytest
from conftest import KEY, PATIENCE, URL

MESSAGES = [{"role": "user", "content": "hi"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def chat(client, headers=None, **more):
    return client.chat.completions.create(model="sim", messages=MESSAGES, extra_headers=headers or {}, **more)


def text(chunks):
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_a_streamed_completion(client):
    headers = {"x-sim-events": "10", "x-sim-bytes": "5"}
    chunks = list(chat(client, headers, stream=True))
    assert len(text(chunks)) == 50
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert text(chat(client, headers, stream=True)) == text(chunks), "the same request has the same answer"


def test_a_plain_completion_says_the_same(client):
    headers = {"x-sim-events": "10", "x-sim-bytes": "5"}
    whole = chat(client, headers)
    assert whole.choices[0].message.content == text(chat(client, headers, stream=True))
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 0


def test_usage_comes_when_asked_for(client):
    *chunks, last = chat(client, stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage.completion_tokens > 0
    assert all(c.usage is None for c in chunks)
    assert all(c.usage is None for c in chat(client, stream=True))


def test_tool_calls(client):
    deltas = [d for c in chat(client, stream=True, tools=TOOLS) for d in (c.choices[0].delta.tool_calls or [])]
    assert deltas[0].id and deltas[0].function.name == "weather"
    arguments = "".join(d.function.arguments or "" for d in deltas)
    assert arguments.startswith("{") and arguments.endswith("}")


def test_a_streamed_response(client):
    events = list(client.responses.create(model="sim", input="hi", stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    deltas = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert deltas and events[-1].response.output_text == deltas
    assert [e.sequence_number for e in events] == list(range(len(events)))


def test_a_response_that_was_lost_is_taken_up_again(client):
    headers = {"sedge-durable": "true", "x-sim-events": "12", "x-sim-interval-ms": "20"}
    seen = []
    with client.responses.create(model="sim", input="lost in the middle", stream=True, extra_headers=headers) as stream:
        for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
    # The connection is gone, and the answer goes on.
    response = seen[0].response.id
    rest = client.responses.retrieve(response, stream=True, starting_after=seen[-1].sequence_number)
    seen += list(rest)
    assert [e.sequence_number for e in seen] == list(range(len(seen)))
    assert seen[-1].type == "response.completed"
    deltas = "".join(e.delta for e in seen if e.type == "response.output_text.delta")
    assert seen[-1].response.output_text == deltas
    again = list(client.responses.retrieve(response, stream=True))
    assert [e.to_json() for e in again] == [e.to_json() for e in seen]


def test_a_completion_that_was_kept_is_read_by_its_location(client):
    headers = {"sedge-durable": "true", "x-sim-events": "9"}
    raw = client.chat.completions.with_raw_response.create(
        model="sim", messages=MESSAGES, stream=True, extra_headers=headers
    )
    chunks = list(raw.parse())
    location = f"{URL}{raw.headers['location']}"
    live = client.get(location, cast_to=openai.types.chat.ChatCompletionChunk, stream=True,
                      stream_cls=openai.Stream[openai.types.chat.ChatCompletionChunk])
    assert text(list(live)) == text(chunks)
    # As a browser asks for it: with ids, which this client keeps and must not stumble over.
    live = client.get(location, cast_to=openai.types.chat.ChatCompletionChunk, stream=True,
                      options={"headers": {"accept": "text/event-stream"}},
                      stream_cls=openai.Stream[openai.types.chat.ChatCompletionChunk])
    assert text(list(live)) == text(chunks)


def test_embeddings(client):
    answer = client.embeddings.create(model="sim", input=["a", "b"])
    assert [d.index for d in answer.data] == [0, 1]
    assert all(isinstance(x, float) for d in answer.data for x in d.embedding)


def test_models(client):
    models = list(client.models.list())
    assert models and all(m.id and m.object == "model" for m in models)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
def test_an_error_raises_its_class(client, status, error, stream):
    with pytest.raises(error) as caught:
        chat(client, {"x-sim-status": str(status)}, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.request_id, "request_id comes from x-request-id"
    assert set(caught.value.body) == {"message", "type", "param", "code"}


def test_an_error_of_the_edge_has_the_same_shape(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.with_options(base_url=f"{URL}/nowhere").models.list()
    assert caught.value.request_id
    assert set(caught.value.body) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_cut_upstream_raises(client, after):
    chunks = []
    with pytest.raises(openai.APIError):
        for chunk in chat(client, {"x-sim-cut-after": str(after)}, stream=True):
            chunks.append(chunk)
    assert len(chunks) <= after
    assert all(c.choices[0].finish_reason is None for c in chunks)


def test_a_cut_stream_looks_unfinished_to_httpx():
    """A client without an SDK's error events must see it too: the body has no last chunk."""
    request = {"model": "sim", "messages": MESSAGES, "stream": True}
    received = b""
    with pytest.raises(httpx.RemoteProtocolError):
        headers = {"x-sim-cut-after": "3"}
        with httpx.stream("POST", f"{URL}/v1/chat/completions", json=request, headers=headers, timeout=PATIENCE) as answer:
            for part in answer.iter_bytes():
                received += part
    assert b"[DONE]" not in received and b'"error"' in received


def test_a_cancelled_stream_frees_the_client(client):
    stream = chat(client, {"x-sim-events": "100000", "x-sim-interval-ms": "1"}, stream=True)
    for _ in range(3):
        next(stream)
    stream.close()
    assert text(chat(client, {"x-sim-events": "1"}, stream=True))


def test_many_requests_on_one_connection(client):
    for _ in range(50):
        assert text(chat(client, {"x-sim-events": "2"}, stream=True))


def test_two_hundred_streams_at_once():
    async def one(client, number):
        headers = {"x-sim-events": "20", "x-sim-bytes": str(number % 7 + 1), "x-sim-interval-ms": "5"}
        stream = await client.chat.completions.create(
            model="sim", messages=MESSAGES, stream=True, extra_headers=headers
        )
        length, finish = 0, None
        async for chunk in stream:
            length += len(chunk.choices[0].delta.content or "")
            finish = chunk.choices[0].finish_reason or finish
        return length, finish

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE) as client:
            return await asyncio.gather(*(one(client, n) for n in range(200)))

    results = asyncio.run(all_of_them())
    assert results == [(20 * (n % 7 + 1), "stop") for n in range(200)]


CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
)
HEARTBEATS = """
heartbeat = "100ms"

[[upstream]]
url = "{upstream}"
"""


def test_heartbeats_after_ids_do_not_disturb_the_decoder(edge_before):
    """openai-python keeps the last `id:` for good and then takes any block without data for JSON.

    The bytes are recorded from the edge, where it can be seen that heartbeats came, and then read by the SDK.
    """
    seen = threading.Event()

    def script():
        yield b"id: 1\n" + CHUNK
        assert seen.wait(PATIENCE), "no heartbeat came"
        yield b"id: 2\n" + CHUNK
        yield b"data: [DONE]\n\n"

    url = edge_before(script, HEARTBEATS)
    recorded = b""
    request = {"model": "m", "messages": MESSAGES, "stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=request, timeout=PATIENCE) as answer:
        for part in answer.iter_bytes():
            recorded += part
            if recorded.endswith(b":\n:\n"):
                seen.set()
    assert b":\n:\n" in recorded

    def replay(_):
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=recorded)

    transport = httpx2.Client(transport=httpx2.MockTransport(replay))
    with openai.OpenAI(base_url="http://recorded/v1", api_key=KEY, max_retries=0, http_client=transport) as client:
        assert text(chat(client, stream=True)) == "xx"


LIMITED = """
[[upstream]]
name = "scripted"
url = "{upstream}"

[[route]]
limits = {{ requests_per_minute = 12 }}
"""


def test_a_limit_of_ours_is_waited_for(edge_before):
    """Twelve at once use up the minute; then one is earned every five seconds, and the SDK comes again when it was told to.

    A machine that is busy may take longer for a request than the next one takes to be earned: the limit is used up by as many
    requests as that takes, and once more when one was earned before the patient client came.
    """
    url = edge_before(lambda: iter([CHUNK, b"data: [DONE]\n\n"]), LIMITED)

    def used_up():
        """Asks without patience until it is refused; gives back how often it was not."""
        with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as impatient:
            for served in range(1000):
                try:
                    assert text(chat(impatient, stream=True)) == "x"
                except openai.RateLimitError as refused:
                    assert refused.code == "rate_limit_exceeded"
                    assert 0 < int(refused.response.headers["retry-after-ms"]) <= 5000
                    return served
        raise AssertionError("a thousand requests, and none was refused")

    assert used_up() >= 12
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=2) as patient:
        for _ in range(100):
            answer = patient.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, stream=True)
            assert text(answer.parse()) == "x"
            if answer.retries_taken:
                break
            used_up()
        # By itself the SDK waits for a second and a half in two retries: without our word it would have given up.
        assert answer.retries_taken == 1


def test_a_batch_is_read_to_its_end(client):
    """Whatever becomes of one request, the SDK must not take it for the end of all of them."""
    ok = {"body": {"model": "sim", "messages": MESSAGES, "stream": True}}
    lines = [ok, {"url": "/v1/unknown", "body": {}}, {"url": "/v1/embeddings", "body": {"model": "sim", "input": "a"}}, ok]
    events = client.post(
        "/sedge/batch", body={"requests": lines}, cast_to=object, stream=True, stream_cls=openai.Stream[object]
    )
    events = list(events)
    outcomes = {event["outcome"]["index"]: event["outcome"] for event in events if "outcome" in event}
    assert {index: outcome["status"] for index, outcome in outcomes.items()} == {0: 200, 1: 404, 2: 200, 3: 200}
    assert outcomes[1]["error"]["code"] == "unknown_url"
    assert sum("choices" in event for event in events) > 4
    assert sum(event.get("object") == "list" for event in events) == 1
