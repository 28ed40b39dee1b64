//! Criterion benches of lloco; see README.
