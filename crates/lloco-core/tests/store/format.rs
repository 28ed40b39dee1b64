//! The format on disk: what others can rely on.
