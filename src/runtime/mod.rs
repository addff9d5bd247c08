//! The engine: tasks on worker threads, the coordinator, delivery, recovery.

pub mod balance;
pub mod chain;
pub mod commit;
pub mod compile;
pub mod coordinator;
pub mod copartition;
pub mod delivery;
pub mod desk;
pub mod engine;
pub mod facts;
pub mod inputs;
pub mod inspect;
pub mod letters;
pub mod limits;
pub mod memory;
pub mod opening;
pub mod outbox;
pub mod pipeline;
pub mod prepare;
pub mod preview;
pub mod recovery;
pub mod scattered;
pub mod task;
pub mod worker;
