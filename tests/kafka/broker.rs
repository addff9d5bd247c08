//! Where the broker is: `WEIR_TEST_KAFKA`.

/// The bootstrap address of the broker under test.
pub fn bootstrap() -> String {
    std::env::var("WEIR_TEST_KAFKA").expect("WEIR_TEST_KAFKA names a running broker")
}
