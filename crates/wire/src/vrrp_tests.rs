//! Advertisements byte by byte, and what is refused of them.

use super::*;
use alloc::vec;

const KEY_ID: u8 = 1;

fn router(version: VrrpVersion, addresses: &[&str]) -> VirtualRouter {
    let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    VirtualRouter {
        id: 51,
        v6: addresses.iter().any(IpAddr::is_ipv6),
        link: None,
        source: None,
        addresses,
        version,
        priority: 200,
        interval: Duration::from_secs(1),
        peers: Vec::new(),
        accept: true,
        virtual_mac: false,
        min_ttl: 255,
        checksum: VrrpChecksum::Auto,
        auth: VrrpAuth::None,
    }
}

fn signed(mode: buoy_model::HmacMode) -> VrrpHmac {
    let keys = vec![VrrpKey { id: KEY_ID, secret: (0..32).collect() }];
    VrrpHmac { keys, mode, window: Duration::from_secs(5) }
}

fn envelope(source: &str, destination: &str) -> Envelope {
    Envelope { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn v4() -> Envelope {
    envelope("10.0.0.1", "224.0.0.18")
}

fn said(priority: u8) -> Said {
    let stamp = Stamp { seconds: 0x6a00_0000, fraction: 0x8000, counter: 7 };
    Said { priority, peers_are_plain: false, stamp }
}

#[test]
fn version_3_is_these_bytes() {
    let router = router(VrrpVersion::V3, &["10.0.0.100"]);
    // The sum by hand, over the addresses 10.0.0.1 and 224.0.0.18, 112 and 12, and the rest.
    let expected = [0x31, 51, 200, 1, 0, 100, 0x11, 0x73, 10, 0, 0, 100];
    let message = emit(&router, v4(), said(200));
    assert_eq!(message, expected);
    let advert = parse(&message, v4(), None).unwrap();
    assert_eq!(advert.interval, Duration::from_secs(1));
    assert_eq!(
        (advert.id, advert.priority, advert.addresses, advert.plain_checksum, advert.proof),
        (51, 200, router.addresses, false, Proof::None)
    );
}

#[test]
fn version_2_ends_with_eight_bytes_whether_or_not_there_is_a_password() {
    let mut router = router(VrrpVersion::V2, &["10.0.0.100", "10.0.0.101"]);
    let message = emit(&router, v4(), said(100));
    assert_eq!(message.len(), 8 + 8 + 8);
    assert_eq!(message[..6], [0x21, 51, 100, 2, 0, 1]);
    assert_eq!(message[16..], [0; 8]);
    assert_eq!(parse(&message, v4(), None).unwrap().proof, Proof::None);

    router.auth = VrrpAuth::Password(Password(*b"secret\0\0"));
    let message = emit(&router, v4(), said(100));
    assert_eq!(message[4..6], [1, 1]);
    assert_eq!(&message[16..], b"secret\0\0");
    let proof = parse(&message, v4(), None).unwrap().proof;
    assert_eq!(proof, Proof::Password(Password(*b"secret\0\0")));
}

#[test]
fn both_forms_of_the_checksum_are_known_and_one_is_sent() {
    let cases = [
        (VrrpChecksum::Auto, false, false),
        (VrrpChecksum::Auto, true, true),
        (VrrpChecksum::PseudoHeader, true, false),
        (VrrpChecksum::Message, false, true),
    ];
    for (form, peers_are_plain, plain) in cases {
        let mut router = router(VrrpVersion::V3, &["10.0.0.100"]);
        router.checksum = form;
        let message = emit(&router, v4(), Said { peers_are_plain, ..said(200) });
        let advert = parse(&message, v4(), None).unwrap();
        assert_eq!(advert.plain_checksum, plain, "{form:?} {peers_are_plain}");
        // Only the sum of the message alone does not know where it goes.
        let elsewhere = parse(&message, envelope("10.0.0.1", "10.0.0.9"), None);
        assert_eq!(elsewhere.is_ok(), plain, "{form:?} {peers_are_plain}");
    }
}

#[test]
fn the_trailer_is_that_of_another_implementation() {
    // Python's hmac over the layout of draft-cassen-vrrp-auth-hmac, key 00 01 .. 1f.
    let cases: [(VrrpVersion, &str, &str, u128); 3] = [
        (
            VrrpVersion::V3,
            "198.51.100.10",
            "192.0.2.100",
            0x3c58_0bc7_7b65_f0a7_e279_d0c9_d713_5e11,
        ),
        (VrrpVersion::V3, "fe80::1", "2001:db8::100", 0x0c90_df98_00ed_c71a_4e75_bb5e_8039_941a),
        (
            VrrpVersion::V2,
            "198.51.100.10",
            "192.0.2.100",
            0xf30d_f3d4_94ca_4f3d_9d22_bb57_6b91_0417,
        ),
    ];
    for (version, source, address, tag) in cases {
        let mut router = router(version, &[address]);
        let hmac = signed(buoy_model::HmacMode::Enforce);
        router.auth = VrrpAuth::Hmac(hmac.clone());
        let destination = if router.v6 { "ff02::12" } else { "224.0.0.18" };
        let envelope = envelope(source, destination);
        let message = emit(&router, envelope, said(200));
        assert_eq!(message[message.len() - 16..], tag.to_be_bytes(), "{version:?} {source}");
        let advert = parse(&message, envelope, Some(&hmac)).unwrap();
        assert_eq!(advert.proof, Proof::Signed(said(200).stamp), "{version:?} {source}");
        // Nothing of it can be changed, nor who sent it.
        for at in 0..message.len() {
            let mut other = message.clone();
            other[at] ^= 1;
            let proof = parse(&other, envelope, Some(&hmac)).map(|advert| advert.proof);
            assert!(!matches!(proof, Ok(Proof::Signed(_))), "{version:?} {source} byte {at}");
        }
        let other = Envelope { source: envelope.destination, ..envelope };
        let proof = parse(&message, other, Some(&hmac)).map(|advert| advert.proof);
        assert!(!matches!(proof, Ok(Proof::Signed(_))));
        assert_eq!(parse(&message, envelope, None).unwrap().proof, Proof::Forged);
    }
}

/// The two advertisements of the appendix of draft-cassen-vrrp-auth-hmac: key 00 01 .. 1f, VRID 51, priority 200.
const PUBLISHED: [(&str, &str, &str); 2] = [
    (
        "198.51.100.10",
        "198.51.100.20",
        "3133c80100644402c0000264\
         0101000068000000800000001b84bc4e8e43892dc6d98448f8ee2265",
    ),
    (
        "fe80::10",
        "fe80::20",
        "3133c8010064a2e9fe800000000000000000000000000100\
         010100006800000080000000c8c56146ebfd66ee10ec4d8186461b78",
    ),
];

#[test]
fn both_published_advertisements_are_signed_by_their_key_and_said_alike() {
    let hmac = signed(buoy_model::HmacMode::Enforce);
    let stamp = Stamp { seconds: 0x6800_0000, fraction: 0x8000, counter: 0 };
    for (source, destination, digits) in PUBLISHED {
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        let envelope = envelope(source, destination);
        let advert = parse(&bytes, envelope, Some(&hmac)).unwrap();
        assert_eq!(advert.proof, Proof::Signed(stamp), "{source}");
        assert_eq!((advert.id, advert.priority), (51, 200), "{source}");
        assert_eq!(advert.interval, Duration::from_secs(1), "{source}");
        let address = if source.contains(':') { "fe80::100" } else { "192.0.2.100" };
        assert_eq!(advert.addresses, [address.parse::<IpAddr>().unwrap()]);
        // Theirs over IPv4 has the checksum of the message alone.
        let mut router = router(VrrpVersion::V3, &[address]);
        router.checksum = VrrpChecksum::Message;
        router.auth = VrrpAuth::Hmac(hmac.clone());
        let said = Said { priority: 200, peers_are_plain: true, stamp };
        assert_eq!(emit(&router, envelope, said), bytes, "{source}");
    }
}

#[test]
fn who_only_listens_does_not_sign_and_other_trailers_are_named() {
    let mut router = router(VrrpVersion::V3, &["10.0.0.100"]);
    router.auth = VrrpAuth::Hmac(signed(buoy_model::HmacMode::ReceiveOnly));
    let message = emit(&router, v4(), said(200));
    assert_eq!(message.len(), 12);
    let with = |tail: &[u8]| [&message[..], tail].concat();
    let proof = |message: &[u8]| parse(message, v4(), None).unwrap().proof;
    assert_eq!(proof(&with(&[9; 28])), Proof::Unknown(9));
    assert_eq!(proof(&with(&[1; 28])), Proof::Unknown(1));
    // A short frame is padded.
    assert_eq!(proof(&with(&[0; 14])), Proof::None);
}

#[test]
fn a_key_is_changed_host_by_host_and_none_is_refused_meanwhile() {
    let key = |id: u8| VrrpKey { id, secret: vec![id; 32] };
    let host = |ids: &[u8]| {
        let keys = ids.iter().map(|id| key(*id)).collect();
        let mode = buoy_model::HmacMode::Enforce;
        VrrpHmac { keys, mode, window: Duration::from_secs(5) }
    };
    // The new one is known, then signs, and then the old one goes: at no time two neighbouring steps refuse each other.
    let steps: [&[u8]; 4] = [&[1], &[1, 2], &[2, 1], &[2]];
    let proof = |from: &[u8], to: &[u8]| {
        let mut router = router(VrrpVersion::V3, &["10.0.0.100"]);
        router.auth = VrrpAuth::Hmac(host(from));
        let message = emit(&router, v4(), said(200));
        parse(&message, v4(), Some(&host(to))).unwrap().proof
    };
    for pair in steps.windows(2) {
        for (from, to) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            assert_eq!(proof(from, to), Proof::Signed(said(200).stamp), "{from:?} to {to:?}");
        }
    }
    assert_eq!(proof(&[2], &[1]), Proof::Forged, "who skips the steps is refused");
}

#[test]
fn what_is_cut_or_wrong_is_refused_by_name() {
    let router = router(VrrpVersion::V3, &["10.0.0.100", "10.0.0.101"]);
    let message = emit(&router, v4(), said(200));
    for len in 0..message.len() {
        assert_eq!(parse(&message[..len], v4(), None), Err(AdvertReject::Truncated), "{len} bytes");
    }
    let cases = [
        (0, 0x11, AdvertReject::Version),
        (0, 0x41, AdvertReject::Version),
        (0, 0x32, AdvertReject::Kind),
        (0, 0x21, AdvertReject::Truncated),
        (1, 52, AdvertReject::Checksum),
        (2, 201, AdvertReject::Checksum),
        (3, 1, AdvertReject::Checksum),
        (3, 3, AdvertReject::Truncated),
        (7, message[7] ^ 1, AdvertReject::Checksum),
    ];
    for (at, byte, reason) in cases {
        let mut other = message.clone();
        other[at] = byte;
        assert_eq!(parse(&other, v4(), None), Err(reason), "byte {at} = {byte}");
    }
    let mut nobody = message[..8].to_vec();
    (nobody[3], nobody[6], nobody[7]) = (0, 0, 0);
    let sum = checksum(&nobody, 8, v4(), false);
    nobody[6..8].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(parse(&nobody, v4(), None), Err(AdvertReject::NoAddress));
    let v2 = emit(&super::tests::router(VrrpVersion::V2, &["10.0.0.100"]), v4(), said(1));
    let v6 = envelope("fe80::1", "ff02::12");
    assert_eq!(parse(&v2, v6, None), Err(AdvertReject::Version));
}

#[test]
fn an_interval_of_zero_and_the_reserved_bits_are_let_through_for_others_to_judge() {
    let mut router = router(VrrpVersion::V3, &["2001:db8::100"]);
    let envelope = envelope("fe80::1", "ff02::12");
    router.interval = Duration::ZERO;
    let mut message = emit(&router, envelope, said(1));
    message[4] |= 0xf0;
    message[6..8].copy_from_slice(&[0, 0]);
    let sum = checksum(&message, message.len(), envelope, false);
    message[6..8].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(parse(&message, envelope, None).unwrap().interval, Duration::ZERO);
    // 40.95 s is the longest that fits.
    router.interval = Duration::from_secs(60);
    let message = emit(&router, envelope, said(1));
    assert_eq!(parse(&message, envelope, None).unwrap().interval, Duration::from_millis(40_950));
}
