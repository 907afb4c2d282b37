//! Asks this host one thing once: a process, a server, a program, a file, an interface, a gateway.
//!
//! The caller limits the time and drops the question. What may wait on the kernel or on a disk is asked
//! on a thread of its own, one question at a time, so that a hanging file system holds up
//! neither the other checks nor the end of the agent. What is wrong comes back in words for people.

use crate::health::ask::apart::Apart;
use crate::health::ask::exec::{self, Program};
use crate::health::ask::local::{self, Seeker};
use crate::health::ask::{Answer, Asker as ServerAsker, Said, Target};
use buoy_kernel::netlink::Requests;
use buoy_kernel::reach;
use buoy_model::{LinkId, NodeCheck, NodeCheckKind};
use std::net::IpAddr;
use std::time::Duration;

/// The question of one check.
#[derive(Debug)]
pub(super) struct Asker {
    question: Question,
    timeout: Duration,
    apart: Apart,
}

#[derive(Debug)]
enum Question {
    Process(Seeker),
    Server(ServerAsker),
    Exec(Program),
    File { path: String, present: bool },
    Link { name: String },
    Gateway { address: IpAddr, link: Option<LinkId> },
}

impl Asker {
    pub(super) fn new(check: &NodeCheck) -> Self {
        let question = match check.kind.clone() {
            NodeCheckKind::Process { name } => Question::Process(Seeker::new(name)),
            NodeCheckKind::Server { address, kind } => {
                Question::Server(ServerAsker::new(&kind, &Target::server(address)))
            }
            NodeCheckKind::Exec { program, arguments } => Question::Exec(Program {
                path: program,
                arguments,
                environment: Vec::new(),
                input: None,
                user: None,
                heard: false,
            }),
            NodeCheckKind::File { path, present } => Question::File { path, present },
            NodeCheckKind::Link { name } => Question::Link { name },
            NodeCheckKind::Gateway { address, link } => Question::Gateway { address, link },
        };
        Self { question, timeout: check.pace.timeout, apart: Apart::new() }
    }

    /// `Err` says what is wrong.
    pub(super) async fn ask(&self) -> Answer {
        let said = match &self.question {
            Question::Process(seeker) => {
                let seeker = seeker.clone();
                self.apart.run(move |_| seeker.look()).await
            }
            Question::Server(asker) => return asker.ask().await,
            Question::Exec(program) => exec::run(&self.apart, program).await.map(drop),
            Question::File { path, present } => {
                let (path, present) = (path.clone(), *present);
                self.apart.run(move |_| local::present(&path, present)).await
            }
            Question::Link { name } => {
                let name = name.clone();
                self.apart.run(move |_| link(&name)).await
            }
            Question::Gateway { address, link: None } => {
                Err(format!("no interface of this host leads to {address}"))
            }
            Question::Gateway { address, link: Some(link) } => {
                let (address, link, within) = (*address, *link, self.timeout);
                self.apart
                    .run(move |wanted| {
                        reach::ask(link, address, within, wanted).map_err(|e| e.to_string())
                    })
                    .await
            }
        };
        said.map(|()| Said::default())
    }
}

fn link(name: &str) -> Result<(), String> {
    let links = Requests::open().and_then(|mut requests| requests.links());
    let links = links.map_err(|e| format!("cannot list the interfaces: {e}"))?;
    match links.iter().find(|link| link.name == name) {
        Some(link) if link.up => Ok(()),
        Some(_) => Err(format!("{name} is down or has no carrier")),
        None => Err(format!("there is no interface {name}")),
    }
}
