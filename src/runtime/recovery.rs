//! How a task begins: the table of start and hand-over (`exactly-once.md`), as a pure function.
//!
//! Owns the decision and nothing else: it looks at the ledger, the committed offsets and their mark, the topics
//! and the logs, and answers with a [`Start`]. Reads and writes nothing, so that every row of the table is a test.

mod replay;

pub use replay::replay_ending;

use crate::error::{Error, Result};
use crate::source::{CommittedOffsets, TopicInfo};
use crate::state::ledger::{EpochRecord, Ledger, Mark, MarkRead, Moment, Pending, Progress};
use crate::types::{Epoch, Incarnation, TopicId};

/// The rows of the table, by their names in logs and in `recoveries_total{case}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Case {
    New,
    Unmarked,
    Reset,
    Recreated,
    Foreign,
    Replanned,
    Continue,
    CatchUp,
    Restore,
}

impl Case {
    pub fn name(self) -> &'static str {
        match self {
            Case::New => "new",
            Case::Unmarked => "unmarked",
            Case::Reset => "reset",
            Case::Recreated => "recreated",
            Case::Foreign => "foreign",
            Case::Replanned => "replanned",
            Case::Continue => "continue",
            Case::CatchUp => "catch_up",
            Case::Restore => "restore",
        }
    }
}

/// What is known of one partition when it is given to us.
pub struct Facts<'a> {
    pub pipeline: &'a str,
    pub partition: i32,
    /// Hash of the parts of the plan that state depends on.
    pub plan: u64,
    pub ledger: Option<&'a Ledger>,
    pub committed: &'a CommittedOffsets,
    /// The pipeline's topics as the broker knows them now.
    pub topics: &'a [TopicInfo],
    /// Which of them feed tables and nothing else.
    pub tables: &'a [usize],
    /// First offset and readable end per topic.
    pub logs: &'a [(i64, i64)],
    /// Whether the group has any offset of the first topic.
    pub group_has_offsets: bool,
    pub policy: Policy,
}

/// What the user chose for the cases that have a choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    pub halt_on_reset: bool,
    pub halt_on_gap: bool,
    pub strict: bool,
}

/// How the task begins.
#[derive(Clone, PartialEq, Debug)]
pub struct Start {
    pub case: Case,
    /// Where its state comes from.
    pub base: Base,
    /// To be announced before anything is sent; in `must_accept` cases before anything is processed.
    pub mark: MarkPlan,
    /// An epoch that the mark names and our outbox does not hold: processed exactly, before anything else.
    pub forced: Option<Pending>,
    /// Kafka has forgotten what was committed: the mark is the ledger's, which may know of less than was acknowledged.
    pub is_remembered: bool,
    /// Sentences worth a warning in the log.
    pub warnings: Vec<String>,
}

/// Where the state comes from.
#[derive(Clone, PartialEq, Debug)]
pub enum Base {
    /// Our ledger is whole: go on behind its last epoch.
    Ledger,
    /// Deliver what our outbox holds, process nothing, then decide again.
    DeliverFirst,
    /// Our ledger, re-read state-only from its positions up to the mark's.
    CatchUp,
    /// A new task number, re-read state-only from `since_ms` (never before `origin`) up to the mark's positions.
    Reread { origin: Vec<i64>, watermarks: Option<i64> },
    /// A new task number, empty, at the mark's positions.
    Empty,
}

/// What the first commit says.
#[derive(Clone, PartialEq, Debug)]
pub enum MarkPlan {
    /// What is committed already (or what our ledger accepted last): its history goes on.
    Keep(Box<Mark>),
    /// A new incarnation at these positions; `None` = where `source.start` says.
    New { positions: Vec<Option<i64>> },
}

impl Start {
    /// Whether nothing may be processed before the first commit is accepted.
    pub fn must_accept(&self) -> bool {
        matches!(self.mark, MarkPlan::New { .. }) || self.case == Case::Unmarked
    }
}

/// Decides how a task begins: the first row of the table that fits.
///
/// # Errors
/// Of kind `Stop`, for the rows that stop with a sentence: `newer`, and `reset` or `recreated` where the user
/// chose to halt.
pub fn decide(facts: &Facts) -> Result<Start> {
    let mark = read_mark(facts)?;
    let recreated = recreated_topics(facts, mark.as_ref());
    if recreated.iter().any(|&is| is) {
        return recreate(facts, mark, &recreated);
    }
    let Some(committed) = facts.committed.offsets[0] else {
        return match facts.ledger {
            None => Ok(new(facts)),
            Some(ledger) => unmarked(facts, ledger),
        };
    };
    match mark {
        Some(mark) if agrees(&mark, facts) => with_mark(facts, mark),
        mark => reset(facts, mark, committed),
    }
}

