//! Several encoders over one library: kept beside each other, counted apart, forgotten by name.

use lloco_core::Error;
use lloco_core::store::{EncoderInfo, LocalStore, NewDocument, Precision, Shard, Store};

use crate::{compress, compress_some, directory, encoder, expected, files};

fn other() -> EncoderInfo {
    encoder().precision(Precision::F16)
}

/// Id and numbers of each encoder: documents, texts, begun, summaries.
fn uses(store: &LocalStore) -> Vec<(EncoderInfo, [u64; 4])> {
    let own = store.encoders().unwrap().into_iter();
    own.map(|own| (own.encoder, [own.documents, own.texts, own.begun, own.summaries])).collect()
}

/// Two documents that begin alike (5 and 7 segments, 4 of them common) and a twin of the first.
fn filled(store: &LocalStore) {
    for (id, text) in [("a", "sixteen letters, a"), ("b", "sixteen letters, and then"), ("c", "sixteen letters, a")] {
        store.add(&NewDocument::new(id, text)).unwrap();
    }
}

#[test]
fn going_back_to_an_encoder_costs_nothing() {
    let directory = directory();
    let store = LocalStore::open(directory.path().join("store")).unwrap();
    filled(&store);
    let first = compress(&store, &encoder());
    assert_eq!(uses(&store), [(encoder(), [3, 2, 0, first as u64])]);
    assert_eq!(compress(&store, &other()), first);
    assert!(matches!(store.summary("a", &encoder()), Err(Error::EncoderMismatch { .. })), "one encoder is shown");
    for shown in [encoder(), other(), encoder()] {
        assert_eq!(compress(&store, &shown), 0, "all is there");
        assert_eq!(store.summary("b", &shown).unwrap().data(), expected(&shown, "sixteen letters, and then"));
        assert!(store.verify().unwrap().is_empty() && store.compact().unwrap().files == 0);
    }
    let stats = store.stats().unwrap();
    let bytes: Vec<u64> = store.encoders().unwrap().into_iter().map(|own| own.bytes).collect();
    assert_eq!((bytes.len(), bytes.iter().sum()), (2, stats.summary_bytes));
    // A text takes with it what every encoder made of it.
    ["a", "b", "c"].iter().for_each(|id| assert!(store.remove(id).unwrap()));
    assert_eq!(files(store.path()), ["format.json"]);
}

#[test]
fn an_encoder_is_forgotten_when_no_document_shows_it() {
    let directory = directory();
    let store = LocalStore::open(directory.path().join("store")).unwrap();
    filled(&store);
    compress(&store, &encoder());
    let before = files(store.path());
    // Another one compresses one document and begins a second.
    let pending = store.pending(&other(), Shard::ALL).unwrap();
    compress_some(&store, &other(), &pending[0], usize::MAX);
    compress_some(&store, &other(), &pending[1], 2);
    assert_eq!(uses(&store), [(encoder(), [2, 2, 0, 8]), (other(), [1, 1, 1, 7])]);

    for used in [encoder(), other()] {
        let error = store.forget_encoder(&used.id()).unwrap_err();
        assert!(matches!(error, Error::EncoderInUse { documents: 1 | 2, .. }), "{error}");
    }
    compress_some(&store, &encoder(), &store.pending(&encoder(), Shard::ALL).unwrap()[0], 0);
    let bytes = store.encoders().unwrap()[1].bytes;
    let forgotten = store.forget_encoder(&other().id()).unwrap();
    assert_eq!((forgotten.texts, forgotten.summaries, forgotten.bytes), (2, 7, bytes));
    assert_eq!(files(store.path()), before);
    assert_eq!(uses(&store), [(encoder(), [3, 2, 0, 8])]);
    assert_eq!(store.forget_encoder(&other().id()).unwrap(), Default::default(), "nothing is left of it");
    assert!(store.verify().unwrap().is_empty());
    let reader = LocalStore::open_read_only(store.path());
    drop(store);
    assert!(matches!(reader.unwrap().forget_encoder(&other().id()), Err(Error::ReadOnly { .. })));
}

#[test]
fn what_recovery_found_of_an_old_encoder_is_forgotten_too() {
    let directory = directory();
    let path = directory.path().join("store");
    let store = LocalStore::open(&path).unwrap();
    filled(&store);
    compress(&store, &other());
    let before = files(&path);
    compress(&store, &encoder());
    drop(store);
    std::fs::remove_file(path.join("catalog.redb")).unwrap();
    LocalStore::recover(&path).unwrap().unwrap();
    let store = LocalStore::open(&path).unwrap();
    compress(&store, &other());
    let forgotten = store.forget_encoder(&encoder().id()).unwrap();
    assert_eq!((forgotten.texts, forgotten.summaries), (0, 8));
    assert_eq!(files(&path), before);
    assert!(store.verify().unwrap().is_empty());
}
