//! The order between inputs, who rests, and what the times are.
