//! How throughput grows with cores and holds with canisters: rounds of updates that do nothing, without network and disk.

use crate::BenchError;
use crate::measure::{Effort, Figure, seconds};
use crate::scheduler::Subnet;

/// Updates of one round.
const MESSAGES: u64 = 1_000;
/// Canisters that the messages of a round are spread over where cores are compared.
const CANISTERS: u64 = 100;

const CORES: [(usize, &str); 6] = [
    (1, "1_core"),
    (2, "2_cores"),
    (4, "4_cores"),
    (8, "8_cores"),
    (16, "16_cores"),
    (32, "32_cores"),
];

const FLEETS: [(u64, &str); 5] = [
    (1, "1_canister"),
    (10, "10_canisters"),
    (100, "100_canisters"),
    (1_000, "1000_canisters"),
    (10_000, "10000_canisters"),
];

/// `scaling.cores_rps`: updates a second on as many cores as there are, 1,000 a round over 100 canisters; beside it fewer
/// cores, by powers of two. The roots agree.
pub fn cores(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let steps: Vec<_> = CORES.iter().filter(|(cores, _)| *cores <= available).collect();
    let mut subnets = steps
        .iter()
        .map(|(cores, _)| Subnet::of_copies(CANISTERS, *cores))
        .collect::<Result<Vec<_>, _>>()?;
    let samples = effort.samples(|| {
        Ok(subnets
            .iter_mut()
            .map(|subnet| rate(subnet, effort))
            .collect::<Vec<_>>())
    })?;
    let roots: Vec<_> = subnets.iter().map(Subnet::root).collect();
    if roots.iter().any(|root| *root != roots[0]) {
        return Err(BenchError::new(
            "different numbers of cores came to different state roots",
        ));
    }
    let of = |index: usize| samples.iter().map(|rates| rates[index]).collect::<Vec<_>>();
    let figure = Figure::of("scaling.cores_rps", "1/s", of(steps.len() - 1), roots[0].clone());
    let with_steps = steps.iter().enumerate();
    Ok(vec![with_steps.fold(figure, |figure, (index, (_, name))| {
        figure.against(name, of(index))
    })])
}

/// `scaling.canisters_rps`: updates a second on one core where 1,000 a round go round 10,000 canisters; beside it fewer
/// canisters, down to one.
pub fn canisters(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let fleets: Vec<_> = FLEETS
        .iter()
        .filter(|(count, _)| *count <= effort.scale(20_000))
        .collect();
    let mut subnets = fleets
        .iter()
        .map(|(count, _)| Subnet::of_copies(*count, 1))
        .collect::<Result<Vec<_>, _>>()?;
    let samples = effort.samples(|| {
        Ok(subnets
            .iter_mut()
            .map(|subnet| rate(subnet, effort))
            .collect::<Vec<_>>())
    })?;
    let of = |index: usize| samples.iter().map(|rates| rates[index]).collect::<Vec<_>>();
    let largest = subnets.len() - 1;
    let figure = Figure::of("scaling.canisters_rps", "1/s", of(largest), subnets[largest].root());
    let with_fleets = fleets.iter().enumerate();
    Ok(vec![with_fleets.fold(figure, |figure, (index, (_, name))| {
        figure.against(name, of(index))
    })])
}

/// Updates a second over some rounds.
fn rate(subnet: &mut Subnet, effort: &Effort) -> f64 {
    let rounds = effort.scale(20);
    let mut elapsed = 0.0;
    for _ in 0..rounds {
        let messages = subnet.noops(MESSAGES);
        elapsed += seconds(|| subnet.round(messages)).0;
    }
    (rounds * MESSAGES) as f64 / elapsed
}
