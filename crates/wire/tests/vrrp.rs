//! Throws damaged and random packets at the parser of VRRP: none panics, and what parses is sound.
//!
//! The inputs follow from a seed. The target `vrrp` in `fuzz/` runs for as long as one lets it.

mod random;

use buoy_model::{
    HmacMode, Password, Proof, Stamp, VirtualRouter, VrrpAuth, VrrpChecksum, VrrpHmac, VrrpKey,
    VrrpVersion,
};
use buoy_wire::vrrp::{Envelope, Said, emit, parse, router_id};
use random::{Random, inputs};
use std::time::Duration;

fn router(random: &mut Random, version: VrrpVersion, v6: bool) -> VirtualRouter {
    let addresses = (0..1 + random.below(20)).map(|_| {
        if v6 {
            std::array::from_fn::<u8, 16, _>(|_| random.byte()).into()
        } else {
            std::array::from_fn::<u8, 4, _>(|_| random.byte()).into()
        }
    });
    let addresses = addresses.collect();
    let keys = vec![VrrpKey { id: 1, secret: (0..32).collect() }];
    let hmac = VrrpHmac { keys, mode: HmacMode::Enforce, window: Duration::from_secs(5) };
    let auth = match (random.below(3), version) {
        (0, VrrpVersion::V2) => {
            VrrpAuth::Password(Password(std::array::from_fn(|_| random.byte())))
        }
        (1, VrrpVersion::V2 | VrrpVersion::V3) => VrrpAuth::Hmac(hmac),
        (_, VrrpVersion::V2 | VrrpVersion::V3) => VrrpAuth::None,
    };
    let seconds = 1 + u64::try_from(random.below(40)).unwrap_or(0);
    VirtualRouter {
        id: random.byte().max(1),
        v6,
        link: None,
        source: None,
        addresses,
        version,
        priority: random.byte(),
        interval: Duration::from_secs(seconds),
        peers: vec![],
        accept: true,
        virtual_mac: false,
        min_ttl: 255,
        checksum: [VrrpChecksum::PseudoHeader, VrrpChecksum::Message][random.below(2)],
        auth,
    }
}

#[test]
fn what_is_emitted_is_parsed_and_what_is_damaged_is_sound_or_refused() {
    let mut random = Random(11);
    for _ in 0..inputs() {
        let v6 = random.below(2) == 0;
        let version = if v6 || random.below(2) == 0 { VrrpVersion::V3 } else { VrrpVersion::V2 };
        let router = router(&mut random, version, v6);
        let envelope = match v6 {
            true => Envelope { source: [0xfe; 16].into(), destination: [0xff; 16].into() },
            false => Envelope { source: [10, 0, 0, 1].into(), destination: [224, 0, 0, 18].into() },
        };
        let stamp = Stamp { seconds: 1, fraction: 2, counter: 3 };
        let said = Said { priority: router.priority, peers_are_plain: false, stamp };
        let mut message = emit(&router, envelope, said);
        let keys = match &router.auth {
            VrrpAuth::Hmac(hmac) => Some(hmac),
            VrrpAuth::None | VrrpAuth::Password(_) => None,
        };
        let advert = parse(&message, envelope, keys).expect("what is emitted is right");
        assert_eq!(advert.addresses, router.addresses);
        let fields = (advert.version, advert.id, advert.priority, advert.interval);
        assert_eq!(fields, (router.version, router.id, router.priority, router.interval));
        let proof = match &router.auth {
            VrrpAuth::None => Proof::None,
            VrrpAuth::Password(password) => Proof::Password(*password),
            VrrpAuth::Hmac(_) => Proof::Signed(stamp),
        };
        assert_eq!(advert.proof, proof);
        for _ in 0..=random.below(4) {
            let place = random.below(message.len());
            message[place] = random.byte();
        }
        if random.below(4) == 0 {
            message.truncate(random.below(message.len() + 1));
        }
        if let Ok(advert) = parse(&message, envelope, keys) {
            assert!(!advert.addresses.is_empty());
            assert_eq!(router_id(&message), Some(advert.id));
            assert!(advert.addresses.iter().all(|address| address.is_ipv6() == v6));
        }
        let _ = parse(&random.bytes(80), envelope, keys);
    }
}
