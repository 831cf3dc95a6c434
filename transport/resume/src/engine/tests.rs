#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

/// Everything a side wants to say, as bytes of the network.
fn say(engine: &mut Engine, acknowledge: bool) -> BytesMut {
    let mut bytes = BytesMut::new();
    while let Some(frame) = engine.transmit(acknowledge) {
        bytes.extend_from_slice(&frame.head);
        bytes.extend_from_slice(&frame.data);
    }
    bytes
}

fn read_all(engine: &mut Engine) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some(piece) = engine.read(1000) {
        data.extend_from_slice(&piece);
    }
    data
}

fn number(number: u64) -> BytesMut {
    let mut bytes = BytesMut::new();
    put_number(&mut bytes, number);
    bytes
}

#[test]
fn numbers_are_leb128_of_at_most_64_bits() {
    for value in [0, 1, 127, 128, 300, 1 << 32, CLOSED - 1, CLOSED] {
        let mut bytes = number(value);
        for length in 0..bytes.len() {
            let mut part = BytesMut::from(&bytes[..length]);
            assert_eq!((take_number(&mut part), part.len()), (Ok(None), length));
        }
        assert_eq!((take_number(&mut bytes), bytes.len()), (Ok(Some(value)), 0));
    }
    assert_eq!(number(CLOSED)[..], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    for too_long in [[0xff; 10], [0x80; 10]] {
        assert_eq!(take_number(&mut BytesMut::from(&too_long[..])), Err(Violation::LongNumber));
    }
}

#[test]
fn a_peer_that_breaks_the_rules_is_told_apart() {
    let mut engine = Engine::default();
    engine.attach(false);
    assert_eq!(engine.write(b"abc"), 3);
    say(&mut engine, false);
    let wrong = Violation::Acknowledgement { acknowledged: 4, sent: 3 };
    assert_eq!(engine.receive(&mut number(4)), Err(wrong));
    let mut engine = Engine::default();
    let mut long = number(0);
    long.extend_from_slice(&number(MAX_FRAME as u64 + 1));
    assert_eq!(engine.receive(&mut long), Err(Violation::LongFrame(MAX_FRAME as u64 + 1)));
}

#[test]
fn what_is_not_kept_cannot_be_resumed() {
    for position in [1, 4, CLOSED - 1] {
        let mut engine = Engine::default();
        engine.attach(false);
        engine.write(b"abc");
        say(&mut engine, false);
        engine.receive(&mut Bytes::from([number(2), number(0)].concat())).unwrap();
        engine.attach(true);
        assert_eq!(say(&mut engine, false), number(0), "nothing but the position before the peer's");
        engine.receive(&mut number(position)).unwrap();
        assert_eq!(say(&mut engine, false), number(CLOSED));
        assert!(engine.is_over());
    }
}

#[test]
fn limits_hold_and_room_comes_back() {
    let (mut near, mut far) = (Engine::default(), Engine::default());
    let data = vec![7; SEND_LIMIT + 1];
    assert_eq!(near.write(&data), SEND_LIMIT);
    assert_eq!((near.write(&data), near.room_to_write()), (0, 0));
    let mut wire = say(&mut near, false);
    far.receive(&mut wire).unwrap();
    assert!(!far.has_room());
    assert_eq!(far.inbox_length, RECEIVE_LIMIT);
    let mut got = 0;
    while got < SEND_LIMIT {
        got += read_all(&mut far).len();
        far.receive(&mut wire).unwrap();
    }
    near.receive(&mut say(&mut far, true)).unwrap();
    assert_eq!(near.room_to_write(), SEND_LIMIT);
    // A byte at a time costs no more than so many pieces.
    let mut drops = BytesMut::new();
    for _ in 0..2 * MAX_PIECES {
        drops.extend_from_slice(&[0, 1, b'x']);
    }
    far.receive(&mut drops).unwrap();
    assert!(!far.has_room() && far.inbox.len() == MAX_PIECES);
}

#[test]
fn a_packet_of_ssh_is_one_message() {
    let mut engine = Engine::default();
    let packet = vec![7; tunnel::ssh::CHANNEL_PACKET as usize + 100];
    engine.write(&packet);
    let frame = engine.transmit(false).unwrap();
    assert!(frame.head.is_empty() && frame.data.ends_with(&packet));
    assert_eq!(engine.transmit(false), None);
    // So is much that was written in small pieces.
    for _ in 0..1 << 10 {
        engine.write(&[7; 1 << 10]);
    }
    let mut messages = 0;
    while let Some(frame) = engine.transmit(false) {
        assert!(frame.head.is_empty() && frame.data.len() <= tunnel::ssh::TUNNEL_PACKET as usize);
        messages += 1;
    }
    assert_eq!(messages, 16);
}

#[test]
fn what_is_received_is_read_in_the_memory_that_it_came_in() {
    let (mut near, mut far) = (Engine::default(), Engine::default());
    near.write(&[7; 50_000]);
    let mut message = near.transmit(false).unwrap().data;
    let memory = message.as_ptr_range();
    far.receive(&mut message).unwrap();
    assert!(memory.contains(&far.read(50_000).unwrap().as_ptr()));
}

#[test]
fn what_is_not_acknowledged_keeps_little_more_memory_than_it_has_bytes() {
    for length in [1, 100, 3000, 30_000, 60_000] {
        let mut engine = Engine::default();
        engine.write(&vec![7; length]);
        drop(engine.transmit(false));
        let kept = engine.sent.pop_front().unwrap().try_into_mut().unwrap();
        assert!(kept.capacity() <= 2 * (length + HEAD), "{} for {length}", kept.capacity());
    }
}

#[test]
fn small_acknowledgements_wait_for_company() {
    let (mut near, mut far) = (Engine::default(), Engine::default());
    near.write(b"abc");
    far.receive(&mut say(&mut near, false)).unwrap();
    assert_eq!(far.transmit(false), None);
    assert!(far.owes_acknowledgement());
    far.write(b"d");
    assert_eq!(say(&mut far, false)[..], [3, 1, b'd']);
    assert!(!far.owes_acknowledgement());
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    Write(bool, usize),
    Read(bool, usize),
    /// One side says what it has to say; so many bytes of what is on the wire arrive.
    Carry(bool, usize, bool),
    /// The network connection is lost with what is on the wire.
    Lose,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (any::<bool>(), 0..200_000usize).prop_map(|(side, n)| Event::Write(side, n)),
        3 => (any::<bool>(), 1..200_000usize).prop_map(|(side, n)| Event::Read(side, n)),
        6 => (any::<bool>(), 0..300_000usize, any::<bool>()).prop_map(|(side, n, ack)| Event::Carry(side, n, ack)),
        1 => Just(Event::Lose),
    ];
    proptest::collection::vec(event, 1..80)
}

