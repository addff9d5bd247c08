//! An embedded ClickHouse: the real engine as a library, behind ClickHouse's HTTP interface.
//!
//! [`serve`] is the server's process (the engine holds one data folder a process, and tests want to kill it);
//! [`Server`] is the handle of whoever started that process.
//!
//! ```text
//! request ─► request.rs  text, settings, parameters, data ─► statement.rs  INSERT … FORMAT X + data
//!        ─► engine.rs    a connection of its own           ─► answer.rs    status, headers, body
//! ```
//! Promises: an answer of 200 to an INSERT means that its rows survive `kill -9` of this process, as with the
//! server. Does not: sessions, users made with SQL, replicated tables, streaming of results (an answer is
//! collected before it is sent, which is what `wait_end_of_query=1` does on the server).

mod answer;
mod engine;
mod frames;
mod library;
mod process;
mod request;
mod server;
mod statement;

pub use frames::decompress;
pub use library::{library_path, parts_path};
pub use process::{Server, ServerOptions, server_program};
pub use server::{ServeArgs, serve};
