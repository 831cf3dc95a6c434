#![allow(clippy::unwrap_used, clippy::panic)]

use audit::codes;
use proptest::prelude::*;
use wire::events::{Exec, SessionPrint, one_of::Event};

use super::*;
use crate::PartWriter;

fn print(index: i64, data: &[u8]) -> OneOf {
    let mut event = codes::SESSION_PRINT.event(SessionPrint { data: data.to_vec(), ..Default::default() });
    event.metadata_mut().unwrap().index = index;
    event
}

fn part(events: &[OneOf], least: usize) -> Vec<u8> {
    let mut writer = PartWriter::new();
    for event in events {
        writer.push(event).unwrap();
    }
    writer.take(least).unwrap()
}

fn read(bytes: &[u8]) -> (Vec<OneOf>, Option<FormatError>) {
    let mut reader = StreamReader::new(bytes);
    let mut events = Vec::new();
    loop {
        match reader.next_event() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, None),
            Err(e) => return (events, Some(e)),
        }
    }
}

/// Made with Python from the description of the format: `gzip.compress(record * n, 1)` and `struct.pack(">QQQ", …)`;
/// two parts, the first padded to 160 bytes, with a print "hi" (`ei` 0), a print "you" (`ei` 1) and, in the second,
/// the latter again and an `exec` (`ei` 2).
const BY_HAND: &str = include_str!("by_hand.hex");

