//! Reads lists in pages of so many VIPs, so that nobody needs all of a large cluster at once.
//!
//! A page costs what is on it: nothing is made of the VIPs before and behind it. It begins behind a name and not at a
//! place, so that a VIP that comes or goes meanwhile makes no other one be told twice or never.

use super::failure::Failure;
use super::stream::{Asked, Text};
use super::{Agent, Snapshot};
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::response::Response;
use buoy_model::{Desired, GroupId};
use serde::Deserialize;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Which part of a list is asked for.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub(super) struct Page {
    /// Of so many VIPs at most.
    limit: Option<NonZeroU32>,
    /// Of those behind this name.
    after: Option<String>,
}

/// What a list is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum About {
    /// VIPs, with all that is behind them.
    Vips,
    /// What is behind them alone: of themselves the loop is asked nothing.
    Behind,
}

/// What a page is made of.
pub(super) struct Paged {
    pub(super) snapshot: Snapshot,
    /// In the order of their ids; `None`: all.
    pub(super) groups: Option<Vec<GroupId>>,
    /// Behind which name the rest is, if there is one.
    pub(super) next: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = Query::<Self>::try_from_uri(&parts.uri);
        let Query(page) = query.map_err(|error| Failure::query(&error))?;
        Ok(page)
    }
}

impl Page {
    /// Answers with what `make` makes of it, as it was asked for; the name is that of the stream's events.
    pub(super) async fn answer<A: Agent>(
        self,
        agent: Arc<A>,
        (asked, name): (Asked, &'static str),
        about: About,
        make: fn(&Arc<A>, &Paged) -> Text,
    ) -> Result<Response, Failure> {
        let make = move |agent: Arc<A>| {
            let page = self.clone();
            async move { Ok(make(&agent, &page.read(&*agent, about).await?)) }
        };
        asked.answer(agent, name, make).await
    }

    /// What is on it now.
    async fn read<A: Agent>(&self, agent: &A, about: About) -> Result<Paged, Failure> {
        let (groups, next) = self.groups(&agent.desired());
        let of = groups.as_deref();
        let vips = match about {
            About::Vips => of,
            About::Behind => Some(&[][..]),
        };
        let asked = Snapshot::asked(agent, vips);
        let snapshot = Snapshot::with_services(agent, of, asked).await?;
        Ok(Paged { snapshot, groups, next })
    }

    /// `None`: all, whatever their names.
    fn groups(&self, desired: &Desired) -> (Option<Vec<GroupId>>, Option<String>) {
        if *self == Self::default() {
            return (None, None);
        }
        let (groups, next) = self.some(desired);
        (Some(groups), next)
    }

    fn some(&self, desired: &Desired) -> (Vec<GroupId>, Option<String>) {
        let is_behind = |name: &str| self.after.as_deref().is_none_or(|after| after < name);
        let named = desired.groups.iter().map(|group| (group.name.as_str(), group.id));
        let mut all: Vec<_> = named.filter(|(name, _)| is_behind(name)).collect();
        all.sort_unstable();
        let limit = self.limit.and_then(|limit| usize::try_from(limit.get()).ok());
        let rest = all.split_off(limit.map_or(all.len(), |limit| limit.min(all.len())));
        let last = all.last().filter(|_| !rest.is_empty());
        let next = last.map(|(name, _)| (*name).to_owned());
        let mut groups: Vec<GroupId> = all.into_iter().map(|(_, id)| id).collect();
        groups.sort_unstable();
        (groups, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: u32, after: &str) -> Page {
        let after = Some(after.to_owned()).filter(|after| !after.is_empty());
        Page { limit: NonZeroU32::new(limit), after }
    }

    #[test]
    fn pages_tell_each_vip_once_also_when_one_goes_between_two() {
        let mut desired = super::super::tests::desired();
        let group = desired.groups[0].clone();
        let named = |(id, name): (u32, &str)| buoy_model::Group {
            id: GroupId(id),
            name: name.into(),
            ..group.clone()
        };
        // The order of ids is another than that of names.
        desired.groups = [(1, "d"), (2, "a"), (3, "c"), (4, "b")].map(named).into();
        let ids = |ids: &[u32]| ids.iter().map(|id| GroupId(*id)).collect::<Vec<_>>();
        let table = [
            (page(0, ""), ids(&[1, 2, 3, 4]), None),
            (page(9, ""), ids(&[1, 2, 3, 4]), None),
            (page(4, ""), ids(&[1, 2, 3, 4]), None),
            (page(3, ""), ids(&[2, 3, 4]), Some("c")),
            (page(3, "c"), ids(&[1]), None),
            (page(1, "a"), ids(&[4]), Some("b")),
            (page(0, "bb"), ids(&[1, 3]), None),
            (page(2, "d"), ids(&[]), None),
        ];
        for (page, groups, next) in table {
            assert_eq!(page.some(&desired), (groups, next.map(str::to_owned)), "{page:?}");
        }
        desired.groups.retain(|group| group.name != "b");
        assert_eq!(page(1, "b").some(&desired), (ids(&[3]), Some("c".into())), "b has gone");
        assert_eq!(Page::default().groups(&desired), (None, None), "all");
    }
}
