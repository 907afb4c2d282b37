//! What should become of frames with a VLAN tag: that of their packets, with the tag where they leave as they came.

use super::read::ends;
use super::{Fate, Mirror};

/// The tag of a frame, after its number.
pub(super) fn of(frame: &[u8]) -> Option<[u8; 2]> {
    match frame.get(12..18)? {
        &[0x81, 0, high, low, ..] => Some([high, low]),
        _ => None,
    }
}

fn without(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &frame[16..]].concat()
}

fn with(tag: [u8; 2], frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &tag, &frame[12..]].concat()
}

impl Mirror<'_> {
    pub(super) fn tagged(&mut self, tag: [u8; 2], frame: &[u8], became: &[u8]) -> Fate {
        let packet = without(frame);
        self.is_in_vlan = u16::from_be_bytes(tag) & 0xfff != 0;
        let Some((_, to)) = ends(&packet) else { return Fate::Pass(frame.to_vec()) };
        let is_ours = self.path.services.iter().any(|s| s.address == to) || self.is_pool(to);
        if self.is_in_vlan && !is_ours {
            return Fate::Pass(frame.to_vec());
        }
        let became = if of(became).is_some() { without(became) } else { became.to_vec() };
        match self.untagged(&packet, &became) {
            Fate::Pass(packet) => Fate::Pass(with(tag, &packet)),
            Fate::Transmit(packet) => Fate::Transmit(with(tag, &packet)),
            Fate::Redirect(packet) => Fate::Redirect(packet),
            Fate::Drop(reason) => Fate::Drop(reason),
        }
    }
}
