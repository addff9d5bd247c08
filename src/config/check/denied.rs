//! Options of others that weir sets itself: what would break the protocol if a user set it.
//!
//! The reasons are in `exactly-once.md` ("Rules for the insert", "Assignment").

/// What to say about an option of librdkafka that is not passed on.
pub fn librdkafka_help(option: &str) -> Option<String> {
    let option = option.trim().to_ascii_lowercase();
    if let Some((_, ours)) = OURS.iter().find(|(name, _)| *name == option) {
        return Some(format!("write `{ours}` instead"));
    }
    let (_, why) = PINNED.iter().find(|(name, _)| *name == option)?;
    Some(format!("weir sets it: {why}"))
}

/// Options that `security` sets; refused only beside the part of it that sets them.
pub fn set_by_security(option: &str, tls: bool, sasl: bool) -> bool {
    match option {
        "security.protocol" => tls || sasl,
        "enable.ssl.certificate.verification" => tls,
        _ => (tls && option.starts_with("ssl.")) || (sasl && SASL.contains(&option)),
    }
}

/// What to say about a setting of ClickHouse that is not passed on.
pub fn clickhouse_help(setting: &str) -> Option<String> {
    let setting = setting.trim().to_ascii_lowercase();
    if let Some((_, ours)) = CLICKHOUSE_OURS.iter().find(|(name, _)| *name == setting) {
        return Some(format!("write `{ours}` instead"));
    }
    let why = "weir sets it: a block must arrive as one block, under its token, or not at all";
    CLICKHOUSE_PINNED.contains(&setting.as_str()).then(|| why.to_string())
}

const SASL: &[&str] = &["sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password"];

const OURS: &[(&str, &str)] = &[
    ("bootstrap.servers", "brokers"),
    ("metadata.broker.list", "brokers"),
    ("group.id", "group"),
    ("group.instance.id", "instance_id"),
    ("auto.offset.reset", "start"),
];

const COMMITS: &str = "offsets are committed only with what is in the table";
const FORWARD: &str = "the partitions of a task must stay together";
const POSITIONS: &str = "weir counts the offsets itself";

const PINNED: &[(&str, &str)] = &[
    ("enable.auto.commit", COMMITS),
    ("auto.commit.enable", COMMITS),
    ("auto.commit.interval.ms", COMMITS),
    ("enable.auto.offset.store", COMMITS),
    ("offset.store.method", COMMITS),
    ("offset.store.path", COMMITS),
    ("offset.store.sync.interval.ms", COMMITS),
    ("isolation.level", "only committed records count"),
    ("partition.assignment.strategy", FORWARD),
    ("group.protocol", FORWARD),
    ("group.protocol.type", FORWARD),
    ("group.remote.assignor", FORWARD),
    ("enable.partition.eof", POSITIONS),
    ("allow.auto.create.topics", "a topic is never created"),
    ("topic.blacklist", "every topic of the pipeline is needed"),
    ("transactional.id", "it belongs to the pipeline"),
    ("enable.idempotence", "it belongs to the pipeline"),
    ("plugin.library.paths", "no foreign code is loaded"),
    ("test.mock.num.brokers", "`weir demo` brings its own broker"),
    ("test.mock.broker.rtt", "`weir demo` brings its own broker"),
];

const CLICKHOUSE_OURS: &[(&str, &str)] = &[("database", "database"), ("user", "user"), ("password", "password")];

const CLICKHOUSE_PINNED: &[&str] = &[
    "insert_deduplication_token",
    "insert_deduplicate",
    "deduplicate_insert",
    "async_insert_deduplicate",
    "deduplicate_blocks_in_dependent_materialized_views",
    "update_insert_deduplication_token_in_dependent_materialized_views",
    "async_insert",
    "wait_for_async_insert",
    "max_insert_block_size",
    "max_insert_block_size_rows",
    "max_insert_block_size_bytes",
    "min_insert_block_size_rows",
    "min_insert_block_size_bytes",
    "min_insert_block_size_rows_for_materialized_views",
    "min_insert_block_size_bytes_for_materialized_views",
    "use_strict_insert_block_limits",
    "max_partitions_per_insert_block",
    "throw_on_max_partitions_per_insert_block",
    "wait_end_of_query",
    "materialized_views_ignore_errors",
    "input_format_null_as_default",
    "input_format_defaults_for_omitted_fields",
    "input_format_native_allow_types_conversion",
    "input_format_native_decode_types_in_binary_format",
    "default_format",
    "query",
    "query_id",
    "session_id",
    "decompress",
    "compress",
];
