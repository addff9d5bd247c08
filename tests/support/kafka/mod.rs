//! A real Apache Kafka broker, and what tests do to it.

#![allow(unused_imports)] // As in the parent: every target uses another part.

mod broker;
mod certificates;
mod records;
mod tools;
mod topics;

pub use broker::{Kafka, PASSWORD, USER};
pub use certificates::Certificates;
pub use records::{Outcome, Produced, TestRecord};
