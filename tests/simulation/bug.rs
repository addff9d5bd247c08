//! The bugs that are seeded to see whether the simulation finds them (`exactly-once.md`, Proof 1).

/// Each is made by a fake that breaks the promise it stands for, around the untouched code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// The store writes state and positions one after the other.
    PositionsApart,
    /// A commit that announces counts as accepted without having been made.
    SentUnannounced,
    /// A commit that announces reaches the broker only with the next one.
    AnnouncedAfterInsert,
    /// A commit that repeats a pending leaves it out.
    PendingTakenBack,
    /// Tokens differ from life to life.
    TokenChanges,
    /// The outbox entry is not in the write batch.
    BlockNotStored,
    /// An insert without an answer counts as acknowledged.
    UnclearIsDelivered,
    /// The ledger of a half-done restore does not say so.
    HalfRestoredIsWhole,
    /// A ledger counts as current although another directory went on from it.
    StaleDirectory,
    /// The pending of the mark is not looked at when the ledger ends at the mark.
    PendingIgnored,
    /// A start believes what its ledger saw accepted, not what Kafka says.
    AcknowledgedSentAgain,
    /// Attempts begin although the lease has run out.
    RetryAfterLease,
    /// A commit from before a loss is sent by the client after the rejoin.
    CommitAfterRejoin,
    /// A write returns before it is synced: a crash takes it back.
    WriteNotSynced,
    /// The entry that names the letters of a replay is not in the epoch's write.
    ReplayNotNoted,
    /// The letters of a replay go when its epoch is sealed, not when it counts.
    LettersGoAtTheSeal,
}

impl Bug {
    pub const ALL: [Bug; 16] = [
        Bug::PositionsApart,
        Bug::SentUnannounced,
        Bug::AnnouncedAfterInsert,
        Bug::PendingTakenBack,
        Bug::TokenChanges,
        Bug::BlockNotStored,
        Bug::UnclearIsDelivered,
        Bug::HalfRestoredIsWhole,
        Bug::StaleDirectory,
        Bug::PendingIgnored,
        Bug::AcknowledgedSentAgain,
        Bug::RetryAfterLease,
        Bug::CommitAfterRejoin,
        Bug::WriteNotSynced,
        Bug::ReplayNotNoted,
        Bug::LettersGoAtTheSeal,
    ];
}
