//! `buoy move`, `buoy hold` and `buoy release`: puts a VIP where an operator wants it.
//!
//! The order is given to any agent, which passes it on to that of the owner; what comes of it is watched in the status,
//! so that the command ends with what is, and not with what was asked for.

use crate::AgentSocket;
use crate::consent::Consent;
use crate::failure::{Exit, Failure};
use crate::output::{self, Form};
use crate::progress::Progress;
use crate::table::plain;
use crate::time;
use buoy_api::{
    Client, ClientError, HeldView, HoldRequest, MoveRequest, OrderReply, ReleaseRequest, VipView,
    words,
};
use serde::Serialize;
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks at the status while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a released VIP is watched: where it stays for so long it belongs, for now.
const SETTLE: Duration = Duration::from_millis(500);

#[derive(clap::Args, Debug)]
pub(crate) struct MoveArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Its name, or one of its addresses
    vip: String,
    /// The node that is to own it
    #[arg(long, value_name = "NODE")]
    to: String,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args, Debug)]
pub(crate) struct HoldArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Its name, or one of its addresses
    vip: String,
    /// Free to move again after so long, as in 10m
    #[arg(long = "for", value_name = "TIME", value_parser = time::duration)]
    time: Option<Duration>,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ReleaseArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Its name, or one of its addresses
    vip: String,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args, Debug)]
struct Common {
    /// For the record and for `buoy why`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long to wait for it to be so
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time::duration)]
    timeout: Duration,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// What came of an order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Outcome {
    vip: String,
    order: String,
    /// Whether it is so now.
    done: bool,
    /// Who owned it when the order was given.
    from: String,
    /// Who owns it now.
    owner: Option<String>,
    epoch: u32,
    took_ms: u64,
    held: Option<HeldView>,
    /// All of this for people.
    sentence: String,
}

pub(crate) fn move_vip(arguments: MoveArguments) -> Result<(), Failure> {
    let MoveArguments { agent, vip, to, consent, common } = arguments;
    let question =
        format!("Move {} to {}? What its clients do goes there.", plain(&vip), plain(&to));
    if !consent.given(common.output, &question)? {
        return Ok(());
    }
    let client = agent.client()?;
    let request = MoveRequest { to, reason: common.reason.clone() };
    let reply = client.move_vip(&vip, &request)?;
    let wanted = request.to;
    let watch = Watch::start(&client, &reply);
    let seen = watch.until(common.timeout, |vip| {
        vip.owner.as_ref() == Some(&wanted) && (reply.order == "move" || vip.held.is_some())
    })?;
    let outcome = moved(&reply, &wanted, &seen);
    finish(&outcome, common.output)
}

pub(crate) fn hold(arguments: HoldArguments) -> Result<(), Failure> {
    let client = arguments.agent.client()?;
    let HoldArguments { vip, time, common, .. } = arguments;
    let request = HoldRequest { reason: common.reason.clone(), for_ms: time.map(time::millis) };
    let reply = client.hold(&vip, &request)?;
    let watch = Watch::start(&client, &reply);
    let ours = |held: &HeldView| held.reason.is_empty() || held.reason == reply.reason;
    let seen = watch.until(common.timeout, |vip| vip.held.as_ref().is_some_and(ours))?;
    finish(&held(&reply, &seen), common.output)
}

pub(crate) fn release(arguments: ReleaseArguments) -> Result<(), Failure> {
    let client = arguments.agent.client()?;
    let ReleaseArguments { vip, common, .. } = arguments;
    let reply = client.release(&vip, &ReleaseRequest { reason: common.reason.clone() })?;
    let watch = Watch::start(&client, &reply);
    let mut seen = watch.until(common.timeout, |vip| vip.held.is_none())?;
    if seen.done {
        let moved = |vip: &VipView| vip.owner.as_ref() != Some(&reply.node) && vip.owner.is_some();
        let settled = watch.until(SETTLE, moved)?;
        // A VIP that stays has done so at once; one that went has done so when it was seen to.
        let took = if settled.done { settled.took } else { seen.took };
        seen = Seen { done: true, took, vip: settled.vip };
    }
    finish(&released(&reply, &seen), common.output)
}