/// Two sides with the network between them, and what each has written and the other has read.
#[derive(Default)]
struct Pair {
    sides: [Engine; 2],
    wires: [BytesMut; 2],
    /// Arrived and not taken.
    arrived: [BytesMut; 2],
    written: [Vec<u8>; 2],
    read: [Vec<u8>; 2],
    clock: u8,
}

impl Pair {
    fn write(&mut self, side: usize, n: usize) {
        let data: Vec<u8> = (0..n)
            .map(|_| {
                self.clock = self.clock.wrapping_mul(5).wrapping_add(3);
                self.clock
            })
            .collect();
        let n = self.sides[side].write(&data);
        self.written[side].extend_from_slice(&data[..n]);
    }

    fn read(&mut self, side: usize, most: usize) {
        if let Some(piece) = self.sides[side].read(most) {
            self.read[side].extend_from_slice(&piece);
        }
    }

    fn carry(&mut self, side: usize, n: usize, acknowledge: bool) {
        let said = say(&mut self.sides[side], acknowledge);
        self.wires[side].extend_from_slice(&said);
        let n = n.min(self.wires[side].len());
        let arrived = self.wires[side].split_to(n);
        let other = 1 - side;
        self.arrived[other].extend_from_slice(&arrived);
        self.sides[other].receive(&mut self.arrived[other]).unwrap();
    }

    fn lose(&mut self) {
        (self.wires, self.arrived) = Default::default();
        self.sides.iter_mut().for_each(|side| side.attach(true));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_once_and_in_order_whatever_is_lost(events in events()) {
        let mut pair = Pair::default();
        for event in events {
            match event {
                Event::Write(side, n) => pair.write(side.into(), n),
                Event::Read(side, n) => pair.read(side.into(), n),
                Event::Carry(side, n, acknowledge) => pair.carry(side.into(), n, acknowledge),
                Event::Lose => pair.lose(),
            }
            for side in 0..2 {
                prop_assert!(pair.written[1 - side].starts_with(&pair.read[side]));
                prop_assert!(pair.sides[side].inbox_length <= RECEIVE_LIMIT);
            }
        }
        for side in &mut pair.sides {
            side.finish();
        }
        let mut rounds = 0;
        while !pair.sides.iter().all(|side| side.is_over() || side.has_told()) || (0..2).any(|side| pair.read[side] != pair.written[1 - side]) {
            for side in 0..2 {
                pair.carry(side, usize::MAX, true);
                pair.read(side, usize::MAX);
            }
            // One side's end does not wait for what the other still has to say.
            if pair.sides.iter().any(Engine::is_over) {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 1000, "the rest does not arrive");
        }
        for side in 0..2 {
            let mut rest = read_all(&mut pair.sides[side]);
            pair.read[side].append(&mut rest);
            prop_assert!(pair.written[1 - side].starts_with(&pair.read[side]));
        }
        prop_assert!((0..2).any(|side| pair.read[side] == pair.written[1 - side]));
    }

    #[test]
    fn no_bytes_from_the_network_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000), again: bool) {
        let mut engine = Engine::default();
        engine.write(b"something");
        say(&mut engine, false);
        engine.attach(again);
        let mut bytes = BytesMut::from(&bytes[..]);
        let _ = engine.receive(&mut bytes);
        say(&mut engine, true);
        read_all(&mut engine);
    }
}
