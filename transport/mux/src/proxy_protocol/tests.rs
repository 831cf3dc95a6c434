#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

fn complete(input: &[u8]) -> (Header, usize) {
    match parse(input).unwrap() {
        Parsed::Complete { header, length } => (header, length),
        other => panic!("expected a complete header, got {other:?}"),
    }
}

fn pair(source: &str, destination: &str) -> Addresses {
    Addresses::new(source.parse().unwrap(), destination.parse().unwrap()).unwrap()
}

#[test]
fn a_v1_line_yields_its_addresses_and_length() {
    let line = b"PROXY TCP4 192.0.2.1 198.51.100.7 51234 443\r\nSSH-2.0";
    let (header, length) = complete(line);
    assert_eq!(header.addresses, Some(pair("192.0.2.1:51234", "198.51.100.7:443")));
    assert_eq!(&line[length..], b"SSH-2.0");
}

#[test]
fn v1_lines_are_judged_by_their_family() {
    let cases: [(&str, bool); 13] = [
        ("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", true),
        ("PROXY UNKNOWN 2001:db8::1 2001:db8::2 1 2\r\n", true),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 1 2 more words\r\n", true),
        ("PROXY UNKNOWN\r\n", false),
        ("PROXY UNKNOWN 192.0.2.1 198.51.100.7 1 2\r\n", false),
        ("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", false),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 1\r\n", false),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 1 65536\r\n", false),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 1 +5\r\n", false),
        ("PROXY TCP4  192.0.2.1 198.51.100.7 1 2\r\n", false),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n", false),
        ("PROXYTCP4 192.0.2.1 198.51.100.7 1 2 3\r\n", false),
        ("PROXY TCP4 nowhere 198.51.100.7 1 2\r\n", false),
    ];
    for (line, good) in cases {
        assert_eq!(parse(line.as_bytes()).is_ok(), good, "{line:?}");
    }
}

#[test]
fn a_v1_line_without_end_is_refused_and_not_waited_for() {
    assert!(parse(&[b"PROXY ".as_slice(), &[b'x'; 200]].concat()).is_err());
    assert_eq!(parse(b"PROXY TCP4 1").unwrap(), Parsed::Incomplete { missing: 1 });
}

#[test]
fn a_local_header_of_any_family_changes_no_address() {
    for family in [0x00, 0x11, 0x21, 0x31] {
        let mut bytes = V2_SIGNATURE.to_vec();
        bytes.extend_from_slice(&[0x20, family, 0, 3, 1, 2, 3]);
        let (header, length) = complete(&bytes);
        assert_eq!((header.addresses, length), (None, 19));
    }
}

#[test]
fn families_other_than_tcp_are_refused() {
    for family in [0x00, 0x12, 0x22, 0x31] {
        let mut bytes = V2_SIGNATURE.to_vec();
        bytes.extend_from_slice(&[0x21, family, 0, 0]);
        assert_eq!(parse(&bytes), Err(ParseError::Family(family)));
    }
}

#[test]
fn broken_tlvs_and_short_addresses_are_refused() {
    let head = |body: &[u8]| {
        let length = u8::try_from(body.len()).unwrap();
        [&V2_SIGNATURE[..], &[0x21, 0x11, 0, length], body].concat()
    };
    assert!(matches!(parse(&head(&[0; 11])), Err(ParseError::V2(_))));
    assert!(matches!(parse(&head(&[&[0; 12][..], &[4, 0]].concat())), Err(ParseError::V2(_))));
    assert!(matches!(parse(&head(&[&[0; 12][..], &[4, 0, 2, 1]].concat())), Err(ParseError::V2(_))));
    assert!(parse(&head(&[&[0; 12][..], &[4, 0, 1, 1]].concat())).is_ok());
}

