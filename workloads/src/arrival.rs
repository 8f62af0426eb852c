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
    /// Independent users by day and night: the rate swings between two fifths and eight fifths of the average, four to one as
    /// on sites with users of one continent, and a day lasts [`DAY`].
    Diurnal,
    /// Equal gaps.
    Even,
}

/// A day of [`Arrivals::Diurnal`]: a minute, so that a load of minutes sees some. It begins at night.
pub const DAY: Duration = Duration::from_secs(60);

/// How far the rate of a day swings around its average.
const SWING: f64 = 0.6;

/// Arrival times, one after the other.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    rate: f64,
    /// Seconds since the begin, as if there were neither bursts nor nights.
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
            Arrivals::Poisson | Arrivals::Bursts | Arrivals::Diurnal => -(1.0 - choices.random::<f64>()).ln(),
        };
        self.next += gap / self.rate;
        let at = match self.arrivals {
            Arrivals::Bursts => self.next.floor() + self.next.fract() / 10.0,
            Arrivals::Diurnal => time_of_day(self.next),
            Arrivals::Poisson | Arrivals::Even => self.next,
        };
        Duration::from_secs_f64(at)
    }
}

/// When as much has arrived by day and night as at the average rate after `average` seconds: the root of
/// `t - SWING * DAY / 2π * sin(2π t / DAY) - average`, which grows, found by halving.
fn time_of_day(average: f64) -> f64 {
    let turn = std::f64::consts::TAU / DAY.as_secs_f64();
    let arrived = |time: f64| time - SWING / turn * (turn * time).sin();
    let (mut low, mut high) = ((average - SWING / turn).max(0.0), average + SWING / turn);
    // Below a microsecond.
    for _ in 0..30 {
        let middle = (low + high) / 2.0;
        if arrived(middle) < average {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn arrivals(law: Arrivals) -> Vec<f64> {
        arrivals_at(law, 1_000.0)
    }

    fn arrivals_at(law: Arrivals, rate: f64) -> Vec<f64> {
        let (mut schedule, mut choices) = (Schedule::new(law, rate), ChaCha8Rng::seed_from_u64(1));
        (0..10_000).map(|_| schedule.next(&mut choices).as_secs_f64()).collect()
    }

    #[test]
    fn the_rate_is_kept_on_average() {
        for law in [Arrivals::Poisson, Arrivals::Bursts, Arrivals::Even, Arrivals::Diurnal] {
            let times = match law {
                // Ten seconds would be but night.
                Arrivals::Diurnal => arrivals_at(law, 10_000.0 / 60.0)
                    .iter()
                    .map(|time| time / 6.0)
                    .collect(),
                law => arrivals(law),
            };
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
    fn noon_sees_four_times_as_much_as_midnight() {
        let times = arrivals_at(Arrivals::Diurnal, 10_000.0 / 60.0);
        let around = |time: f64| times.iter().filter(|at| (*at - time).abs() < 3.0).count();
        // Midnight has one side only: the load begins there.
        let (midnight, noon) = (2 * around(0.0), around(30.0));
        assert!(
            (3.0..5.0).contains(&(noon as f64 / midnight as f64)),
            "{midnight} and {noon}"
        );
    }

    #[test]
    fn bursts_fill_the_first_tenth_of_a_second() {
        assert!(arrivals(Arrivals::Bursts).iter().all(|time| time.fract() < 0.1));
    }
}
