//! The binary: nothing but the command line.

/// RocksDB and librdkafka allocate through the same one, so that memory is counted and given back in one place.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    weir::cli::main()
}