#[test]
fn a_signed_header_carries_certificate_and_token() {
    let encoded = Header::signed(&pair("[2001:db8::9]:9", "[2001:db8::8]:3025"), b"certificate", "a.b.c").unwrap();
    let (header, _) = complete(&encoded);
    let signature = header.signature().unwrap();
    assert_eq!(signature.certificate, Some(&b"certificate"[..]));
    assert_eq!(signature.token, Some(&b"a.b.c"[..]));
    assert!(!format!("{signature:?}").contains("a.b.c"));
}

#[test]
fn only_the_first_container_counts() {
    let tlv = |sub: u8| Tlv { kind: TLV_SIGNED, value: vec![sub, 0, 1, b'x'] };
    let addresses = pair("192.0.2.1:1", "192.0.2.2:2");
    let (header, _) = complete(&encode_v2(Some(&addresses), &[tlv(TLV_SIGNED_TOKEN), tlv(TLV_SIGNED_CERTIFICATE)]));
    let signature = header.signature().unwrap();
    assert!(signature.certificate.is_none() && signature.token.is_some());
    let foreign = Tlv { kind: 0xea, value: vec![1, 2, 3] };
    assert_eq!(complete(&encode_v2(Some(&addresses), &[foreign])).0.signature(), None);
}

#[test]
fn a_signature_too_large_for_a_header_is_not_made() {
    assert_eq!(Header::signed(&pair("192.0.2.1:1", "192.0.2.2:2"), &vec![0; 65_500], "a.b.c"), None);
}

#[test]
fn mixed_families_make_no_header() {
    let (v4, v6) = ("192.0.2.1:1".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap());
    assert!(Addresses::new(v4, v6).is_err());
    let mapped = "[::ffff:192.0.2.9]:1".parse().unwrap();
    assert_eq!(Addresses::new(v4, mapped).unwrap().destination(), "192.0.2.9:1".parse().unwrap());
}

fn any_pair() -> impl Strategy<Value = Addresses> {
    let v4 = any::<([u8; 4], u16, [u8; 4], u16)>()
        .prop_map(|(a, p, b, q)| Addresses::new((a, p).into(), (b, q).into()).unwrap());
    let v6 = any::<([u8; 15], u16, [u8; 15], u16)>().prop_map(|(a, p, b, q)| {
        let address = |tail: [u8; 15], port: u16| {
            let mut octets = [0x20; 16];
            octets[1..].copy_from_slice(&tail);
            SocketAddr::from((octets, port))
        };
        Addresses::new(address(a, p), address(b, q)).unwrap()
    });
    prop_oneof![v4, v6]
}

fn any_tlvs() -> impl Strategy<Value = Vec<Tlv>> {
    let tlv = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(kind, value)| Tlv { kind, value });
    prop::collection::vec(tlv, 0..8)
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(addresses in any_pair(), extensions in any_tlvs(), tail in any::<[u8; 9]>()) {
        let mut encoded = encode_v2(Some(&addresses), &extensions);
        let end = encoded.len();
        encoded.extend_from_slice(&tail);
        let (header, length) = complete(&encoded);
        prop_assert_eq!(length, end);
        prop_assert_eq!(header.addresses, Some(addresses));
        prop_assert_eq!(header.tlvs, extensions);
    }

    #[test]
    fn no_prefix_of_a_header_is_complete_or_refused(addresses in any_pair(), extensions in any_tlvs(), cut in any::<prop::sample::Index>()) {
        let encoded = encode_v2(Some(&addresses), &extensions);
        let cut = cut.index(encoded.len());
        match parse(&encoded[..cut]) {
            Ok(Parsed::Incomplete { missing }) => prop_assert!(missing > 0 && missing <= encoded.len() - cut),
            other => prop_assert!(false, "{cut} bytes: {other:?}"),
        }
    }

    #[test]
    fn strangers_bytes_never_panic(start in prop_oneof![Just(&b""[..]), Just(&b"PROXY "[..]), Just(&V2_SIGNATURE[..]), Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x40"[..])], bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let input = [start, &bytes].concat();
        if let Ok(Parsed::Complete { header, length }) = parse(&input) {
            prop_assert!(length <= input.len());
            let _ = header.signature();
        }
    }
}
