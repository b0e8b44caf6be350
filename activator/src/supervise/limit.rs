//! A limit that slows down and recovers.
//!
//! A fixed window, as systemd's: the first event opens it, event number burst+1 within it is
//! refused. A refusal holds everything until the window ends. When the service behind it keeps
//! failing, each refusal in a row holds for twice as long, up to [`LONGEST_HOLD_US`]: a service
//! that cannot work costs next to nothing, and is still tried once in a while. A service that
//! ends well after each connection is only held to the rate that the unit names. The first
//! window without a refusal forgives all.

use activator::manifest::RateLimit;
use activator::wire;

/// No client waits longer than that for the next try, unless the unit's own window is longer.
pub(super) const LONGEST_HOLD_US: u64 = 60_000_000;

/// How the service behind a limit fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// The last run ended well, or there was none.
    Good,
    /// The last run failed.
    Failing,
}

/// One limit and what was counted against it. A reload keeps the count; the limit is the
/// manifest's ([`Limiter::relimit`]).
#[derive(Debug, Default)]
pub(super) struct Limiter {
    limit: RateLimit,
    /// Begin of the window; means something only if `count` is not 0.
    since: u64,
    /// Events in the window.
    count: u32,
    /// Refusals in a row while the service fails.
    strikes: u8,
    /// Refused until then.
    held_until: u64,
}

wire! {
    struct Limiter { since, count, strikes, held_until; without limit }
}

impl Limiter {
    pub(super) fn new(limit: RateLimit) -> Self {
        Self { limit, since: 0, count: 0, strikes: 0, held_until: 0 }
    }

    /// After a reload: the limit that the new manifest gives.
    pub(super) fn relimit(&mut self, limit: RateLimit) {
        self.limit = limit;
    }

    /// Counts an event, or says until when it has to wait (always later than `now`).
    pub(super) fn take(&mut self, now: u64, health: Health) -> Result<(), u64> {
        let RateLimit { interval_us, burst } = self.limit;
        if interval_us == 0 || burst == 0 {
            return Ok(());
        }
        if now < self.held_until {
            return Err(self.held_until);
        }
        if self.count == 0 || now.saturating_sub(self.since) >= interval_us {
            if self.count > 0 {
                self.strikes = 0;
            }
            self.since = now;
            self.count = 0;
        }
        if self.count < burst {
            self.count += 1;
            return Ok(());
        }
        self.strikes = match health {
            Health::Good => 0,
            Health::Failing => self.strikes.saturating_add(1).min(32),
        };
        let rest = interval_us - now.saturating_sub(self.since);
        let longer = match self.strikes {
            0 => 0,
            strikes => interval_us.saturating_mul(1 << (strikes - 1)).min(LONGEST_HOLD_US),
        };
        self.held_until = now.saturating_add(rest.max(longer));
        self.count = 0;
        Err(self.held_until)
    }

    /// Takes back the last event that was counted: it came to nothing.
    pub(super) fn give_back(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// Until when it refuses, if it does.
    pub(super) fn held(&self, now: u64) -> Option<u64> {
        (now < self.held_until).then_some(self.held_until)
    }

    /// A person has asked: nothing has happened.
    pub(super) fn forgive(&mut self) {
        *self = Self::new(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_in_ten() -> Limiter {
        Limiter::new(RateLimit { interval_us: 10, burst: 2 })
    }

    #[test]
    fn the_third_in_a_window_waits_until_it_ends() {
        let mut limiter = two_in_ten();
        assert_eq!(limiter.take(100, Health::Good), Ok(()));
        assert_eq!(limiter.take(103, Health::Good), Ok(()));
        assert_eq!(limiter.take(104, Health::Good), Err(110));
        assert_eq!(limiter.take(109, Health::Good), Err(110));
        assert_eq!(limiter.take(110, Health::Good), Ok(()));
    }

    #[test]
    fn a_failing_service_waits_twice_as_long_each_time_up_to_the_cap() {
        let mut limiter = Limiter::new(RateLimit { interval_us: 10_000_000, burst: 1 });
        let mut now = 0;
        let mut holds = vec![];
        for _ in 0..5 {
            assert_eq!(limiter.take(now, Health::Failing), Ok(()));
            let until = limiter.take(now, Health::Failing).unwrap_err();
            holds.push((until - now) / 1_000_000);
            now = until;
        }
        assert_eq!(holds, [10, 20, 40, 60, 60]);
    }

    #[test]
    fn a_quiet_window_forgives() {
        let mut limiter = two_in_ten();
        for now in [0, 0] {
            assert_eq!(limiter.take(now, Health::Failing), Ok(()));
        }
        assert_eq!(limiter.take(0, Health::Failing), Err(10));
        assert_eq!(limiter.take(10, Health::Good), Ok(()));
        assert_eq!(limiter.take(20, Health::Good), Ok(()));
        assert_eq!(limiter.strikes, 0);
    }

    #[test]
    fn zero_switches_it_off() {
        for (interval_us, burst) in [(0, 5), (5, 0)] {
            let mut limiter = Limiter::new(RateLimit { interval_us, burst });
            assert!((0..1000).all(|_| limiter.take(7, Health::Failing) == Ok(())));
        }
    }
}
