//! The limit of new connections of a service in the words of the programs, and back.

use buoy_model::{Per, Rate};
use buoy_xdp::forward::{APART, LIMIT_UNIT, LIMITED, POOLED, Service};

/// Where the time is of the number, which is below it.
const PER: u32 = 30;

const _: () = assert!(buoy_model::limits::RATE_MAX < 1 << PER);

/// The service with this limit, or with none.
pub(super) fn with(service: Service, rate: Option<Rate>) -> Service {
    let Some(rate) = rate else { return service };
    let interval = u64::try_from(rate.interval().as_nanos()).unwrap_or(u64::MAX) >> LIMIT_UNIT;
    Service {
        guard: service.guard | LIMITED,
        limit_burst: rate.burst(),
        limit_interval: interval,
        limit_number: rate.number() | number(rate.per()) << PER,
        ..service
    }
}

/// What `with` gave it.
pub(super) fn of(service: &Service) -> Option<Rate> {
    let per = Per::ALL.into_iter().find(|per| number(*per) == service.limit_number >> PER)?;
    let rate = Rate::new(service.limit_number & ((1 << PER) - 1), per, service.limit_burst);
    rate.filter(|_| service.guard & LIMITED != 0)
}

/// The list of clients that a service has.
pub(super) const fn list_of(service: &Service) -> u32 {
    service.guard & !(LIMITED | POOLED | APART)
}

const fn number(per: Per) -> u32 {
    match per {
        Per::Second => 0,
        Per::Minute => 1,
        Per::Hour => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_model::limits::RATE_MAX;

    #[test]
    fn a_limit_is_read_as_it_was_written_and_is_near_what_it_says() {
        let service = Service { guard: 7 | POOLED | APART, ..Service::default() };
        for per in Per::ALL {
            for (number, burst) in [(1, 1), (3, 2), (RATE_MAX, RATE_MAX)] {
                let rate = Rate::new(number, per, burst).unwrap();
                let written = with(service, Some(rate));
                assert_eq!((of(&written), list_of(&written)), (Some(rate), 7));
                let (is, exact) = (written.limit_interval << 8, rate.interval().as_nanos() as f64);
                assert!(is as f64 <= exact && exact * 0.99 <= is as f64, "{rate}: {is}");
            }
        }
        assert_eq!((of(&with(service, None)), list_of(&service)), (None, 7));
    }
}
