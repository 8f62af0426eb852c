//! From a scenario that fails to a small one that fails too.

use crate::generator::{Message, Scenario};
use crate::program::{Action, Argument};

/// Smaller scenarios that are tried, at most.
const ATTEMPTS_MAX: usize = 600;

/// The smallest scenario that is found by leaving out messages, then actions, while it still fails.
pub fn minimise(scenario: Scenario, mut fails: impl FnMut(&Scenario) -> bool) -> Scenario {
    let mut smallest = scenario;
    let mut attempts = 0;
    let mut chunk = count(&smallest).next_power_of_two();
    while chunk > 0 {
        let (mut place, mut has_shrunk) = (0, false);
        while place < count(&smallest) && attempts < ATTEMPTS_MAX {
            attempts += 1;
            let candidate = without(&smallest, place, chunk);
            match fails(&candidate) {
                true => (smallest, has_shrunk) = (candidate, true),
                false => place += chunk,
            }
        }
        // What could not go alone may go now that others are gone.
        if !(has_shrunk && chunk == 1) {
            chunk /= 2;
        }
    }
    smallest
}

/// Parts that may be left out: messages and actions, each before what it contains.
fn count(scenario: &Scenario) -> usize {
    let mut parts = Parts { place: 0, remove: 0..0 };
    parts.scenario(&mut scenario.clone());
    parts.place
}

fn without(scenario: &Scenario, from: usize, parts: usize) -> Scenario {
    let mut smaller = scenario.clone();
    let mut parts = Parts {
        place: 0,
        remove: from..from + parts,
    };
    parts.scenario(&mut smaller);
    smaller
}

/// Counts the parts on the way through a scenario, and removes some.
struct Parts {
    place: usize,
    remove: std::ops::Range<usize>,
}

impl Parts {
    fn stays(&mut self) -> bool {
        let stays = !self.remove.contains(&self.place);
        self.place += 1;
        stays
    }

    fn scenario(&mut self, scenario: &mut Scenario) {
        for plan in &mut scenario.batches {
            plan.messages.retain_mut(|message| {
                let stays = self.stays();
                if let Message::Call { actions, .. } | Message::Install { actions, .. } = message {
                    self.actions(actions);
                }
                stays
            });
        }
    }

    fn actions(&mut self, actions: &mut Vec<Action>) {
        actions.retain_mut(|action| {
            let stays = self.stays();
            match action {
                Action::Hook { actions, .. } => self.actions(actions),
                Action::Call(call) => {
                    if let Argument::Program(actions) = &mut call.argument {
                        self.actions(actions);
                    }
                    self.actions(&mut call.on_reply);
                    self.actions(&mut call.on_reject);
                    if let Some(cleanup) = &mut call.on_cleanup {
                        self.actions(cleanup);
                    }
                }
                _ => {}
            }
            stays
        });
    }
}
