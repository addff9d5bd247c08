//! A group as its broker sees it: members, who has which partition, committed offsets.
//!
//! Owns the rebalance: sticky and cooperative, a partition reaches its next owner only when the last one gave it
//! up or is gone. Promises: members are served in the order they joined.

use crate::source::{CommitOutcome, GroupEvent, OffsetsToCommit};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a broker takes by default (`offset.metadata.max.bytes`).
pub(super) const METADATA_CHARS_MAX: usize = 4096;

pub(super) struct GroupState {
    pub topic: String,
    partitions: i32,
    /// By the number they got when they joined.
    pub members: BTreeMap<u64, MemberState>,
    pub committed: BTreeMap<(String, i32), (i64, String)>,
}

#[derive(Default)]
pub(super) struct MemberState {
    instance_id: Option<String>,
    target: BTreeSet<i32>,
    owned: BTreeSet<i32>,
    /// Asked back and not given yet.
    revoking: BTreeSet<i32>,
    pub events: VecDeque<GroupEvent>,
    /// Of these it was told, and has not given them yet.
    told: BTreeSet<i32>,
    /// A rebalance began and this member has not polled since.
    pub rejoining: bool,
}

impl GroupState {
    pub fn new(topic: &str, partitions: i32) -> GroupState {
        GroupState { topic: topic.into(), partitions, members: BTreeMap::new(), committed: BTreeMap::new() }
    }

    /// A member joins; one with the same instance id hands its partitions over and is gone.
    pub fn join(&mut self, member: u64, instance_id: Option<&str>) {
        let earlier = instance_id.and_then(|id| self.number_of(id));
        let mut state = MemberState { instance_id: instance_id.map(String::from), ..MemberState::default() };
        if let Some(twin) = earlier.and_then(|number| self.members.remove(&number)) {
            state.target = twin.target;
            state.owned = twin.owned.intersection(&state.target).copied().collect();
            state.events.push_back(GroupEvent::Assigned(state.owned.iter().copied().collect()));
            self.members.insert(member, state);
            return self.hand_over();
        }
        self.members.insert(member, state);
        self.balance();
    }

    pub fn leave(&mut self, member: u64) {
        if self.members.remove(&member).is_some() {
            self.balance();
        }
    }

    pub fn expire(&mut self, instance_id: &str) {
        let number = self.number_of(instance_id).expect("a member that expires is in the group");
        self.leave(number);
    }

    pub fn rejoin_all(&mut self) {
        self.members.values_mut().for_each(|member| member.rejoining = true);
    }

    pub fn resize(&mut self, partitions: i32) {
        self.partitions = partitions;
        self.balance();
    }

    /// The client gave partitions up: what was asked back goes to its next owner. What was not, is still the
    /// member's, for the broker hears of an assignment only when somebody joins.
    pub fn unassign(&mut self, member: u64, partitions: &[i32]) {
        let Some(state) = self.members.get_mut(&member) else { return };
        let mut gave_back = false;
        for partition in partitions {
            state.told.remove(partition);
            if state.revoking.remove(partition) {
                state.owned.remove(partition);
                gave_back = true;
            }
        }
        if gave_back {
            self.hand_over();
            self.end_round(member);
        }
    }

    /// Who gave back joins again, and is told so even where it gets nothing.
    fn end_round(&mut self, member: u64) {
        if let Some(state) = self.members.get_mut(&member)
            && state.events.is_empty()
            && state.revoking.is_empty()
        {
            state.events.push_back(GroupEvent::Assigned(vec![]));
        }
    }

    /// The next event; while partitions are being given back, nothing new is assigned.
    pub fn next_event(&mut self, member: u64) -> Option<GroupEvent> {
        let state = self.members.get_mut(&member)?;
        let event = state.events.front()?;
        match event {
            GroupEvent::Assigned(_) if !state.told.is_empty() => return None,
            GroupEvent::Revoked { partitions, .. } => state.told.extend(partitions),
            _ => {}
        }
        state.events.pop_front()
    }

    /// The broker asks who commits, not what is his.
    pub fn commit(&mut self, member: u64, topics: &[String], tasks: &[OffsetsToCommit]) -> CommitOutcome {
        match self.members.get(&member) {
            None => CommitOutcome::Fenced("unknown member".into()),
            Some(state) if state.rejoining => CommitOutcome::Repeat("rebalance in progress".into()),
            Some(_) => self.apply(topics, tasks),
        }
    }

    /// Each partition by itself: what lies beside a mark that is too long is taken all the same.
    fn apply(&mut self, topics: &[String], tasks: &[OffsetsToCommit]) -> CommitOutcome {
        let mut outcome = CommitOutcome::Accepted;
        for task in tasks {
            assert_eq!(task.offsets.len(), topics.len(), "an entry for each topic");
            for (index, (topic, offset)) in topics.iter().zip(&task.offsets).enumerate() {
                let Some(offset) = offset else {
                    assert!(index > 0, "the mark goes with the first topic's offset");
                    continue;
                };
                let metadata = if index == 0 { task.metadata.clone() } else { String::new() };
                if metadata.len() > METADATA_CHARS_MAX {
                    outcome = CommitOutcome::Repeat(format!("metadata too large (`{topic}` {})", task.partition));
                    continue;
                }
                self.committed.insert((topic.clone(), task.partition), (*offset, metadata));
            }
        }
        outcome
    }

    pub fn has_instance(&self, instance_id: &str) -> bool {
        self.number_of(instance_id).is_some()
    }

    fn number_of(&self, instance_id: &str) -> Option<u64> {
        let of = |state: &MemberState| state.instance_id.as_deref() == Some(instance_id);
        self.members.iter().find(|(_, state)| of(state)).map(|(number, _)| *number)
    }

    /// Decides anew who shall have what: everyone keeps what he has, up to his share.
    fn balance(&mut self) {
        self.rejoin_all();
        let count = self.members.len() as i32;
        if count == 0 {
            return;
        }
        let (share, more) = (self.partitions / count, self.partitions % count);
        let mut free: BTreeSet<i32> = (0..self.partitions).collect();
        for (index, member) in self.members.values_mut().enumerate() {
            let quota = (share + i32::from((index as i32) < more)) as usize;
            member.target = member.target.intersection(&free).copied().take(quota).collect();
            free.retain(|partition| !member.target.contains(partition));
        }
        for (index, member) in self.members.values_mut().enumerate() {
            let quota = (share + i32::from((index as i32) < more)) as usize;
            while member.target.len() < quota {
                member.target.extend(free.pop_first());
            }
        }
        self.hand_over();
    }

    /// Asks back what is another's, and gives what nobody holds any more.
    fn hand_over(&mut self) {
        let mut held = BTreeSet::new();
        for member in self.members.values_mut() {
            let back: Vec<i32> = member.owned.difference(&member.target).copied().collect();
            let back: Vec<i32> = back.into_iter().filter(|partition| member.revoking.insert(*partition)).collect();
            if !back.is_empty() {
                member.events.push_back(GroupEvent::Revoked { partitions: back, lost: false });
            }
            held.extend(member.owned.iter().copied());
        }
        for member in self.members.values_mut() {
            let given: Vec<i32> = member.target.iter().copied().filter(|partition| !held.contains(partition)).collect();
            if !given.is_empty() {
                member.owned.extend(&given);
                member.events.push_back(GroupEvent::Assigned(given));
            }
        }
    }
}
