//! Names of users and groups, read from the files themselves: a static binary has no NSS.

use std::fs;

/// The user's name, or its number where it has none.
pub(super) fn user_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_of(&passwd, uid).unwrap_or_else(|| format!("uid {uid}"))
}

/// The number of a group, if there is one of that name.
pub(super) fn group_id(name: &str) -> Option<u32> {
    let group = fs::read_to_string("/etc/group").ok()?;
    id_of(&group, name)
}

/// Both files have the name in the first field and the number in the third.
fn name_of(text: &str, id: u32) -> Option<String> {
    entries(text).find(|(_, number)| *number == id).map(|(name, _)| name.into())
}

fn id_of(text: &str, name: &str) -> Option<u32> {
    entries(text).find(|(entry, _)| *entry == name).map(|(_, number)| number)
}

fn entries(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number = fields.nth(1)?.parse().ok()?;
        Some((name, number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken:x\nbuoy:x:998:\n";

    #[test]
    fn names_and_numbers_are_found_and_broken_lines_are_passed_over() {
        assert_eq!(name_of(FILE, 0).as_deref(), Some("root"));
        assert_eq!(name_of(FILE, 1), None);
        assert_eq!(id_of(FILE, "buoy"), Some(998));
        assert_eq!(id_of(FILE, "broken"), None);
    }
}
