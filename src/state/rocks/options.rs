//! How RocksDB is set up, and why. Owns every tuning constant of the store.

use super::reclaim::Reclaim;
use crate::state::Table;
use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Options, WriteBufferManager};

const MIB: usize = 1 << 20;

/// A chunk is larger, so each has a block of its own, and no lookup reads two.
const SEEN_BLOCK_BYTES: usize = 1 << 10;
const SEEN_BUFFER_BYTES: usize = 32 * MIB;
/// Of a memtable: some thousand chunks need little.
const SEEN_BUFFER_BLOOM_RATIO: f64 = 0.01;
/// Compactions begin late and find more to leave out: a young run is merged soon and deleted as a whole. What many
/// young files cost lookups, the filters ahead of them save.
const SEEN_LEVEL_0_FILES: i32 = 10;
const SEEN_LEVEL_1_BYTES: u64 = 512 << 20;
/// Rows of joins live for minutes, mostly: many of them never leave memory and log.
const BUFFER_BUFFER_BYTES: usize = 64 * MIB;
/// Checkpoints and letters are small and few.
const SMALL_BUFFER_BYTES: usize = 4 * MIB;
/// Most blocks are released before this is full, and never leave memory and log. With 32 MiB the blocks of eight
/// tasks at full speed did not fit, and each was written, checked and collected once more: 8 % of a passthrough.
const OUTBOX_BUFFER_BYTES: usize = 128 * MIB;
/// Values above it go to blob files, so that no compaction copies a block.
const BLOB_BYTES_MIN: u64 = 16 << 10;
const BLOB_FILE_BYTES: u64 = 64 << 20;
/// A quiet table must not keep old logs, which hold released blocks.
const WAL_BYTES_MAX: u64 = 256 << 20;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// RocksDB's own log of what it does.
const LOG_FILES_MAX: usize = 3;
const LOG_FILE_BYTES: usize = 4 * MIB;

/// What all stores of a process share: one block cache and one bound for all memtables.
#[derive(Clone)]
pub struct Shared {
    pub(super) cache: Cache,
    buffers: WriteBufferManager,
}

impl Shared {
    /// `cache_bytes` for blocks read, `buffer_bytes` for what is not yet in files; the latter is no wall: when it
    /// is passed, tables are written out early.
    pub fn new(cache_bytes: usize, buffer_bytes: usize) -> Shared {
        let cache = Cache::new_hyper_clock_cache(cache_bytes, 0);
        let buffers = WriteBufferManager::new_write_buffer_manager(buffer_bytes, false);
        Shared { cache, buffers }
    }

    /// Bytes of blocks read, and of what is not yet in files.
    pub fn memory_bytes(&self) -> u64 {
        (self.cache.get_usage() + self.buffers.get_usage()) as u64
    }
}

pub(super) fn for_database(shared: &Shared) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_manager(&shared.buffers);
    options.set_max_background_jobs(2);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_track_and_verify_wals_in_manifest(true);
    // Long syncs would hold up the synced writes of the epochs.
    options.set_bytes_per_sync(MIB as u64);
    options.set_keep_log_file_num(LOG_FILES_MAX);
    options.set_max_log_file_size(LOG_FILE_BYTES);
    options.set_stats_dump_period_sec(0);
    options
}

pub(super) fn for_table(table: Table, shared: &Shared, reclaim: &Reclaim) -> Options {
    let mut options = match table {
        Table::Seen => seen(reclaim),
        Table::Ledger => small(),
        Table::Outbox => outbox(),
        Table::DeadLetters => letters(),
        Table::Buffer => buffer(),
    };
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&shared.cache);
    blocks.set_format_version(6);
    blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    if table == Table::Seen {
        blocks.set_block_size(SEEN_BLOCK_BYTES);
    }
    options.set_block_based_table_factory(&blocks);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}

/// Chunks of some kilobytes, looked up in sorted batches; they come in order, and go together.
fn seen(reclaim: &Reclaim) -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(SEEN_BUFFER_BYTES);
    options.set_max_write_buffer_number(3);
    // Most chunks that are asked for are in files: the lists in memory need not be walked.
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(SEEN_BUFFER_BLOOM_RATIO);
    options.set_level_zero_file_num_compaction_trigger(SEEN_LEVEL_0_FILES);
    options.set_level_zero_slowdown_writes_trigger(3 * SEEN_LEVEL_0_FILES);
    options.set_level_zero_stop_writes_trigger(4 * SEEN_LEVEL_0_FILES);
    options.set_max_bytes_for_level_base(SEEN_LEVEL_1_BYTES);
    // Hashes do not compress.
    options.set_compression_type(DBCompressionType::None);
    options.set_compaction_filter_factory(reclaim.clone());
    options
}

fn small() -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(SMALL_BUFFER_BYTES);
    options.set_compression_type(DBCompressionType::None);
    options
}

/// Few large values that live for seconds, compressed already.
fn outbox() -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(OUTBOX_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_compression_type(DBCompressionType::None);
    options.set_level_zero_file_num_compaction_trigger(2);
    options.set_enable_blob_files(true);
    options.set_min_blob_size(BLOB_BYTES_MIN);
    options.set_blob_file_size(BLOB_FILE_BYTES);
    options.set_enable_blob_gc(true);
    options.set_blob_gc_age_cutoff(1.0);
    options
}

/// Pages of rows in the order they came, chunks of indexes, table rows: kilobytes each, gone by whole ranges.
fn buffer() -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(BUFFER_BUFFER_BYTES);
    options.set_max_write_buffer_number(3);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

/// Raw records: text, mostly.
fn letters() -> Options {
    let mut options = small();
    options.set_compression_type(DBCompressionType::Lz4);
    options
}
