//! VIPs that ask pools, edited over a file: what they got they keep, and nobody takes it from them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use super::tests::{by, edits, plain};
use super::*;
use serde_json::json;
use std::net::IpAddr;

const FILE: &str = r#"peers = ["10.0.0.11"]
secret = "file:cluster.key"
safety = "available"

[[pool]]
name = "web"
addresses = "10.0.0.100-103/24"
auto_assign = true

[[vip]]
name = "a"
pool = "web"

[[vip]]
name = "b"
pool = "web"
"#;

fn ask(name: &str) -> Wish {
    Wish::Put(name.into(), json!({ "pool": "web" }))
}

/// What the configuration that holds gives to a VIP.
fn address(edits: &Edits, vip: &str) -> IpAddr {
    let desired = edits.whole_again().unwrap().checked.desired;
    desired.find_group(vip).unwrap().addresses[0].cidr.address()
}

fn kept(edits: &Edits) -> Vec<(String, String)> {
    let of = |(key, entry): (&String, &buoy_store::Entry)| match &entry.content {
        Content::Set(value) if key.starts_with("reservation/") => {
            Some((key.clone(), value["for"].as_str().unwrap().to_owned()))
        }
        Content::Set(_) | Content::AsFile | Content::Hidden => None,
    };
    edits.now().entries.iter().filter_map(of).collect()
}

/// Has it taken and put into force.
async fn edit(edits: &Edits, wish: Wish) -> Result<EditReply, EditRefusal> {
    let before = edits.whole_again().unwrap().checked.desired;
    let reply = edits.edit(&wish, &by(None), &before).await?;
    edits.hold(&edits.whole_again().unwrap());
    Ok(reply)
}

#[tokio::test]
async fn what_an_edit_brings_is_kept_with_it_and_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let edits = edits(&folder, FILE).await;
    edits.begin(plain(FILE));
    let [a, b] = ["a", "b"].map(|vip| address(&edits, vip));
    edit(&edits, ask("c")).await.unwrap();
    let c = address(&edits, "c");
    let entry = |address: IpAddr, vip: &str| (format!("reservation/{address}"), vip.to_owned());
    let mut all = vec![entry(a, "a"), entry(b, "b"), entry(c, "c")];
    all.sort();
    assert_eq!(kept(&edits), all);
    // The search may meet whom it wants: what is kept stays.
    edit(&edits, Wish::Remove("a".into())).await.unwrap();
    all.retain(|(_, vip)| vip != "a");
    assert_eq!(kept(&edits), all, "nobody needs it any more");
    assert_eq!([address(&edits, "b"), address(&edits, "c")], [b, c]);
    // It is found by what it got.
    edit(&edits, Wish::Patch(format!("{c}/24"), json!({ "failback": "now" }))).await.unwrap();
    edit(&edits, Wish::Patch(c.to_string(), json!({ "failback": null }))).await.unwrap();
    // A text without the reservations is no wish to end them.
    let text = format!("{FILE}\n[[vip]]\nname = \"c\"\npool = \"web\"\n");
    edit(&edits, Wish::Text(text)).await.unwrap();
    assert_eq!([address(&edits, "b"), address(&edits, "c")], [b, c]);
    assert_eq!(edits.now().revision, 5);
}

#[tokio::test]
async fn what_the_file_brings_is_kept_when_it_holds_and_then_stays_through_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let edits = edits(&folder, FILE).await;
    let desired = edits.begin(plain(FILE)).desired;
    let b = address(&edits, "b");
    assert_eq!(edits.keep(&desired).await, Ok(Some(1)));
    edits.hold(&edits.whole_again().unwrap());
    let desired = edits.whole_again().unwrap().checked.desired;
    assert_eq!(edits.keep(&desired).await, Ok(None), "once is enough");
    // Other names come first in the file, and the pool is another one.
    let names = ["x", "y"].map(|name| format!("[[vip]]\nname = \"{name}\"\npool = \"web\"\n\n"));
    let other = FILE.replace("[[vip]]\nname = \"a\"\npool = \"web\"\n\n", &names.concat());
    let whole = edits.whole(other.replace("100-103", "99-104")).unwrap();
    let group = whole.checked.desired.find_group("b").unwrap();
    assert_eq!(group.addresses[0].cidr.address(), b);
    edits.hold(&whole);
    assert_eq!(edits.keep(&whole.checked.desired).await, Ok(Some(2)));
    assert_eq!(kept(&edits).iter().map(|(_, vip)| vip.as_str()).filter(|v| *v == "a").count(), 0);
}

#[tokio::test]
async fn nobody_takes_what_a_pool_gave_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let edits = edits(&folder, FILE).await;
    edits.begin(plain(FILE));
    let [a, b] = ["a", "b"].map(|vip| address(&edits, vip));
    let thief = Wish::Put("c".into(), json!({ "address": format!("{a}/24") }));
    let refused = edit(&edits, thief).await;
    let Err(EditRefusal::Taken(given)) = refused else { panic!("{refused:?}") };
    assert_eq!((given.vip.as_str(), given.address), ("a", a));
    let refused = edit(&edits, Wish::Reserve(b, "printer".into())).await;
    assert!(matches!(refused, Err(EditRefusal::Taken(_))), "{refused:?}");
    // Kept by hand it is stronger, and the VIP itself may move.
    let free = (100..104).map(|n| IpAddr::from([10, 0, 0, n])).find(|n| *n != a && *n != b);
    edit(&edits, Wish::Reserve(free.unwrap(), "a".into())).await.unwrap();
    assert_eq!(address(&edits, "a"), free.unwrap());
    let refused = edit(&edits, Wish::Free(free.unwrap())).await;
    assert!(matches!(refused, Err(EditRefusal::Taken(_))), "it has it: {refused:?}");
    edit(&edits, Wish::Remove("a".into())).await.unwrap();
    edit(&edits, Wish::Free(free.unwrap())).await.unwrap();
    let holders: Vec<String> = kept(&edits).into_iter().map(|(_, vip)| vip).collect();
    assert_eq!(holders, ["b"]);
}

#[tokio::test]
async fn an_address_that_somebody_on_the_segment_has_is_not_taken_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut edits = edits(&folder, FILE).await;
    edits.begin(plain(FILE));
    let known = ["a", "b"].map(|vip| address(&edits, vip));
    edits.probe = Arc::new(move |targets| {
        let (_, address) = targets.iter().find(|(_, address)| !known.contains(address))?;
        let (mac, link) = (buoy_model::Mac([2; 6]), "eth0".to_owned());
        Some(buoy_kernel::reach::Holder { address: *address, mac, link })
    });
    let told = edits.occupied();
    let refused = edit(&edits, ask("c")).await;
    let Err(EditRefusal::Occupied(occupied)) = refused else { panic!("{refused:?}") };
    assert!(!known.contains(&occupied.0.address));
    assert!(occupied.to_string().contains("02:02:02:02:02:02 answers for it on eth0"));
    assert_eq!(*told.borrow(), Some(occupied));
    assert_eq!(edits.now().revision, 0);
    // What the cluster has already is not asked for: its own nodes would answer.
    edit(&edits, Wish::Patch("a".into(), json!({ "failback": "now" }))).await.unwrap();
}
