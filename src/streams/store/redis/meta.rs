//! What the scripts answer, read.

use std::collections::HashMap;

use bytes::Bytes;
use redis::Value;

use super::Unavailable;
use crate::streams::log::Record;
use crate::streams::model::kind::Kind;
use crate::streams::model::lifetime::Lifetime;

/// What Redis knows of a stream beside its log.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    pub(crate) epoch: u64,
    pub(crate) lifetime: Lifetime,
    pub(crate) owner: Option<Box<str>>,
    /// It is a kept response.
    pub(crate) generated: bool,
    /// A client has closed it while its response was still being made.
    pub(crate) stopped: bool,
    /// The stream that it goes on from, where, and how many forks that makes.
    pub(crate) base: Option<(Box<str>, u64, u32)>,
    pub(crate) start: u64,
    pub(crate) tail: u64,
    pub(crate) lost: u64,
    pub(crate) closed: bool,
    /// It was deleted, and is kept for its forks.
    pub(crate) hidden: bool,
    pub(crate) forks: usize,
}

/// A stream, as far as it was asked for.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) meta: Meta,
    pub(crate) records: Vec<Record>,
    /// There are more records.
    pub(crate) more: bool,
    /// The last place in the order of all appends that was given away.
    pub(crate) order: u64,
}

/// Something that no script of ours answers.
pub(crate) fn garbled(what: &str) -> Unavailable {
    Unavailable { unknown: true, full: false, why: format!("its answer cannot be understood: {what}").into() }
}

/// The text of a value.
pub(crate) fn text(value: Option<&Value>) -> &str {
    match value {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).unwrap_or_default(),
        Some(Value::SimpleString(text)) => text,
        _ => "",
    }
}

/// The number in the text of a value.
pub(crate) fn number(value: Option<&Value>) -> Result<u64, Unavailable> {
    match value {
        Some(Value::Int(number)) => u64::try_from(*number).map_err(|_| garbled("a negative number")),
        other => text(other).parse().map_err(|_| garbled("a number is missing")),
    }
}

/// What there is under a name.
#[derive(Debug)]
pub(crate) enum Told {
    /// Nothing.
    Missing,
    /// A stream, but not the one that was known, or another log.
    Other,
    /// What was not known of it yet.
    More(Snapshot),
}

/// Reads what `read.lua` answers.
pub(crate) fn told(answer: Vec<Value>) -> Result<Told, Unavailable> {
    let mut answer = answer.into_iter();
    match text(answer.next().as_ref()) {
        "missing" => return Ok(Told::Missing),
        "other" => return Ok(Told::Other),
        _ => {}
    }
    let (Some(Value::Array(meta)), Some(Value::Array(entries)), Some(more), order) =
        (answer.next(), answer.next(), answer.next(), answer.next())
    else {
        return Err(garbled("a stream is incomplete"));
    };
    let records = entries.into_iter().map(record).collect::<Result<_, _>>()?;
    Ok(Told::More(Snapshot {
        meta: read(&meta)?,
        records,
        more: text(Some(&more)) == "1",
        order: number(order.as_ref())?,
    }))
}

fn read(flat: &[Value]) -> Result<Meta, Unavailable> {
    let (pairs, _) = flat.as_chunks::<2>();
    let fields: HashMap<&str, &Value> = pairs.iter().map(|[name, value]| (text(Some(name)), value)).collect();
    let get = |name: &str| fields.get(name).copied();
    let whole = |name: &str| number(get(name));
    let some = |name: &str| get(name).map(|value| Box::from(text(Some(value))));
    let lifetime = match (get("ttl"), get("until")) {
        (Some(_), _) => Lifetime::Idle(whole("ttl")?),
        (None, Some(_)) => {
            Lifetime::Until { text: some("until_text").unwrap_or_default(), at: whole("until")? }
        }
        (None, None) => Lifetime::Unbounded,
    };
    let base = match some("base") {
        Some(source) => Some((source, whole("base_at")?, whole("depth")? as u32)),
        None => None,
    };
    Ok(Meta {
        id: whole("id")?,
        kind: Kind::new(text(get("kind"))).ok_or_else(|| garbled("a content type is missing"))?,
        epoch: u64::from_str_radix(text(get("epoch")), 16).map_err(|_| garbled("an epoch is missing"))?,
        lifetime,
        owner: some("owner"),
        generated: some("node").is_some_and(|node| !node.is_empty()),
        stopped: text(get("stopped")) == "1",
        base,
        start: whole("start")?,
        tail: whole("tail")?,
        lost: whole("lost")?,
        closed: text(get("closed")) == "1",
        hidden: text(get("presence")) == "h",
        forks: whole("forks")? as usize,
    })
}

