//! The steps that change or drop rows.
