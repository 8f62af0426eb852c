//! When operations arrive, where clients do not wait for one another (open loop).

use rand::Rng;
use std::time::Duration;

/// The law of arrivals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// Independent users: exponential gaps.
    Poisson,
    /// Everything of a second arrives within its first tenth: a timer, a drop, a reload.
    Bursts,
    /// Equal gaps.
    Even,
}

/// Arrival times, one after the other.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    rate: f64,
    /// Seconds since the begin, as if there were no bursts.
    next: f64,
}

impl Schedule {
    /// `rate` arrivals a second on average; it must be positive.
    pub fn new(arrivals: Arrivals, rate: f64) -> Self {
        Self {
            arrivals,
            rate,
            next: 0.0,
        }
    }

    /// The next arrival, from the begin.
    pub fn next(&mut self, choices: &mut impl Rng) -> Duration {
        let gap = match self.arrivals {
            Arrivals::Even => 1.0,
            // `random` is below 1, so the logarithm is finite.
            Arrivals::Poisson | Arrivals::Bursts => -(1.0 - choices.random::<f64>()).ln(),
        };
        self.next += gap / self.rate;
        let at = match self.arrivals {
            Arrivals::Bursts => self.next.floor() + self.next.fract() / 10.0,
            Arrivals::Poisson | Arrivals::Even => self.next,
        };
        Duration::from_secs_f64(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn arrivals(law: Arrivals) -> Vec<f64> {
        let (mut schedule, mut choices) = (Schedule::new(law, 1_000.0), ChaCha8Rng::seed_from_u64(1));
        (0..10_000).map(|_| schedule.next(&mut choices).as_secs_f64()).collect()
    }

    #[test]
    fn the_rate_is_kept_on_average() {
        for law in [Arrivals::Poisson, Arrivals::Bursts, Arrivals::Even] {
            let times = arrivals(law);
            assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{law:?}");
            assert!(
                (9.0..11.0).contains(times.last().unwrap()),
                "{law:?}: {:?}",
                times.last()
            );
        }
    }

    #[test]
    fn gaps_of_poisson_vary_as_much_as_they_last() {
        let times = arrivals(Arrivals::Poisson);
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05);
    }

    #[test]
    fn bursts_fill_the_first_tenth_of_a_second() {
        assert!(arrivals(Arrivals::Bursts).iter().all(|time| time.fract() < 0.1));
    }
}
