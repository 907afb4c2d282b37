//! Names the keys of `[[pool]]`: mostly those of `[[vip]]`.

use super::{Key, Reload, Schema, service, vip};

/// The key `name`.
pub static NAME: Key = Key {
    name: "name",
    form: "a name",
    example: r#""web""#,
    default: "required",
    reload: Reload::Vip,
};
/// The key `addresses`.
pub static ADDRESSES: Key = Key {
    name: "addresses",
    form: "\"FROM-TO/PREFIX\", or a list of such",
    example: r#"["10.0.0.100-10.0.0.150/24"]"#,
    default: "required",
    reload: Reload::Vip,
};
/// The key `auto_assign`.
pub static AUTO_ASSIGN: Key = Key {
    name: "auto_assign",
    form: "true or false",
    example: "true",
    default: "each address is a VIP",
    reload: Reload::Vip,
};
/// The key `priority`.
pub static PRIORITY: Key = Key {
    name: "priority",
    form: "a number from 1 to 1000",
    example: "1",
    default: "after all that have one",
    reload: Reload::Live,
};
/// The key `skip_0_255`.
pub static SKIP_ENDS: Key = Key {
    name: "skip_0_255",
    form: "true or false",
    example: "true",
    default: "false",
    reload: Reload::Vip,
};
/// The whole table.
pub static SCHEMA: Schema = Schema {
    title: "[[pool]]",
    place: "in [[pool]]",
    keys: &[
        &NAME,
        &ADDRESSES,
        &AUTO_ASSIGN,
        &PRIORITY,
        &SKIP_ENDS,
        &vip::INTERFACE,
        &vip::ASSIGN,
        &vip::NODES,
        &vip::PREFER,
        &vip::FAILBACK,
        &vip::SAFETY,
        &vip::APART,
        &vip::CHECK,
        &SERVICE,
    ],
    later: &[],
    foreign: &[
        ("address", "addresses"),
        ("range", "addresses"),
        ("ranges", "addresses"),
        ("subnet", "addresses"),
        ("cidr", "addresses"),
        ("block", "addresses"),
        ("blocks", "addresses"),
        ("dev", "interface"),
        ("autoAssign", "auto_assign"),
        ("auto", "auto_assign"),
        ("avoidBuggyIPs", "skip_0_255"),
        ("avoid_buggy_ips", "skip_0_255"),
        ("services", "service"),
    ],
    unneeded: &[("group", "remove it; the addresses of a pool move each for itself")],
};
/// The key `service`.
pub static SERVICE: Key = Key {
    name: "service",
    form: "a list of tables `[[pool.service]]`",
    example: "[[pool.service]]",
    default: "none",
    reload: Reload::Live,
};
/// `[[pool.service]]`: the same keys as `[[vip.service]]`.
pub static SERVICE_SCHEMA: Schema = Schema {
    title: "[[pool.service]]",
    place: "in [[pool.service]]",
    keys: service::SCHEMA.keys,
    later: service::SCHEMA.later,
    foreign: service::SCHEMA.foreign,
    unneeded: service::SCHEMA.unneeded,
};