/// The mark of this pipeline, if that is what the metadata is.
fn read_mark(facts: &Facts) -> Result<Option<Mark>> {
    if facts.committed.offsets[0].is_none() {
        return Ok(None);
    }
    match Mark::from_metadata(&facts.committed.metadata) {
        MarkRead::Foreign => Ok(None),
        MarkRead::Newer(format) => Err(Error::stop(
            "newer",
            format!(
                "the committed offset of partition {} carries a mark of a newer weir (format {format}): \
                 run that version, or reset the group's offsets",
                facts.partition
            ),
        )),
        MarkRead::Unreadable => Err(Error::stop(
            "older",
            format!(
                "the committed offset of partition {} carries a mark that this weir cannot read (an older version \
                 wrote it, or it is damaged), so what was announced is not known: run the version that wrote it \
                 until it stops cleanly, or reset the group's offsets",
                facts.partition
            ),
        )),
        MarkRead::Mark(mark) if mark.pipeline == facts.pipeline => Ok(Some(*mark)),
        MarkRead::Mark(mark) if mark.pending.is_some() => Err(Error::stop(
            "newer",
            format!(
                "the group's offset of partition {} belongs to pipeline `{}`, which has an insert under way: \
                 let it finish, or give this pipeline a group of its own",
                facts.partition, mark.pipeline
            ),
        )),
        MarkRead::Mark(_) => Ok(None),
    }
}

/// Which of the pipeline's topics have another id than the mark or the ledger remembers.
fn recreated_topics(facts: &Facts, mark: Option<&Mark>) -> Vec<bool> {
    let remembered = |name: &str| -> Vec<TopicId> {
        let named = |topics: &[(String, TopicId)]| topics.iter().find(|(n, _)| n == name).map(|(_, id)| *id);
        let of_mark = mark.and_then(|mark| named(&mark.topics));
        let of_ledger = facts.ledger.and_then(|ledger| named(&ledger.checkpoint.topics));
        of_mark.into_iter().chain(of_ledger).collect()
    };
    let zero = TopicId::default();
    let differs =
        |topic: &TopicInfo| topic.id != zero && remembered(&topic.name).iter().any(|id| *id != zero && *id != topic.id);
    // A ledger that was left behind by a hand-over may remember the old topic; the mark of the new one stands.
    let mark_is_current = mark.is_some_and(|mark| topic_ids_match(mark, facts.topics));
    facts.topics.iter().map(|topic| !mark_is_current && differs(topic)).collect()
}

fn topic_ids_match(mark: &Mark, topics: &[TopicInfo]) -> bool {
    topics.iter().all(|topic| {
        let known = mark.topics.iter().find(|(name, _)| *name == topic.name);
        known.is_none_or(|(_, id)| *id == topic.id)
    })
}

fn recreate(facts: &Facts, mark: Option<Mark>, recreated: &[bool]) -> Result<Start> {
    let names: Vec<&str> =
        facts.topics.iter().zip(recreated).filter(|(_, is)| **is).map(|(topic, _)| topic.name.as_str()).collect();
    let names = names.join("`, `");
    if facts.policy.strict {
        return Err(Error::stop(
            "recreated",
            format!(
                "topic `{names}` was deleted and created again, and the pipeline is strict: check what is in the \
                     table, then reset the group's offsets"
            ),
        ));
    }
    let held = facts.ledger.filter(|ledger| !ledger.epochs.is_empty());
    if let Some(ledger) = held
        && mark
            .as_ref()
            .is_none_or(|mark| continues(ledger, mark) && ledger.checkpoint.moment.epoch > mark.acknowledged.epoch)
    {
        let is_remembered = mark.is_none();
        let mark = mark.unwrap_or_else(|| own_mark(ledger));
        return Ok(Start {
            is_remembered,
            case: Case::Recreated,
            base: Base::DeliverFirst,
            mark: MarkPlan::Keep(Box::new(mark)),
            forced: None,
            warnings: vec![format!("topic `{names}` was deleted and created again: delivering what is stored first")],
        });
    }
    let known = |index: usize, topic: &TopicInfo| {
        let of_mark = mark.as_ref().and_then(|mark| mark.position_of(&topic.name));
        let of_ledger = facts
            .ledger
            .and_then(|ledger| position_in(&ledger.checkpoint.topics, &ledger.checkpoint.moment, &topic.name));
        // A table is read from its beginning: with the state it is gone whole.
        let begins_anew = recreated[index] || facts.tables.contains(&index);
        if begins_anew { Some(facts.logs[index].0) } else { of_mark.or(of_ledger) }
    };
    let positions = facts.topics.iter().enumerate().map(|(index, topic)| known(index, topic)).collect();
    Ok(Start {
        case: Case::Recreated,
        base: Base::Empty,
        mark: MarkPlan::New { positions },
        forced: None,
        is_remembered: false,
        warnings: vec![format!(
            "topic `{names}` was deleted and created again: partition {} begins anew at its start, with empty state",
            facts.partition
        )],
    })
}

