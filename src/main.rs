//! The binary: nothing but the command line.

/// RocksDB and librdkafka allocate through the same one, so that memory is counted and given back in one place.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Blocks come and go by the megabyte: huge pages make fresh memory cheap, and what is free is kept for a while.
#[cfg(not(target_env = "msvc"))]
#[unsafe(export_name = "malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8; 50] = b"thp:always,metadata_thp:auto,dirty_decay_ms:30000\0";

fn main() -> std::process::ExitCode {
    weir::cli::main()
}
