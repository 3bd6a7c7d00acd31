//! The answer to several requests in one, as its client sees it: one event at a time.

use std::collections::VecDeque;

use serde_json::Value;

use super::{Edge, Head, Wire, post};

/// Where a batch is sent.
pub const PATH: &str = "/v1/sedge/batch";

/// A batch's answer, event by event.
pub struct Reader {
    /// The connection it comes on.
    pub client: Wire,
    text: String,
    events: VecDeque<(String, String)>,
}

impl Reader {
    #[track_caller]
    pub fn begin(edge: &Edge, batch: &Value) -> (Reader, Head) {
        let mut client = edge.connect();
        client.send(post(PATH, &[], &batch.to_string()));
        Reader::of(client)
    }

    #[track_caller]
    pub fn of(mut client: Wire) -> (Reader, Head) {
        let head = client.read_head();
        (Reader { client, text: String::new(), events: VecDeque::new() }, head)
    }

    /// The next event: its name and its data.
    #[track_caller]
    pub fn next(&mut self) -> (String, String) {
        while self.events.is_empty() {
            let read = self.client.read_chunk();
            self.text += std::str::from_utf8(&read).expect("UTF-8");
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let values: Vec<_> = event.lines().filter_map(|line| line.strip_prefix(name)).collect();
                    values.join("\n")
                };
                self.events.push_back((field("event: "), field("data: ")));
                self.text = rest.to_owned();
            }
        }
        self.events.pop_front().expect("an event")
    }

    #[track_caller]
    pub fn expect(&mut self, name: &str, data: &str) {
        assert_eq!(self.next(), (name.to_owned(), data.to_owned()));
    }

    /// The next event is an outcome; its index, status, and error's code.
    #[track_caller]
    pub fn outcome(&mut self) -> (u64, Option<u64>, Option<String>) {
        let (name, data) = self.next();
        assert_eq!(name, "outcome", "{data}");
        let told = told(&data);
        let code = told["error"]["code"].as_str().map(str::to_owned);
        (told["index"].as_u64().expect("an index"), told["status"].as_u64(), code)
    }

    #[track_caller]
    pub fn done(mut self) -> Wire {
        self.expect("", "[DONE]");
        self.client.read_last_chunk();
        self.client
    }
}

/// What an outcome tells.
#[track_caller]
pub fn told(data: &str) -> Value {
    let mut event: Value = serde_json::from_str(data).expect("JSON");
    assert!(event.get("error").is_none(), "{event}");
    event["outcome"].take()
}
