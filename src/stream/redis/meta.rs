//! What the scripts answer, read.

use std::collections::HashMap;

use bytes::Bytes;
use redis::Value;

use super::Unavailable;
use crate::stream::kind::Kind;
use crate::stream::lifetime::Lifetime;
use crate::stream::log::Record;

/// What Redis knows of a stream beside its log.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) id: u64,
    pub(super) kind: Kind,
    pub(super) epoch: u64,
    pub(super) lifetime: Lifetime,
    pub(super) owner: Option<Box<str>>,
    /// The stream that it goes on from, where, and how many forks that makes.
    pub(super) base: Option<(Box<str>, u64, u32)>,
    pub(super) start: u64,
    pub(super) tail: u64,
    pub(super) lost: u64,
    pub(super) closed: bool,
    /// It was deleted, and is kept for its forks.
    pub(super) hidden: bool,
    pub(super) forks: usize,
}

/// A stream, as far as it was asked for.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) meta: Meta,
    pub(super) records: Vec<Record>,
    /// There are more records.
    pub(super) more: bool,
    /// The last place in the order of all appends that was given away.
    pub(super) order: u64,
}

/// Something that no script of ours answers.
pub(super) fn garbled(what: &str) -> Unavailable {
    Unavailable { unknown: true, why: format!("its answer cannot be understood: {what}").into() }
}

/// The text of a value.
pub(super) fn text(value: Option<&Value>) -> &str {
    match value {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).unwrap_or_default(),
        Some(Value::SimpleString(text)) => text,
        _ => "",
    }
}

/// The number in the text of a value.
pub(super) fn number(value: Option<&Value>) -> Result<u64, Unavailable> {
    match value {
        Some(Value::Int(number)) => u64::try_from(*number).map_err(|_| garbled("a negative number")),
        other => text(other).parse().map_err(|_| garbled("a number is missing")),
    }
}

/// Reads what `read.lua` answers; `None` if there is no such stream.
pub(super) fn snapshot(answer: Vec<Value>) -> Result<Option<Snapshot>, Unavailable> {
    let mut answer = answer.into_iter();
    let word = answer.next();
    if text(word.as_ref()) == "missing" {
        return Ok(None);
    }
    let (Some(Value::Array(meta)), Some(Value::Array(entries)), Some(more), order) =
        (answer.next(), answer.next(), answer.next(), answer.next())
    else {
        return Err(garbled("a stream is incomplete"));
    };
    let records = entries.into_iter().map(record).collect::<Result<_, _>>()?;
    Ok(Some(Snapshot {
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
pub(super) fn payloads(answer: Value) -> Result<HashMap<u64, Bytes>, Unavailable> {
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
pub(super) fn pack(ends: &[u32]) -> Vec<u8> {
    ends.iter().flat_map(|end| end.to_le_bytes()).collect()
}

fn unpack(bytes: &[u8]) -> Box<[u32]> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}
