use proptest::prelude::*;

use super::*;
use crate::streams::fanout::events::tests::written;
use crate::streams::log::Source;

/// Records as readers get them, each with a name or without, cut after so many bytes.
fn pieces(records: &[(&[u8], &[u32], Option<&str>)], from: u64, most: u64) -> (Vec<Piece>, Vec<Bytes>) {
    let (mut start, mut left) = (0, most);
    let mut pieces = Vec::new();
    for (order, (bytes, ends, event)) in records.iter().enumerate() {
        let (begin, record_end) = (start, start + bytes.len() as u64);
        start = record_end;
        let (start, end) = (begin.max(from), record_end.min(begin.max(from) + left));
        if end <= start {
            continue;
        }
        left -= end - start;
        let all: Vec<u64> = ends.iter().map(|&end| begin + u64::from(end)).collect();
        let message_end = all.iter().copied().find(|&at| at >= end).unwrap_or(record_end);
        let ends = all.iter().filter(|&&at| at > start && at <= end).map(|&at| (at - start) as u32).collect();
        let bytes = Bytes::copy_from_slice(&bytes[(start - begin) as usize..(end - begin) as usize]);
        let (event, source) = (event.map(Into::into), Source::Here(bytes.clone()));
        let piece = Piece {
            start,
            end,
            order: order as u64 + 1,
            event,
            ends,
            record_start: begin,
            message_end,
            record_end,
            source,
        };
        pieces.push((piece, bytes));
    }
    pieces.into_iter().unzip()
}

/// All that a reader from `at` on is told, in steps that read so much.
fn told(view: View, form: Form, records: &[(&[u8], &[u32], Option<&str>)], mut at: u64, most: u64) -> String {
    let all = records.iter().map(|(bytes, ..)| *bytes).collect::<Vec<_>>().concat();
    let (mut begun, mut text) = (None, String::new());
    while at < all.len() as u64 {
        let until = begun.map_or(u64::MAX, |begun: Begun| begun.until);
        let (pieces, bytes) = pieces(records, at, most.min(until - at));
        let before = Before::of(&all[..at as usize]);
        let batch = Batch { view, form, epoch: 1, pieces: &pieces, bytes: &bytes, at, before, closed: false };
        let mut events = Events::default();
        let step = events.render(&batch, begun);
        assert!(step.next > at, "a step gets on");
        (at, begun) = (step.next, step.begun);
        text += &written(events);
    }
    assert_eq!(begun, None);
    text
}

#[test]
fn a_part_is_one_event_for_the_protocol_and_one_a_record_for_a_browser() {
    let records: [(&[u8], &[u32], Option<&str>); 2] =
        [(b"1,{\"a\":\n2},", &[2, 11], Some("chat")), (b"3,", &[2], None)];
    let id = "id: 0000000000000001-000000000000000000";
    for most in 4..20 {
        let all = told(View::EventSource, Form::Json, &records, 0, most);
        let first = format!("event: chat\n{id}02\ndata:1\n\n");
        let second = format!("event: chat\n{id}11\ndata:{{\"a\":\ndata:2}}\n\n");
        let third = format!("{id}13\ndata:[3]\n\n");
        assert_eq!(all, [first, second, third].concat());
    }
    let all = told(View::Protocol, Form::Json, &records, 0, 20);
    assert_eq!(all, format!("event: data\n{id}13\ndata:[1,{{\"a\":\ndata:2}},3]\n\n"));
}

#[test]
fn no_line_of_the_data_is_a_field() {
    let text = told(View::Protocol, Form::Text, &[(b"a\r\nid: 7\revent: x\n\n", &[], None)], 0, 100);
    assert!(text.ends_with("data:a\ndata:id: 7\ndata:event: x\ndata:\ndata:\n\n"), "{text}");
}

/// The data of events, one after the other, as a browser has it.
fn data(events: &str) -> String {
    let one = |event: &str| {
        let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
        lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
    };
    events.split_terminator("\n\n").map(one).collect()
}

proptest! {
    /// However text was divided into appends and is read, and wherever a reader begins between them: whole characters arrive
    /// whole, and each line end as one.
    #[test]
    fn text_is_whole_however_it_was_divided(
        text in "[a\u{e4}\u{20ac}\u{1f600}\r\n ]{0,24}", cuts in prop::collection::vec(0..60_usize, 0..8),
        most in 4..40_u64, from in 0..9_usize, is_named: bool,
    ) {
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        let event = is_named.then_some("x");
        let records: Vec<_> = cuts.windows(2).map(|cut| (&bytes[cut[0]..cut[1]], &[][..], event)).collect();
        let from = cuts[from % cuts.len()];
        let begun = text::incomplete(&bytes[..from]);
        let mut meant = &text[from - begun..];
        if bytes[..from].ends_with(b"\r") {
            meant = meant.strip_prefix('\n').unwrap_or(meant);
        }
        let meant = meant.replace("\r\n", "\n").replace('\r', "\n");
        for view in [View::EventSource, View::Protocol] {
            prop_assert_eq!(data(&told(view, Form::Text, &records, from as u64, most)), meant.clone());
        }
    }

    #[test]
    fn bytes_are_whole_however_they_are_read(sizes in prop::collection::vec(1..30_usize, 1..5), most in 4..40_u64) {
        let all: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|n| (n as u8).wrapping_mul(37)).collect();
        let mut rest = &all[..];
        let records: Vec<_> = sizes.iter().map(|&size| {
            let (record, after) = rest.split_at(size);
            rest = after;
            (record, &[][..], None)
        }).collect();
        for view in [View::EventSource, View::Protocol] {
            let events = told(view, Form::Binary, &records, 0, most);
            let parts = events.split_terminator("\n\n").map(|event| base64::Engine::decode(
                &base64::engine::general_purpose::STANDARD, data(event)).expect("base64"));
            prop_assert_eq!(parts.flatten().collect::<Vec<u8>>(), all.clone());
        }
    }
}

/// An append of lines of nothing is six times as long when it is told, and so is a string of what has to be escaped.
#[test]
fn a_step_is_short_whatever_it_tells() {
    for (form, text) in [(Form::Text, "\n".repeat(1 << 16)), (Form::Binary, "x".repeat(1 << 16))] {
        let bytes = Bytes::from(text);
        let (pieces, parts) = pieces(&[(&bytes, &[], None)], 0, PART_BYTES);
        let mut events = Events::default();
        let (view, before) = (View::EventSource, Before::default());
        let batch =
            Batch { view, form, epoch: 1, pieces: &pieces, bytes: &parts, at: 0, before, closed: false };
        let step = events.render(&batch, None);
        assert!(step.begun.is_some() && events.len() <= STEP_BYTES_MAX + 100, "{}", events.len());
    }
}
