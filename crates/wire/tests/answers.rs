//! Throws damaged and random bytes at every parser of what servers answer to checks: none panics.
//!
//! The inputs follow from a seed. The target `answers` in `fuzz/` runs for as long as one lets it.

mod random;

use buoy_model::Told;
use buoy_wire::answer::echo::Echo;
use buoy_wire::answer::{certificate, dns, grpc, lines, mysql, postgres, segment, shown, text};
use buoy_wire::exchange::answers;
use random::{Random, inputs};
use std::net::{IpAddr, SocketAddr};

impl Random {
    /// A right answer with up to four bytes changed, sometimes cut.
    fn damaged(&mut self, right: &[u8]) -> Vec<u8> {
        let mut bytes = right.to_vec();
        for _ in 0..self.below(5) {
            let place = self.below(bytes.len());
            bytes[place] = self.byte();
        }
        if self.below(4) == 0 {
            bytes.truncate(self.below(bytes.len() + 1));
        }
        bytes
    }
}

/// So much is shown of what a server says, and nothing that a terminal obeys.
fn check_words(words: &str) {
    assert!(words.chars().count() <= 200, "{words:?}");
    assert!(!words.contains(char::is_control), "{words:?}");
}

#[test]
fn any_line_of_a_server_is_judged_in_words() {
    let mut random = Random(3);
    for _ in 0..inputs() {
        let right: &[u8] = [&b"75% drain # why"[..], b"-ERR no\r", b"250-SIZE 1"][random.below(3)];
        let line = if random.below(2) == 0 { random.bytes(32) } else { random.damaged(right) };
        for said in [lines::agent(&line), lines::redis(&line), text::weight(&line, "/f")] {
            check_words(&said.map_or_else(|reason| reason, |said| said.warning));
        }
        if let Err(reason) = lines::smtp(&line, "220") {
            check_words(&reason);
        }
        let _ = text::judge("/f", &line, Some("a"), true);
        check_words(&shown(&line));
    }
}

#[test]
fn any_answer_of_dns_is_judged_in_words() {
    let asked = dns::question([1, 2], "a.example", 1);
    let mut right = asked.clone();
    (right[2], right[3], right[7]) = (0x81, 0x80, 1);
    assert!(dns::judge(&asked, &right, "a").is_ok());
    let mut random = Random(5);
    for _ in 0..inputs() {
        let bytes = if random.below(4) == 0 { random.bytes(40) } else { random.damaged(&right) };
        if let Err(reason) = dns::judge(&asked, &bytes, "a") {
            check_words(&reason);
        }
    }
}

#[test]
fn any_message_of_a_database_is_judged_in_words() {
    let mut random = Random(7);
    for _ in 0..inputs() {
        let mut packet = random.bytes(24);
        if let Some(first) = packet.first_mut() {
            *first = [*first, 10, 0xff][random.below(3)];
        }
        if let Err(reason) = mysql::judge(&packet) {
            check_words(&reason);
        }
        let kind = [b'R', b'E', b'D', random.byte()][random.below(4)];
        let body = random.damaged(b"SFATAL\0C28000\0Mno entry\0\0");
        for body in [packet, body] {
            if let Err(reason) = postgres::open(kind, &body, random.below(2) == 0) {
                check_words(&reason);
            }
            if let Err(reason) = postgres::row(kind, &body) {
                check_words(&reason);
            }
        }
    }
}

#[test]
fn any_message_of_grpc_has_a_status_or_none() {
    assert_eq!(grpc::status(b"\0\0\0\0\x06\x12\x02hi\x08\x01"), Some(1));
    let mut random = Random(9);
    for _ in 0..inputs() {
        let message = random.bytes(16);
        let length = u8::try_from(message.len()).unwrap();
        let _ = grpc::status(&[&[0, 0, 0, 0, length], message.as_slice()].concat());
        let _ = grpc::status(&random.damaged(b"\0\0\0\0\x06\x12\x02hi\x08\x01"));
    }
}

/// What a check hears from a raw socket is whatever a host sends, so lengths in it lie.
#[test]
fn any_packet_answers_one_question_or_none() {
    let mut random = Random(13);
    let (mut answers, mut known) = (0, 0);
    for (from, to) in [("10.0.0.21:443", "10.0.0.1:40000"), ("[fd00::21]:443", "[fd00::1]:40000")] {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let mut right = segment::question(from, to, 7);
        let flags = right.len() - 11;
        right[flags] = 0x12;
        let ip: &[u8] = if from.is_ipv4() { &[0x45; 20] } else { &[] };
        let reply = if from.is_ipv4() { 0 } else { 129 };
        let echo = [ip, &[reply, 0, 0, 0, 1, 2, 3, 4]].concat();
        let ask = |host: IpAddr, mark, heard: &[u8]| Echo::new(host, mark).is_answer(heard);
        for _ in 0..inputs() {
            let packet =
                if random.below(4) == 0 { random.bytes(64) } else { random.damaged(&right) };
            answers += usize::from(segment::heard(&packet).is_some_and(|heard| heard.from == from));
            let message =
                if random.below(4) == 0 { random.bytes(40) } else { random.damaged(&echo) };
            let is_mine = ask(from.ip(), [1, 2, 3, 4], &message);
            assert!(!is_mine || !ask(from.ip(), [1, 2, 3, 5], &message), "{message:?}");
            known += usize::from(is_mine);
        }
    }
    assert!(0 < answers && 0 < known, "damage leaves some of them right");
}

#[test]
fn any_certificate_ends_some_time_or_cannot_be_read() {
    let key = rcgen::generate_simple_self_signed(vec!["web.example".into()]).unwrap();
    let whole = key.cert.der().to_vec();
    assert!(certificate::end(&whole).is_some());
    for length in 0..whole.len() {
        let _ = certificate::end(&whole[..length]);
    }
    let mut random = Random(1);
    let head = &whole[..whole.len().min(160)];
    for _ in 0..inputs() {
        let mut bytes = whole.clone();
        bytes[..head.len()].copy_from_slice(head);
        let place = random.below(head.len());
        bytes[place] = random.byte();
        let _ = certificate::end(&bytes);
        let _ = certificate::end(&random.damaged(head));
    }
}

#[test]
fn any_answers_of_a_node_are_refused_or_have_one_form() {
    let mut right = Vec::new();
    for told in answers::parse(b"\0\0\0\0\0\0\0\x01\x02\x64\x3e\0\0\0\x09\x02no").unwrap() {
        assert!(answers::add(&mut right, &told) && answers::add(&mut right, &told));
    }
    let mut random = Random(11);
    let mut parsed = 0;
    for _ in 0..inputs() {
        let bytes = random.damaged(&right);
        let Some(all) = answers::parse(&bytes) else { continue };
        let mut again = Vec::new();
        assert!(all.iter().all(|told: &Told| answers::add(&mut again, told)));
        assert_eq!(again, bytes);
        parsed += 1;
    }
    assert!(parsed > 0);
}