fn position_in(topics: &[(String, TopicId)], moment: &Moment, name: &str) -> Option<i64> {
    let index = topics.iter().position(|(known, _)| known == name)?;
    moment.inputs.get(index).map(|input| input.position)
}

/// Nothing to continue. `source.start` counts only while the group has no offset of the topic at all; a partition
/// that appears later begins at its start.
fn new(facts: &Facts) -> Start {
    let begin = |log: &(i64, i64)| if facts.group_has_offsets { Some(log.0) } else { None };
    Start {
        case: Case::New,
        base: Base::Empty,
        mark: MarkPlan::New { positions: facts.logs.iter().map(begin).collect() },
        forced: None,
        is_remembered: false,
        warnings: vec![],
    }
}

/// The group forgot us: what our ledger knows is committed again, then all goes on as if it had been there.
fn unmarked(facts: &Facts, ledger: &Ledger) -> Result<Start> {
    if ledger.checkpoint.pipeline != facts.pipeline || ledger.checkpoint.partition != facts.partition {
        return Ok(new(facts));
    }
    let start = with_mark(facts, own_mark(ledger))?;
    let warnings = [
        vec![format!("the group has no offset of partition {}: going on from the ledger", facts.partition)],
        start.warnings,
    ];
    Ok(Start {
        case: if start.case == Case::Continue { Case::Unmarked } else { start.case },
        is_remembered: true,
        warnings: warnings.concat(),
        ..start
    })
}

/// The mark that this ledger would have committed: its accepted one, with its first outbox epoch as pending.
fn own_mark(ledger: &Ledger) -> Mark {
    let next = ledger.accepted.acknowledged.epoch.next();
    let pending = ledger.epochs.iter().find(|epoch| epoch.after.epoch == next).map(|epoch| epoch.pending());
    Mark { pending: pending.or_else(|| ledger.accepted.pending.clone()), ..ledger.accepted.clone() }
}

/// Whether what is committed is what the mark says, topic by topic: a missing offset of a riding topic is nothing, and
/// nothing is said of a topic that the mark does not know.
fn agrees(mark: &Mark, facts: &Facts) -> bool {
    facts.topics.iter().zip(&facts.committed.offsets).all(|(topic, offset)| {
        let position = mark.position_of(&topic.name);
        offset.is_none_or(|offset| position.is_none_or(|position| offset == position))
    })
}

fn reset(facts: &Facts, mark: Option<Mark>, committed: i64) -> Result<Start> {
    let partition = facts.partition;
    if facts.policy.halt_on_reset {
        return Err(Error::stop(
            "reset",
            format!(
                "somebody moved the group's offset of partition {partition} to {committed} \
                     (on_offset_reset: halt): set it back, or allow `follow`"
            ),
        ));
    }
    let undelivered: u64 = facts
        .ledger
        .map_or(0, |ledger| ledger.epochs.iter().flat_map(|epoch| &epoch.outputs).map(|output| output.rows).sum());
    let told = format!(
        "somebody moved the group's offset of partition {partition} to {committed}: following, as a new \
         incarnation; {undelivered} rows that were not delivered yet are discarded"
    );
    let positions: Vec<Option<i64>> = facts
        .committed
        .offsets
        .iter()
        .zip(facts.topics)
        .map(|(offset, topic)| offset.or_else(|| mark.as_ref().and_then(|mark| mark.position_of(&topic.name))))
        .collect();
    let origin = facts.logs.iter().map(|log| log.0).collect();
    Ok(Start {
        case: Case::Reset,
        base: Base::Reread { origin, watermarks: None },
        mark: MarkPlan::New { positions },
        forced: None,
        is_remembered: false,
        warnings: vec![told],
    })
}

