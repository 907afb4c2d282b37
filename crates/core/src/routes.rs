//! Decides which backends take connections for which server name, where a service has backends of single names.
//!
//! Backends that stand together at a name are a service of their own to their clients: their backups are used when
//! none of them is up, whatever others do. Backends at no name are for all other names, and for who names none.

use crate::balance;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use buoy_model::{Backend, BackendState, Route, ServerName, Service};

/// The backends of one name that take connections now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Taking {
    /// `None`: all other names.
    pub name: Option<ServerName>,
    /// Their places in `Service::backends`, in that order.
    pub places: Vec<usize>,
}

/// Who takes connections of which name, the other names last; one entry for a service without names. A name whose
/// backends are all down has an entry without places: its clients are not given to others.
pub fn taking(service: &Service, states: &[BackendState]) -> Vec<Taking> {
    let among = |places: &[usize]| -> Vec<usize> {
        let backends: Vec<Backend> = places.iter().map(|&i| service.backends[i].clone()).collect();
        let state = |i: &usize| states.get(*i).copied().unwrap_or(BackendState::Unknown);
        let states: Vec<BackendState> = places.iter().map(state).collect();
        let shares = balance::shares_of_quorum(&backends, &states, service.life.quorum);
        shares.iter().map(|share| places[share.backend]).collect()
    };
    let mut all: Vec<Taking> = service
        .front
        .routes
        .iter()
        .map(|route| Taking {
            name: Some(route.name.clone()),
            places: among(&places(service, route)),
        })
        .collect();
    all.push(Taking { name: None, places: among(&others(service)) });
    all
}

/// The backends that a route names.
pub fn places(service: &Service, route: &Route) -> Vec<usize> {
    let named = |i: &usize| route.backends.contains(&service.backends[*i].name);
    (0..service.backends.len()).filter(named).collect()
}

/// The backends that no route names.
pub fn others(service: &Service) -> Vec<usize> {
    let named: BTreeSet<&str> =
        service.front.routes.iter().flat_map(|r| &r.backends).map(|n| n.as_str()).collect();
    let backends = service.backends.iter().enumerate();
    backends.filter(|(_, b)| !named.contains(b.name.as_str())).map(|(i, _)| i).collect()
}

/// The place in the list of the names that are meant by the name of a server, if it has one: the closest, or the others.
pub fn find<'n>(
    names: impl Iterator<Item = Option<&'n ServerName>>,
    wanted: Option<&str>,
) -> Option<usize> {
    let fits = |name: Option<&ServerName>| match (name, wanted) {
        (None, Some(_) | None) => Some(0),
        (Some(name), Some(wanted)) => name.fits(wanted).map(|length| length.saturating_add(1)),
        (Some(_), None) => None,
    };
    let fitting = names.enumerate().filter_map(|(place, name)| Some((fits(name)?, place)));
    fitting.max_by_key(|(length, _)| *length).map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::sync::Arc;
    use alloc::vec;
    use buoy_model::{
        BackendLife, Balance, Front, Mode, Ports, Protocol, SendProxy, SourceAddress,
    };
    use core::time::Duration;

    fn name(text: &str) -> ServerName {
        ServerName::new(text).unwrap()
    }

    /// `web` and `web2` for one name, `api` for another one with `sorry` as its backup, `rest` for all others.
    fn service() -> Service {
        let backend = |name: &str, backup| Backend {
            backup,
            ..Backend::new(name, "10.0.0.21:443".parse().unwrap())
        };
        let names = |list: &[&str]| list.iter().map(|n| String::from(*n)).collect();
        let route = |text: &str, list: &[&str]| Route { name: name(text), backends: names(list) };
        let routes = [route("a.example", &["web", "web2"]), route("*.example", &["api", "sorry"])];
        Service {
            addresses: vec![],
            protocol: Protocol::Tcp,
            ports: Ports::one(443),
            mode: Mode::Proxy,
            balance: Balance::RoundRobin,
            source: SourceAddress::Vip,
            send_proxy: SendProxy::Off,
            connections_max: 1,
            idle_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            sources: Arc::default(),
            new_connections: None,
            life: BackendLife::default(),
            front: Front { routes: routes.into(), ..Front::default() },
            backends: ["web", "web2", "api", "rest"]
                .map(|name| backend(name, false))
                .into_iter()
                .chain([backend("sorry", true)])
                .collect(),
            discovered: vec![],
            check: None,
        }
    }

    #[test]
    fn the_backup_of_a_name_is_used_when_that_names_backends_are_down() {
        use BackendState::{Down, Up};
        let places = |states: [BackendState; 5]| -> Vec<Vec<usize>> {
            taking(&service(), &states).into_iter().map(|lane| lane.places).collect()
        };
        assert_eq!(places([Up; 5]), [vec![0, 1], vec![2], vec![3]]);
        assert_eq!(places([Down, Up, Down, Up, Up]), [vec![1], vec![4], vec![3]]);
        assert_eq!(places([Down, Down, Up, Up, Up]), [vec![], vec![2], vec![3]]);
        let mut plain = service();
        plain.front = Front::default();
        let all = taking(&plain, &[Up; 5]);
        assert_eq!(all, [Taking { name: None, places: vec![0, 1, 2, 3] }]);
    }

    #[test]
    fn the_closest_name_is_meant_and_no_name_means_the_others() {
        let names =
            [Some(name("*.example")), Some(name("*.b.example")), Some(name("b.example")), None];
        let find = |wanted| find(names.iter().map(Option::as_ref), wanted);
        assert_eq!(find(Some("x.example")), Some(0));
        assert_eq!(find(Some("x.b.example")), Some(1));
        assert_eq!(find(Some("b.example")), Some(2));
        assert_eq!(find(Some("example")), Some(3));
        assert_eq!(find(None), Some(3));
        assert_eq!(
            super::find([Some(&names[0])].into_iter().map(|n| n.unwrap().as_ref()), None),
            None
        );
    }
}
