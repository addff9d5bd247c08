//! Who shops in the demo: users come, their profile is told, they act for a while, and go.
//!
//! Owns the topic of profiles, which several scenarios join. A profile is told again with every visit, sometimes
//! later than what its user did; guests have none.

use super::{Chance, Event, What};
use std::collections::VecDeque;

pub const TOPIC: &str = "user-profiles";
/// Of the profiles and of every topic that is joined with them.
pub const PARTITIONS: i32 = 4;

/// So many are there at a time: at any rate a visit is short beside the windows of the scenarios.
const PRESENT: usize = 64;
const USERS: u64 = 5_000;
const FIRST_USER: u64 = 100_000;
/// Numbers that no profile has.
const GUESTS: u64 = 1_000;
const FIRST_GUEST: u64 = 900_000;

/// Of a hundred events, this many are profiles.
const PROFILE_PERCENT: u64 = 10;
/// Of a hundred profiles, this many come later than what their users do, by up to [`LATE_MS_MAX`].
const LATE_PERCENT: u64 = 10;
const LATE_MS_MAX: u64 = 3_000;
/// Of a hundred deeds, this many are of guests.
const GUEST_PERCENT: u64 = 3;

const COUNTRIES: [&str; 8] = ["DE", "FR", "US", "GB", "JP", "PL", "ES", "NL"];
const TIERS: [&str; 4] = ["new", "bronze", "silver", "gold"];
const NAMES: [&str; 10] = ["Ada", "Emmy", "Grace", "Hedy", "Ines", "Lise", "Maria", "Noor", "Sofia", "Wanda"];

#[derive(Clone, Debug)]
pub struct Users {
    present: VecDeque<u64>,
    /// Profiles on their way, with the time at which they are told; in the order of their users' visits.
    late: VecDeque<(i64, Event)>,
}

impl Users {
    pub fn new() -> Users {
        Users { present: VecDeque::with_capacity(PRESENT), late: VecDeque::new() }
    }

    /// The profile that is to be told now, if one is.
    pub fn next_profile(&mut self, chance: &mut Chance, now_ms: i64) -> Option<Event> {
        if self.late.front().is_some_and(|(due_ms, _)| *due_ms <= now_ms) {
            return self.late.pop_front().map(|(_, event)| event);
        }
        if self.present.len() == PRESENT && !chance.percent(PROFILE_PERCENT) {
            return None;
        }
        let user = FIRST_USER + chance.below(USERS);
        if self.present.len() == PRESENT {
            self.present.pop_front();
        }
        self.present.push_back(user);
        let event = profile(user, chance, now_ms);
        if self.present.len() < PRESENT || !chance.percent(LATE_PERCENT) {
            return Some(event);
        }
        self.late.push_back((now_ms + chance.below(LATE_MS_MAX) as i64, event));
        None
    }

    /// Whoever acts now. (Some user is present once the first profile was asked for.)
    pub fn who(&self, chance: &mut Chance) -> u64 {
        if self.present.is_empty() || chance.percent(GUEST_PERCENT) {
            return FIRST_GUEST + chance.below(GUESTS);
        }
        self.present[chance.below(self.present.len() as u64) as usize]
    }

    /// Profiles on their way still.
    pub fn late_profiles(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.late).into_iter().map(|(_, event)| event).collect()
    }
}

fn profile(user: u64, chance: &mut Chance, now_ms: i64) -> Event {
    let name = chance.pick(&NAMES);
    // Where somebody lives does not change from visit to visit, what he is to the shop does.
    let country = COUNTRIES[(user % COUNTRIES.len() as u64) as usize];
    let tier = chance.pick(&TIERS);
    let payload = format!(
        r#"{{"user_id":{user},"name":"{name} {}","country":"{country}","tier":"{tier}","updated_at":{now_ms}}}"#,
        user % 997
    );
    Event { topic: TOPIC, key: user.to_string(), payload: payload.into_bytes(), what: What::Other }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn everybody_present_has_a_profile_that_was_told_or_comes_soon() {
        let (mut users, mut chance) = (Users::new(), Chance::new(1));
        let mut told = BTreeSet::new();
        let mut deeds = (0, 0);
        for now_ms in 0..200_000 {
            if let Some(event) = users.next_profile(&mut chance, now_ms) {
                told.insert(event.key);
                continue;
            }
            let who = users.who(&mut chance).to_string();
            deeds.0 += 1;
            deeds.1 += u64::from(told.contains(&who));
        }
        let late = users.late.len() as u64;
        assert!(late < LATE_MS_MAX, "{late} on their way");
        let share = deeds.1 as f64 / deeds.0 as f64;
        assert!((0.93..0.98).contains(&share), "{share} of the deeds had a profile before them");
    }

    #[test]
    fn late_profiles_are_told_at_the_end_at_the_latest() {
        let (mut users, mut chance) = (Users::new(), Chance::new(2));
        for _ in 0..5_000 {
            users.next_profile(&mut chance, 0);
        }
        let late = users.late.len();
        assert!(late > 10);
        assert_eq!(users.late_profiles().len(), late);
        assert_eq!(users.late_profiles().len(), 0);
    }
}