/// The rows that have a mark which agrees with the committed offsets.
fn with_mark(facts: &Facts, mark: Mark) -> Result<Start> {
    let keep = |case, base, forced, warnings| {
        let mark = MarkPlan::Keep(Box::new(mark.clone()));
        Ok(Start { case, base, mark, forced, is_remembered: false, warnings })
    };
    let reread = Base::Reread { origin: mark.origin.clone(), watermarks: lowest_watermark(facts, &mark) };
    let pending = mark.pending.clone();
    let Some(ledger) = facts.ledger else {
        return keep(Case::Restore, reread, pending, vec![]);
    };
    let checkpoint = &ledger.checkpoint;
    let foreign = checkpoint.pipeline != facts.pipeline
        || checkpoint.partition != facts.partition
        || checkpoint.incarnation != mark.incarnation;
    if foreign {
        return keep(Case::Foreign, reread, pending, vec![]);
    }
    let goes_on = continues(ledger, &mark);
    if checkpoint.plan != facts.plan {
        let undelivered = ledger.epochs.iter().any(|epoch| epoch.after.epoch > mark.acknowledged.epoch);
        if goes_on && undelivered {
            return keep(Case::Replanned, Base::DeliverFirst, None, vec![]);
        }
        return keep(Case::Replanned, reread, pending, vec![]);
    }
    if goes_on {
        let ends_at_mark = checkpoint.moment.link == mark.acknowledged.link;
        return keep(Case::Continue, Base::Ledger, pending.filter(|_| ends_at_mark), vec![]);
    }
    if can_catch_up(ledger, &mark, facts.logs) {
        return keep(Case::CatchUp, Base::CatchUp, pending, vec![]);
    }
    keep(Case::Restore, reread, pending, vec![])
}

/// L is whole and holds K's link, and pending is none, or L ends at K, or L holds pending's link too.
fn continues(ledger: &Ledger, mark: &Mark) -> bool {
    let checkpoint = &ledger.checkpoint;
    let holds_pending = mark
        .pending
        .as_ref()
        .is_none_or(|pending| checkpoint.moment.link == mark.acknowledged.link || ledger.holds(pending.link));
    checkpoint.incarnation == mark.incarnation
        && !checkpoint.restoring
        && ledger.holds(mark.acknowledged.link)
        && holds_pending
}

/// L lies behind K on the same road, and the records between are still there.
fn can_catch_up(ledger: &Ledger, mark: &Mark, logs: &[(i64, i64)]) -> bool {
    let (ours, theirs) = (&ledger.checkpoint.moment, &mark.acknowledged);
    let behind = |(own, theirs): (&Progress, &Progress)| own.position <= theirs.position;
    let unacknowledged = |epoch: &&EpochRecord| epoch.after.epoch > ledger.accepted.acknowledged.epoch;
    ours.inputs.len() == theirs.inputs.len()
        && ours.inputs.iter().zip(&theirs.inputs).all(behind)
        && ours.watermark_ms <= theirs.watermark_ms
        && ours.inputs.iter().zip(logs).all(|(input, log)| input.position >= log.0)
        && ledger.epochs.iter().filter(unacknowledged).all(|epoch| epoch.flags == 0)
        && closes_ahead(ours, theirs)
}

/// Whether the windows that K has closed since were closed where L has not been yet: it can close them on its way.
fn closes_ahead(ours: &Moment, theirs: &Moment) -> bool {
    let is_ahead = |closed: &Vec<i64>| ours.inputs.iter().zip(closed).all(|(own, closed)| own.position <= *closed);
    ours.closed == theirs.closed || theirs.closed.as_ref().is_some_and(is_ahead)
}

/// The lowest watermark in the mark: `None` before the first record. Tables have none.
fn lowest_watermark(facts: &Facts, mark: &Mark) -> Option<i64> {
    let is_table = |name: &str| facts.tables.iter().any(|table| facts.topics[*table].name == name);
    let inputs = mark.acknowledged.inputs.iter().zip(&mark.topics).filter(|(_, (name, _))| !is_table(name));
    let highs = inputs.map(|(input, _)| input.high_ms);
    highs.chain([mark.acknowledged.watermark_ms]).filter(|ms| *ms != i64::MIN).min()
}

/// The moment in which a new incarnation begins.
pub fn beginning(incarnation: Incarnation, positions: &[i64]) -> Moment {
    Moment {
        epoch: Epoch(0),
        link: incarnation.link(),
        inputs: positions.iter().map(|&position| Progress { position, high_ms: i64::MIN }).collect(),
        watermark_ms: i64::MIN,
        idle: 0,
        note_ms: 0,
        closed: None,
        replayed: None,
    }
}

/// From where a restore re-reads each topic: the first offset at or after `lowest watermark − 2 × reach −
/// max_future`. `None`: from the origin. `reach_ms` = `None` is a window without limit.
pub fn reread_since_ms(watermark_ms: Option<i64>, reach_ms: Option<i64>, max_future_ms: i64) -> Option<i64> {
    let (watermark_ms, reach_ms) = (watermark_ms?, reach_ms?);
    Some(watermark_ms.saturating_sub(reach_ms.saturating_mul(2)).saturating_sub(max_future_ms).max(0))
}

#[cfg(test)]
mod tests;
