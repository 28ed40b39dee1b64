//! What the targets share: bytes as files, because the readers map files.

use std::{fs, path::Path};

use lloco_decoder::DecoderConfig;

/// A directory with these files, in memory where the system has such a place.
pub fn with_files(files: &[(&str, &[u8])], read: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    for (name, bytes) in files {
        fs::write(directory.path().join(name), bytes).expect("room for a file");
    }
    read(directory.path());
}

/// The small model that checkpoints and adapters are read for.
pub const CONFIG: &str = include_str!("../../testdata/goldens/llama2-mha/config.json");

/// [`CONFIG`], parsed.
pub fn config() -> DecoderConfig {
    DecoderConfig::from_json(CONFIG, Path::new("config.json")).expect("a good configuration")
}