fn record(entry: Value) -> Result<Record, Unavailable> {
    let (id, fields) = parts(entry)?;
    let end: u64 = id.split('-').next().and_then(|end| end.parse().ok()).ok_or_else(|| garbled("an id"))?;
    let mut record = Record {
        start: 0,
        end,
        order: 0,
        at: 0,
        event: None,
        ends: Box::default(),
        bytes: None,
        stored: None,
    };
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        match text(Some(&name)) {
            "b" => record.bytes = Some(bytes(value)),
            "o" => record.order = number(Some(&value))?,
            "t" => record.at = number(Some(&value))?,
            "n" => record.event = Some(text(Some(&value)).into()),
            "e" => record.ends = unpack(&bytes(value)),
            _ => {}
        }
    }
    let length = record.bytes.as_ref().map_or(0, Bytes::len) as u64;
    record.start = end.checked_sub(length).filter(|_| length > 0).ok_or_else(|| garbled("a record"))?;
    Ok(record)
}

/// The bytes of entries, by where they end.
pub(crate) fn payloads(answer: Value) -> Result<HashMap<u64, Bytes>, Unavailable> {
    let Value::Array(entries) = answer else { return Err(garbled("entries are missing")) };
    let records = entries.into_iter().map(record);
    records.map(|record| record.map(|record| (record.end, record.bytes.unwrap_or_default()))).collect()
}

fn parts(entry: Value) -> Result<(String, Vec<Value>), Unavailable> {
    if let Value::Array(parts) = entry {
        let mut parts = parts.into_iter();
        if let (Some(id), Some(Value::Array(fields))) = (parts.next(), parts.next()) {
            return Ok((text(Some(&id)).to_owned(), fields));
        }
    }
    Err(garbled("an entry"))
}

fn bytes(value: Value) -> Bytes {
    match value {
        Value::BulkString(bytes) => bytes.into(),
        _ => Bytes::new(),
    }
}

/// Where messages end, as it is kept: four bytes each, little-endian.
pub(crate) fn pack(ends: &[u32]) -> Vec<u8> {
    ends.iter().flat_map(|end| end.to_le_bytes()).collect()
}

fn unpack(bytes: &[u8]) -> Box<[u32]> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn words(words: &[&str]) -> Value {
        Value::Array(words.iter().map(|text| word(text)).collect())
    }

    #[test]
    fn a_stream_is_read_as_the_scripts_tell_it() {
        let meta = words(&[
            "id",
            "7",
            "kind",
            "application/json",
            "epoch",
            "00000000000000ab",
            "ttl",
            "60",
            "start",
            "4",
            "tail",
            "9",
            "lost",
            "2",
            "closed",
            "1",
            "presence",
            "p",
            "forks",
            "1",
            "base",
            "trunk",
            "base_at",
            "4",
            "depth",
            "2",
        ]);
        let fields = Value::Array(vec![
            word("b"),
            word("{1},2"),
            word("o"),
            word("3"),
            word("t"),
            word("1000"),
            word("e"),
            Value::BulkString(pack(&[4, 5])),
            word("n"),
            word("chat"),
        ]);
        let entry = Value::Array(vec![word("9-0"), fields]);
        let answer = vec![word("stream"), meta, Value::Array(vec![entry]), word("0"), word("12")];
        let Ok(Told::More(told)) = told(answer) else { panic!("no stream") };
        assert_eq!((told.meta.id, told.meta.epoch, told.meta.start, told.meta.tail), (7, 0xab, 4, 9));
        assert_eq!((told.meta.lifetime, told.meta.closed, told.meta.forks), (Lifetime::Idle(60), true, 1));
        assert_eq!((told.meta.base, told.more, told.order), (Some(("trunk".into(), 4, 2)), false, 12));
        let record = &told.records[0];
        assert_eq!((record.start, record.end, record.order, record.at), (4, 9, 3, 1000));
        assert_eq!((&*record.ends, record.event.as_deref()), (&[4, 5][..], Some("chat")));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let names =
            "id|kind|epoch|start|tail|lost|forks|b|o|t|e|n|stream|text/plain|[0-9]{1,20}|[0-9]-0|\\PC{0,4}";
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<i64>().prop_map(Value::Int),
            names.prop_map(|text| Value::BulkString(text.into_bytes())),
            prop::collection::vec(any::<u8>(), 0..6).prop_map(Value::BulkString),
        ];
        leaf.prop_recursive(4, 40, 10, |inner| prop::collection::vec(inner, 0..10).prop_map(Value::Array))
    }

    proptest! {
        /// Whatever holds these keys, it is an error at most.
        #[test]
        fn anything_is_read_without_harm(answer in prop::collection::vec(any_value(), 0..6), entries in any_value()) {
            let _ = told(answer);
            let _ = payloads(entries);
        }

        #[test]
        fn borders_are_read_as_they_were_written(ends in prop::collection::vec(any::<u32>(), 0..20)) {
            prop_assert_eq!(&*unpack(&pack(&ends)), &ends[..]);
        }
    }
}
