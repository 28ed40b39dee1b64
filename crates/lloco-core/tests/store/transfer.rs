//! Export, import and merging of shards.

use lloco_core::store::{LocalStore, NewDocument, Shard, Store};
use lloco_core::{Digest, Error};

use crate::{adapter, compress, compress_some, encoder, expected, files, seen};

fn text(i: usize) -> String {
    format!("Document number {} of the corpus", i % 9)
}

#[test]
fn shards_apart_and_merged_equal_one_run() {
    let directory = crate::directory();
    let encoder = encoder();
    let add = |store: &LocalStore, shard: Shard| {
        for i in 0..12 {
            let (id, text) = (format!("{i}"), text(i));
            if shard.contains(&Digest::of(text.as_bytes())) {
                store.add(&NewDocument::new(&id, &text).group(if i < 6 { "g" } else { "h" })).unwrap();
            }
        }
    };
    let whole = LocalStore::open(directory.path().join("whole")).unwrap();
    add(&whole, Shard::ALL);
    compress(&whole, &encoder);

    let merged = LocalStore::open(directory.path().join("merged")).unwrap();
    let mut computed = 0;
    for index in 0..3 {
        let shard = LocalStore::open(directory.path().join(format!("shard-{index}"))).unwrap();
        add(&shard, Shard::new(index, 3).unwrap());
        computed += compress(&shard, &encoder);
        let report = merged.merge(&shard, |_| true).unwrap();
        assert_eq!((report.unchanged, report.conflicts.len()), (0, 0));
        let report = merged.merge(&shard, |_| true).unwrap();
        assert_eq!(report.added, 0, "merging again changes nothing");
    }
    assert_eq!(seen(&merged), seen(&whole));
    assert_eq!(files(merged.path()), files(whole.path()), "the same files");
    for name in files(merged.path()) {
        let read = |store: &LocalStore| std::fs::read(store.path().join(&name)).unwrap();
        assert_eq!(read(&merged), read(&whole), "{name}");
    }
    assert!(merged.verify().unwrap().is_empty());
    assert!(computed as u64 >= whole.stats().unwrap().summaries);
}

#[test]
fn a_group_is_exported_with_its_adapter_and_imported_elsewhere() {
    let directory = crate::directory();
    let encoder = encoder();
    let store = LocalStore::open(directory.path().join("store")).unwrap();
    for i in 0..4 {
        store.add(&NewDocument::new(&format!("{i}"), &text(i)).group(["g", "h"][i % 2])).unwrap();
    }
    compress(&store, &encoder);
    for weights in [b"1", b"2"] {
        store.put_adapter("g", &adapter(directory.path(), weights)).unwrap();
    }
    store.set_adapter("g", Some(1)).unwrap();

    let export = directory.path().join("export");
    let report = store.export(&export, |document| document.group == "g").unwrap();
    assert_eq!((report.added, report.adapters), (2, 2));
    let export = LocalStore::open_read_only(export).unwrap();
    assert_eq!(export.documents(None).unwrap().len(), 2);
    assert_eq!(export.adapter("g").unwrap().unwrap().version, 1);

    let target = LocalStore::open(directory.path().join("target")).unwrap();
    target.add(&NewDocument::new("0", "Something else")).unwrap();
    let report = target.merge(&export, |_| true).unwrap();
    assert_eq!((report.added, report.conflicts), (1, vec!["0".to_owned()]));
    assert_eq!(target.summary("2", &encoder).unwrap().data(), expected(&encoder, &text(2)));
    let document = target.document("0").unwrap().unwrap();
    assert_eq!(target.text(&document.text).unwrap(), "Something else");
}

#[test]
fn unfinished_work_here_is_completed_by_a_merge() {
    let directory = crate::directory();
    let encoder = encoder();
    let (here, there) =
        (LocalStore::open(directory.path().join("a")).unwrap(), LocalStore::open(directory.path().join("b")).unwrap());
    for store in [&here, &there] {
        store.add(&NewDocument::new("x", &text(1))).unwrap();
    }
    compress_some(&here, &encoder, &here.pending(&encoder, Shard::ALL).unwrap()[0], 3);
    compress(&there, &encoder);
    here.merge(&there, |_| true).unwrap();
    assert_eq!(here.summary("x", &encoder).unwrap().data(), expected(&encoder, &text(1)));
    assert_eq!(files(here.path()), files(there.path()));
    here.remove("x").unwrap();
    assert_eq!(files(here.path()), ["format.json"]);
}