fn by_hand() -> Vec<u8> {
    let digits: Vec<u8> = BY_HAND.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn a_recording_made_elsewhere_is_read() {
    let (events, error) = read(&by_hand());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(events.iter().map(EventExt::index).collect::<Vec<_>>(), [0, 1, 2]);
    let Some(Event::SessionPrint(you)) = &events[1].event else { panic!("{events:?}") };
    assert_eq!((you.data.as_slice(), you.delay_milliseconds), (&b"you"[..], 250));
    let Some(Event::Exec(exec)) = &events[2].event else { panic!("{events:?}") };
    assert_eq!(exec.command.as_ref().unwrap().command, "ls");
}

#[test]
fn padding_is_zeros_up_to_the_least_size() {
    let bytes = part(&[print(0, b"x")], 1000);
    assert_eq!(bytes.len(), 1000);
    let header = PartHeader::from_bytes(bytes[..HEADER_BYTES].try_into().unwrap()).unwrap();
    assert_eq!(HEADER_BYTES as u64 + header.body + header.padding, 1000);
    assert!(bytes[HEADER_BYTES + header.body as usize..].iter().all(|b| *b == 0));
    assert_eq!(read(&[bytes, part(&[print(1, b"y")], 0)].concat()).0.len(), 2);
    assert!(PartWriter::new().take(1000).unwrap().is_empty());
}

#[test]
fn events_read_before_are_not_read_again() {
    let bytes = [
        part(&[print(0, b"a"), print(1, b"b")], 0),
        part(&[print(1, b"b"), print(2, b"c")], 0),
        part(&[print(0, b"a")], 0),
    ]
    .concat();
    assert_eq!(read(&bytes).0.iter().map(EventExt::index).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_recording_cut_anywhere_yields_what_is_whole_and_says_that_it_was_cut() {
    let first = part(&[print(0, b"a"), print(1, b"b")], 200);
    let bytes = [first.clone(), part(&[print(2, b"c")], 0)].concat();
    for cut in 0..=bytes.len() {
        let mut reader = StreamReader::new(&bytes[..cut]);
        let (mut count, mut failed) = (0, false);
        for event in &mut reader {
            match event {
                Ok(_) => count += 1,
                Err(e) => {
                    failed = true;
                    assert!(e.to_string().contains("truncated"), "cut at {cut}: {e}");
                }
            }
        }
        let boundary = cut == 0 || cut == first.len() || cut == bytes.len();
        assert_eq!(failed, !boundary, "cut at {cut}");
        assert!(cut < first.len() || count >= 2);
        assert_eq!(
            reader.whole(),
            if cut == bytes.len() {
                cut
            } else if cut >= first.len() {
                first.len()
            } else {
                0
            } as u64
        );
    }
}

#[test]
fn a_source_may_grow_between_two_reads() {
    struct Growing(std::collections::VecDeque<u8>);
    impl Read for Growing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl BufRead for Growing {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            self.0.fill_buf()
        }
        fn consume(&mut self, count: usize) {
            self.0.consume(count);
        }
    }
    let mut reader = StreamReader::new(Growing(part(&[print(0, b"a")], 0).into()));
    assert!(reader.next_event().unwrap().is_some());
    assert!(reader.next_event().unwrap().is_none());
    let State::Between(source) = &mut reader.state else { panic!("not between parts") };
    source.source.0.extend(part(&[print(1, b"b")], 0));
    assert_eq!(reader.next_event().unwrap().unwrap().index(), 1);
}

#[test]
fn lies_in_a_part_are_errors() {
    let gzip = |records: &[u8]| {
        let mut body = Vec::new();
        crate::compress::gzip(records, &mut body).unwrap();
        [
            &PartHeader { kind: crate::format::PartKind::Plain, body: body.len() as u64, padding: 0 }.to_bytes()[..],
            &body,
        ]
        .concat()
    };
    for (records, text) in [
        (&[0, 0, 0, 0][..], "message of 0 bytes"),
        (&[0, 1, 0, 1, 0], "message of 65537 bytes"),
        (&[255, 255, 255, 255], "message of 4294967295 bytes"),
        (&[0, 0, 0, 2, 255, 255], "not an event"),
        (&[0, 0, 0, 9, 1], "truncated"),
        (&[0, 0], "truncated"),
    ] {
        let error = read(&gzip(records)).1.unwrap().to_string();
        assert!(error.contains(text), "{error}");
    }
    let mut huge = part(&[print(0, b"x")], 0);
    huge[16..24].copy_from_slice(&u64::MAX.to_be_bytes());
    assert!(matches!(read(&huge).1, Some(FormatError::Truncated { part: 1 })));
    huge[8..16].copy_from_slice(&u64::MAX.to_be_bytes());
    assert!(read(&huge).1.is_some());
    let mut checksum = part(&[print(0, b"x")], 0);
    let at = checksum.len() - 8;
    checksum[at] ^= 1;
    assert!(matches!(read(&checksum).1, Some(FormatError::Corrupt { .. })));
}

#[test]
fn a_small_part_that_unpacks_to_gigabytes_takes_no_memory() {
    let message = print(0, &vec![0; 60_000]);
    let mut records = PartWriter::new();
    for _ in 0..200 {
        records.push(&message).unwrap();
    }
    let bytes = records.take(0).unwrap();
    assert!(bytes.len() < 200_000);
    let mut reader = StreamReader::new(bytes.as_slice());
    assert_eq!(reader.by_ref().count(), 1);
    assert!(reader.message.capacity() <= MAX_MESSAGE_BYTES);
}

#[test]
fn large_events_are_cut_and_hopeless_ones_refused() {
    let mut exec = Exec::default();
    exec.command.get_or_insert_default().command = "x".repeat(200_000);
    let (events, error) = read(&part(&[codes::EXEC.event(exec)], 0));
    assert!(error.is_none() && events.len() == 1);
    let mut writer = PartWriter::new();
    assert!(writer.push(&print(0, &vec![0; MAX_MESSAGE_BYTES])).is_err());
    assert!(writer.push(&OneOf::default()).is_err());
    assert!(writer.is_empty());
}

proptest! {
    #[test]
    fn every_recording_is_read_as_it_was_written(
        parts in proptest::collection::vec((proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 1..20), 0..3000_usize), 0..6)
    ) {
        let (mut index, mut bytes, mut written) = (0, Vec::new(), Vec::new());
        for (prints, least) in parts {
            let mut events = Vec::new();
            for data in prints {
                events.push(print(index, &data));
                index += 1;
            }
            bytes.extend(part(&events, least));
            written.extend(events);
        }
        let (events, error) = read(&bytes);
        prop_assert!(error.is_none());
        prop_assert_eq!(events, written);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), valid in any::<bool>(), at in 0..400_usize) {
        let mut input = bytes;
        if valid {
            // A real part with one byte changed goes deeper than noise.
            let mut real = part(&[print(0, b"hello"), print(1, b"world")], 300);
            let at = at % real.len();
            real[at] ^= input.first().copied().unwrap_or(1);
            input = real;
        }
        read(&input);
    }
}

#[tokio::test]
async fn a_stream_survives_callers_who_stop_waiting() {
    let bytes: Vec<u8> = (0..600).flat_map(|i| part(&[print(i, b"x")], 0)).collect();
    let mut stream = crate::EventStream::new(io::Cursor::new(bytes));
    let mut seen = Vec::new();
    loop {
        let polled = {
            let mut next = std::pin::pin!(stream.next());
            std::future::poll_fn(|context| std::task::Poll::Ready(next.as_mut().poll(context))).await
        };
        match polled {
            std::task::Poll::Ready(Ok(Some(event))) => seen.push(event.index()),
            std::task::Poll::Ready(end) => break assert!(end.unwrap().is_none()),
            std::task::Poll::Pending => tokio::task::yield_now().await,
        }
    }
    assert_eq!(seen, (0..600).collect::<Vec<_>>());
}