/// One VIP after an order.
struct Watch<'c> {
    client: &'c Client,
    vip: &'c str,
    order: &'c str,
    started: Instant,
}

/// What a watch ended with.
struct Seen {
    /// Whether what was waited for came.
    done: bool,
    took: Duration,
    vip: VipView,
}

impl<'c> Watch<'c> {
    fn start(client: &'c Client, reply: &'c OrderReply) -> Self {
        Self { client, vip: &reply.vip, order: &reply.order, started: Instant::now() }
    }

    fn until(
        &self,
        limit: Duration,
        wanted: impl Fn(&VipView) -> bool,
    ) -> Result<Seen, ClientError> {
        let deadline = Instant::now() + limit;
        let progress = Progress::start(&format!("{}: {}", self.order, self.vip));
        loop {
            let vip = self.client.why(self.vip)?.vip;
            let owner = vip.owner.as_deref().unwrap_or("nobody");
            progress.say(format!("{}: {owner} owns {} at the moment", self.order, self.vip));
            let took = self.started.elapsed();
            let done = wanted(&vip);
            if done || deadline < Instant::now() {
                return Ok(Seen { done, took, vip });
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

fn outcome(reply: &OrderReply, seen: &Seen, sentence: String) -> Outcome {
    Outcome {
        vip: reply.vip.clone(),
        order: reply.order.clone(),
        done: seen.done,
        from: reply.node.clone(),
        owner: seen.vip.owner.clone(),
        epoch: seen.vip.epoch,
        took_ms: time::millis(seen.took),
        held: seen.vip.held.clone(),
        sentence,
    }
}

fn moved(reply: &OrderReply, to: &str, seen: &Seen) -> Outcome {
    let OrderReply { vip, node, .. } = reply;
    let took = words::span(seen.took);
    let sentence = if !seen.done {
        let owner = seen.vip.owner.as_deref().unwrap_or("nobody");
        let candidate = seen.vip.candidates.iter().find(|c| c.node == to);
        let why = candidate.map_or("nothing is known of it", |c| c.reason.as_str());
        format!(
            "after {took} {owner} owns {vip}, not {to}: {to} {why} (`buoy why {vip}` says more)"
        )
    } else if node == to {
        format!("{to} owns {vip} already; it stays there until `buoy move` or `buoy release`")
    } else {
        let epoch = seen.vip.epoch;
        format!(
            "{to} owns {vip} now (epoch {epoch}), {took} after the order; it stays there until \
             `buoy move` or `buoy release`"
        )
    };
    outcome(reply, seen, sentence)
}

fn held(reply: &OrderReply, seen: &Seen) -> Outcome {
    let OrderReply { vip, node, .. } = reply;
    let sentence = if seen.done {
        let end = reply.for_ms.map_or_else(
            || "until `buoy release`".into(),
            |millis| format!("for {}", words::written(Duration::from_millis(millis))),
        );
        format!("{node} keeps {vip} {end}: {} (a failure still moves it)", reply.reason)
    } else {
        format!("after {} {node} does not hold {vip}: see `buoy why {vip}`", words::span(seen.took))
    };
    outcome(reply, seen, sentence)
}

fn released(reply: &OrderReply, seen: &Seen) -> Outcome {
    let OrderReply { vip, node, .. } = reply;
    let took = words::span(seen.took);
    let sentence = match (seen.done, &seen.vip.owner) {
        (false, _) => format!("after {took} {vip} is still held: see `buoy why {vip}`"),
        (true, Some(owner)) if owner == node => {
            let failback = &seen.vip.failback;
            format!("{vip} is free to move again; {node} owns it (failback: {failback})")
        }
        (true, Some(owner)) => {
            format!("{vip} is free to move again; {owner} owns it now, {took} after the order")
        }
        (true, None) => format!("{vip} is free to move again; nobody owns it at the moment"),
    };
    outcome(reply, seen, sentence)
}

fn finish(outcome: &Outcome, form: Form) -> Result<(), Failure> {
    match (form, outcome.done) {
        (Form::Table, true) => output::text(&format!("{}\n", plain(&outcome.sentence))),
        (Form::Table, false) => Err(Failure::failed(plain(&outcome.sentence))),
        (form @ (Form::Json | Form::Yaml), true) => output::value(form, outcome),
        (form @ (Form::Json | Form::Yaml), false) => {
            output::value(form, outcome)?;
            Err(Failure::said(Exit::Failed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::CandidateView;

    fn reply(order: &str) -> OrderReply {
        OrderReply {
            vip: "web".into(),
            node: "lb1".into(),
            epoch: 7,
            order: order.into(),
            reason: "patching (by ann)".into(),
            ..OrderReply::default()
        }
    }

    fn seen(done: bool, owner: &str) -> Seen {
        let vip = VipView {
            name: "web".into(),
            owner: Some(owner.into()),
            epoch: 8,
            failback: "never".into(),
            candidates: vec![CandidateView {
                node: "lb2".into(),
                reason: "silent for 4.0 s".into(),
                ..CandidateView::default()
            }],
            ..VipView::default()
        };
        Seen { done, took: Duration::from_millis(31), vip }
    }

    #[test]
    fn an_order_ends_with_what_is() {
        let timed = OrderReply { for_ms: Some(600_000), ..reply("hold") };
        let table = [
            (
                moved(&reply("move"), "lb2", &seen(true, "lb2")),
                "lb2 owns web now (epoch 8), 31 ms after the order; it stays there until \
                 `buoy move` or `buoy release`",
            ),
            (
                moved(&reply("move"), "lb2", &seen(false, "lb1")),
                "after 31 ms lb1 owns web, not lb2: lb2 silent for 4.0 s \
                 (`buoy why web` says more)",
            ),
            (
                moved(&reply("hold"), "lb1", &seen(true, "lb1")),
                "lb1 owns web already; it stays there until `buoy move` or `buoy release`",
            ),
            (
                held(&reply("hold"), &seen(true, "lb1")),
                "lb1 keeps web until `buoy release`: patching (by ann) (a failure still moves it)",
            ),
            (
                held(&timed, &seen(true, "lb1")),
                "lb1 keeps web for 10m: patching (by ann) (a failure still moves it)",
            ),
            (
                held(&timed, &seen(false, "lb1")),
                "after 31 ms lb1 does not hold web: see `buoy why web`",
            ),
            (
                released(&reply("release"), &seen(true, "lb1")),
                "web is free to move again; lb1 owns it (failback: never)",
            ),
            (
                released(&reply("release"), &seen(true, "lb3")),
                "web is free to move again; lb3 owns it now, 31 ms after the order",
            ),
            (
                released(&reply("release"), &seen(false, "lb1")),
                "after 31 ms web is still held: see `buoy why web`",
            ),
        ];
        for (outcome, sentence) in table {
            assert_eq!(outcome.sentence, sentence);
        }
    }

    #[test]
    fn an_order_that_came_to_nothing_is_a_failure() {
        let failed = finish(&moved(&reply("move"), "lb2", &seen(false, "lb1")), Form::Table);
        assert_eq!(failed.unwrap_err().exit, Exit::Failed);
        let value = serde_json::to_value(moved(&reply("move"), "lb2", &seen(true, "lb2"))).unwrap();
        assert_eq!((&value["done"], &value["owner"]), (&true.into(), &"lb2".into()));
        assert_eq!((&value["from"], &value["took_ms"]), (&"lb1".into(), &31.into()));
    }
}
