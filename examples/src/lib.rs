//! Runnable examples of lloco; see the README.
