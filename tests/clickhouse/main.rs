//! The sink against the real engine: what is encoded is what is read back, a token counts once, and tables that
//! cannot keep the promise are refused.

#[path = "../support/mod.rs"]
mod support;

mod changes;
mod defaults;
mod fixture;
mod grants;
mod nested;
mod objects;
mod secure;
mod servers;
mod tables;
mod times;
mod tokens;
mod values;