#[test]
fn a_library_is_compressed_again_in_shares() {
    let directory = crate::directory();
    let (old, new) = (encoder(), encoder().precision(lloco_core::store::Precision::F16));
    let texts: Vec<(String, String)> = (0..12).map(|i| (format!("{i}"), text(i))).collect();
    let add = |store: &LocalStore| {
        texts.iter().for_each(|(id, text)| drop(store.add(&NewDocument::new(id, text)).unwrap()));
    };
    let library = LocalStore::open(directory.path().join("library")).unwrap();
    add(&library);
    compress(&library, &old);
    let uses = |store: &LocalStore| -> Vec<_> {
        store.encoders().unwrap().into_iter().map(|own| (own.encoder, own.documents, own.texts)).collect()
    };
    assert_eq!(uses(&library), [(old.clone(), 12, 9)]);
    for index in 0..3 {
        let part = LocalStore::open(directory.path().join(format!("part-{index}"))).unwrap();
        add(&part);
        for work in part.pending(&new, Shard::new(index, 3).unwrap()).unwrap() {
            compress_some(&part, &new, &work, usize::MAX);
        }
        assert_eq!(library.merge(&part, |_| true).unwrap().summaries, 0, "without being asked, nothing is replaced");
        let merged = library.merge_encoded(&part, &new.id(), |_| true).unwrap();
        assert_eq!((merged.added, merged.conflicts.len()), (0, 0));
        assert_eq!(library.merge_encoded(&part, &new.id(), |_| true).unwrap().summaries, 0);
    }
    assert_eq!(uses(&library), [(new.clone(), 12, 9), (old.clone(), 0, 9)]);
    assert_eq!(library.forget_encoder(&old.id()).unwrap().texts, 9);
    assert_eq!(uses(&library), [(new.clone(), 12, 9)]);
    let whole = LocalStore::open(directory.path().join("whole")).unwrap();
    add(&whole);
    compress(&whole, &new);
    assert_eq!(seen(&library), seen(&whole));
    assert_eq!(files(library.path()), files(whole.path()), "nothing of the old encoder stays");
    assert!(library.verify().unwrap().is_empty());
}

#[test]
fn damage_does_not_spread() {
    let directory = crate::directory();
    let encoder = encoder();
    let store = LocalStore::open(directory.path().join("store")).unwrap();
    store.add(&NewDocument::new("x", &text(1))).unwrap();
    compress(&store, &encoder);
    let key = store.document("x").unwrap().unwrap().summary.unwrap().segments[2].to_string();
    let path = store.path().join("summaries").join(&key[..2]).join(format!("{key}.safetensors"));
    std::fs::remove_file(&path).unwrap();
    store.add(&NewDocument::new("y", "Quite another text")).unwrap();
    store.add(&NewDocument::new("z", &text(3))).unwrap();
    compress(&store, &encoder);
    let lost = store.document("z").unwrap().unwrap().text.to_string();
    std::fs::remove_file(store.path().join("text").join(&lost[..2]).join(format!("{lost}.txt"))).unwrap();

    let report = store.export(directory.path().join("export"), |_| true).unwrap();
    assert_eq!((report.added, report.summaries), (2, 1));
    let named: Vec<_> = report.damaged.iter().map(|damage| damage.documents[0].as_str()).collect();
    assert_eq!((named, &report.damaged[0].path), (vec!["x", "z"], &path));
    let export = LocalStore::open(directory.path().join("export")).unwrap();
    assert!(export.verify().unwrap().is_empty());
    assert!(matches!(export.summary("x", &encoder), Err(Error::NotCompressed { .. })));
    assert_eq!(export.summary("y", &encoder).unwrap().data(), expected(&encoder, "Quite another text"));
    assert!(export.document("z").unwrap().is_none());
}

#[test]
fn a_softprompt_is_exported_as_prompt_embeddings() {
    let directory = crate::directory();
    let encoder = encoder();
    let store = LocalStore::open(directory.path().join("store")).unwrap();
    store.add(&NewDocument::new("x", &text(1))).unwrap();
    let path = directory.path().join("x.safetensors");
    assert!(store.export_softprompt("x", &encoder, &path).is_err());
    assert!(!path.exists());
    compress(&store, &encoder);
    store.export_softprompt("x", &encoder, &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("softprompt").unwrap();
    let expected = expected(&encoder, &text(1));
    assert_eq!((tensor.dtype(), tensor.shape()), (safetensors::Dtype::F32, [expected.len() / 3, 3].as_slice()));
    let values: Vec<f32> = tensor.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(values, expected);
}
