//! Skewed choices: a few canisters and users get most of the traffic.

use rand::Rng;

/// Zipf's law over a number of things: the thing of rank `r` is chosen with a weight of `1 / r^exponent`.
///
/// Popularity of sites, accounts and posts follows it with exponents around 1; 0 chooses evenly.
#[derive(Clone, Debug)]
pub struct Zipf {
    /// Sums of the weights up to each rank, the last of which is 1.
    cumulative: Vec<f64>,
}

impl Zipf {
    /// Over `count` things, at least one.
    pub fn new(count: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=count.max(1))
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|weight| *weight /= sum);
        Self { cumulative }
    }

    /// One of them, from 0.
    pub fn choose(&self, choices: &mut impl Rng) -> usize {
        let point: f64 = choices.random();
        self.cumulative
            .partition_point(|weight| *weight < point)
            .min(self.cumulative.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn ranks_are_chosen_by_their_weights() {
        let (zipf, mut choices) = (Zipf::new(4, 1.0), ChaCha8Rng::seed_from_u64(1));
        let mut counts = [0_u32; 4];
        (0..25_000).for_each(|_| counts[zipf.choose(&mut choices)] += 1);
        // Weights 1, 1/2, 1/3, 1/4 over 25/12.
        for (count, expected) in counts.into_iter().zip([12_000, 6_000, 4_000, 3_000]) {
            assert!(count.abs_diff(expected) < 400, "{counts:?}");
        }
    }

    #[test]
    fn exponent_zero_is_even() {
        let (zipf, mut choices) = (Zipf::new(2, 0.0), ChaCha8Rng::seed_from_u64(1));
        let first = (0..10_000).filter(|_| zipf.choose(&mut choices) == 0).count();
        assert!(first.abs_diff(5_000) < 200, "{first}");
    }
}
