"""anthropic-python against the edge: every way an application is told of a failure on `/v1/messages`.

Each must raise what the SDK has for it, and never a bare error of the transport, which no application expects in the middle of a
stream.
"""

import anthropic
import pytest

MESSAGES = [{"role": "user", "content": "hi"}]

START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",'
    b'"model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
)
BLOCK = b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
WORD = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}\n\n'
BLOCK_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
DELTA = (
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    b'"usage":{"output_tokens":2}}\n\n'
)
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
WHOLE = [START, BLOCK, WORD, BLOCK_STOP, DELTA, STOP]

PLAIN = """
[[upstream]]
name = "scripted"
url = "{upstream}"

[[route]]
models = ["m"]
timeouts = {{ idle = "500ms" }}
"""


def client_of(url, key="sk-test"):
    return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=30)


def stream(client, model="m"):
    return client.messages.create(model=model, max_tokens=16, messages=MESSAGES, stream=True)


def test_a_stream_is_read_to_its_end(edge_before):
    with client_of(edge_before(lambda: iter(WHOLE), PLAIN)) as client:
        assert [e.type for e in stream(client)][-1] == "message_stop"
        with client.messages.stream(model="m", max_tokens=16, messages=MESSAGES) as events:
            assert events.get_final_text() == "x"


@pytest.mark.parametrize("cut", [True, False], ids=["a break", "a tidy end"])
@pytest.mark.parametrize("events", [1, 3, 4])
def test_a_cut_stream_raises(edge_before, events, cut):
    """Whether the connection breaks or a last chunk pretends that all is well."""

    def script():
        yield from WHOLE[:events]
        if cut:
            yield None

    seen = []
    with client_of(edge_before(script, PLAIN)) as client:
        with pytest.raises(anthropic.APIStatusError) as raised:
            for event in stream(client):
                seen.append(event.type)
    assert len(seen) == events
    assert raised.value.type == "api_error"
    assert raised.value.error_code in ("upstream_closed", "upstream_unfinished")
    assert raised.value.api_message


def test_silence_raises(edge_before):
    def script():
        yield START
        yield 3.0

    with client_of(edge_before(script, PLAIN)) as client:
        with pytest.raises(anthropic.APIStatusError) as raised:
            list(stream(client))
    assert raised.value.type == "timeout_error"
    assert raised.value.error_code == "upstream_idle_timeout"


def test_an_error_event_of_the_upstream_is_passed_on(edge_before):
    error = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    with client_of(edge_before(lambda: iter([START, error]), PLAIN)) as client:
        with pytest.raises(anthropic.APIStatusError) as raised:
            list(stream(client))
    assert raised.value.type == "overloaded_error" and raised.value.api_message == "Overloaded"


def test_an_overloaded_upstream_is_passed_on(edge_before):
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    with client_of(edge_before(lambda: iter([body]), PLAIN, status=529)) as client:
        with pytest.raises(anthropic.OverloadedError) as raised:
            stream(client)
    assert raised.value.type == "overloaded_error"


def test_a_model_that_is_not_there(edge_before):
    with client_of(edge_before(lambda: iter(WHOLE), PLAIN)) as client:
        with pytest.raises(anthropic.NotFoundError) as raised:
            stream(client, model="other")
    assert raised.value.type == "not_found_error" and raised.value.error_code == "model_not_found"
    assert raised.value.request_id and raised.value.body["request_id"] == raised.value.request_id


def test_a_key_that_is_not_known(edge_before):
    keys = PLAIN + '\n[[key]]\nname = "k"\nsha256 = "' + "0" * 64 + '"\n'
    with client_of(edge_before(lambda: iter(WHOLE), keys)) as client:
        with pytest.raises(anthropic.AuthenticationError) as raised:
            stream(client)
    assert raised.value.type == "authentication_error" and raised.value.request_id


def test_a_limit_that_is_used_up(edge_before):
    limits = PLAIN + "limits = {{ requests_per_minute = 1 }}\n"
    with client_of(edge_before(lambda: iter(WHOLE), limits)) as client:
        list(stream(client))
        with pytest.raises(anthropic.RateLimitError) as raised:
            stream(client)
    assert raised.value.type == "rate_limit_error"
    assert float(raised.value.response.headers["retry-after"]) > 0


def test_an_upstream_that_is_not_there(edge_before):
    nobody = PLAIN.replace("{upstream}", "http://127.0.0.1:1")
    with client_of(edge_before(lambda: iter(WHOLE), nobody)) as client:
        with pytest.raises(anthropic.InternalServerError) as raised:
            stream(client)
    assert raised.value.status_code == 502 and raised.value.type == "api_error"
