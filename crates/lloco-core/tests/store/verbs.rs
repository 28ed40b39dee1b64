//! What each verb does, and that what it did is there after reopening.

use lloco_core::Error;
use lloco_core::store::{
    EncoderInfo, LocalStore, NewDocument, NewSummary, Pending, Precision, Shard, Store, SummaryRows,
};

use crate::{adapter, compress, compress_some, encoder, expected, files, rows, tokens};

const TEXT: &str = "The budget was approved by all members.";

#[test]
fn a_document_comes_back_after_reopening() {
    let directory = crate::directory();
    let encoder = encoder();
    let added = {
        let store = LocalStore::open(directory.path()).unwrap();
        let document = store.add(&NewDocument::new("a", TEXT).group("g").title("Minutes")).unwrap();
        assert_eq!(document.summary, None);
        assert!(matches!(store.summary("a", &encoder), Err(Error::NotCompressed { done: 0, total: 0, .. })));
        assert_eq!(compress(&store, &encoder), 10);
        assert_eq!(compress(&store, &encoder), 0, "nothing is pending");
        store.document("a").unwrap().unwrap()
    };
    let store = LocalStore::open(directory.path()).unwrap();
    let document = store.document("a").unwrap().unwrap();
    assert_eq!(document, added);
    assert_eq!((document.group.as_str(), document.title.as_str(), document.text_bytes), ("g", "Minutes", 39));
    let summary = document.summary.unwrap();
    assert_eq!((summary.encoder, summary.tokens, summary.segments.len()), (encoder.clone(), 39, 10));
    assert_eq!(store.text(&document.text).unwrap(), TEXT);

    let softprompt = store.summary("a", &encoder).unwrap();
    assert_eq!((softprompt.rows(), softprompt.hidden()), (20, 3));
    let each: Vec<f32> = summary.segments.iter().flat_map(|key| rows(&encoder, key).into_data()).collect();
    assert_eq!(softprompt.data(), each, "the softprompt is its segments in order");
    assert_eq!(store.documents(Some("g")).unwrap().len(), 1);
    assert_eq!(store.documents(Some("other")).unwrap(), []);
    assert!(store.document("b").unwrap().is_none());
}

#[test]
fn precisions_round_and_stay_apart() {
    let directory = crate::directory();
    let store = LocalStore::open(directory.path()).unwrap();
    store.add(&NewDocument::new("a", TEXT)).unwrap();
    for precision in [Precision::F16, Precision::F32, Precision::Int8] {
        let encoder = encoder().precision(precision);
        assert_eq!(compress(&store, &encoder), 10, "another precision is another encoder");
        let summary = store.document("a").unwrap().unwrap().summary.unwrap();
        let each = summary.segments.iter().flat_map(|key| precision.round(&rows(&encoder, key)).unwrap().into_data());
        assert_eq!(store.summary("a", &encoder).unwrap().data(), each.collect::<Vec<_>>());
    }
    assert_eq!(store.stats().unwrap().summaries, 30, "each encoder's are kept");
}

#[test]
fn adding_twice_is_once_and_other_contents_are_refused() {
    let directory = crate::directory();
    let store = LocalStore::open(directory.path()).unwrap();
    let document = NewDocument::new("a", TEXT).group("g");
    let first = store.add(&document).unwrap();
    let revision = store.revision().unwrap();
    assert_eq!(store.add(&document).unwrap(), first);
    assert_eq!(store.replace(&document).unwrap(), first);
    assert_eq!(store.revision().unwrap(), revision);
    for other in [NewDocument::new("a", "other").group("g"), document.title("other"), document.group("other")] {
        assert!(matches!(store.add(&other), Err(Error::DocumentExists { id, .. }) if id == "a"));
    }
    assert_eq!(store.documents(None).unwrap(), [first]);
}

#[test]
fn equal_texts_are_stored_and_compressed_once() {
    let directory = crate::directory();
    let (store, encoder) = (LocalStore::open(directory.path()).unwrap(), encoder());
    store.add(&NewDocument::new("a", TEXT)).unwrap();
    store.add(&NewDocument::new("b", TEXT).group("other")).unwrap();
    assert_eq!(compress(&store, &encoder), 10);
    let stats = store.stats().unwrap();
    assert_eq!((stats.documents, stats.compressed, stats.texts, stats.summaries), (2, 2, 1, 10));
    assert_eq!(store.summary("a", &encoder).unwrap(), store.summary("b", &encoder).unwrap());

    // What is shared stays until the last user goes.
    assert!(store.remove("a").unwrap());
    assert_eq!(store.summary("b", &encoder).unwrap().data(), expected(&encoder, TEXT));
    assert!(store.remove("b").unwrap());
    assert!(!store.remove("b").unwrap());
    assert_eq!(files(directory.path()), ["format.json"]);
    let stats = store.stats().unwrap();
    assert_eq!((stats.documents, stats.texts, stats.groups, stats.vectors), (0, 0, 0, 0));
}

#[test]
fn an_unfinished_document_resumes_at_the_first_missing_segment() {
    let directory = crate::directory();
    let encoder = encoder();
    for step in 1..=4 {
        let store = LocalStore::open(directory.path()).unwrap();
        store.add(&NewDocument::new("a", TEXT)).unwrap();
        let work = &store.pending(&encoder, Shard::ALL).unwrap()[0];
        let tokens = tokens(TEXT);
        let segments: Vec<&[u32]> = tokens.chunks(4).collect();
        let encoding = store.begin(work, &encoder, &segments).unwrap();
        assert_eq!(encoding.done(), (step - 1) * 3);
        let so_far = store.prefix(&encoding).unwrap();
        assert_eq!(so_far.data(), &expected(&encoder, TEXT)[..(step - 1) * 3 * 6]);
        let error = store.commit(&encoding).unwrap_err();
        assert!(matches!(error, Error::NotCompressed { total: 10, .. }), "{error}");
        assert_eq!(compress_some(&store, &encoder, work, 3), if step < 4 { 3 } else { 1 });
    }
    let store = LocalStore::open(directory.path()).unwrap();
    assert_eq!(store.summary("a", &encoder).unwrap().data(), expected(&encoder, TEXT));
}

#[test]
fn append_computes_the_tail_only_and_equals_a_full_run() {
    let directory = crate::directory();
    let (store, encoder) = (LocalStore::open(directory.path()).unwrap(), encoder());
    let (head, tail) = (&TEXT[..16], &TEXT[16..]);
    store.add(&NewDocument::new("a", head).group("g").title("t")).unwrap();
    compress(&store, &encoder);
    let document = store.append("a", tail).unwrap();
    assert!(document.staged.is_some());
    assert_eq!(store.summary("a", &encoder).unwrap().data(), expected(&encoder, head), "readers keep the old state");
    assert_eq!(store.text(&store.document("a").unwrap().unwrap().text).unwrap(), head);

    assert_eq!(compress(&store, &encoder), 6, "only the tail is computed");
    let document = store.document("a").unwrap().unwrap();
    assert_eq!((document.group.as_str(), document.title.as_str(), document.staged), ("g", "t", None));
    assert_eq!(store.text(&document.text).unwrap(), TEXT);
    assert_eq!(store.summary("a", &encoder).unwrap().data(), expected(&encoder, TEXT));
    assert_eq!(store.stats().unwrap().texts, 1, "the shorter text is gone");

    // Twice before it is compressed: both parts count.
    store.append("a", " Then").unwrap();
    store.append("a", " lunch.").unwrap();
    compress(&store, &encoder);
    let text = format!("{TEXT} Then lunch.");
    assert_eq!(store.summary("a", &encoder).unwrap().data(), expected(&encoder, &text));
    assert!(matches!(store.append("missing", "x"), Err(Error::DocumentNotFound { .. })));
    assert!(store.verify().unwrap().is_empty());
    assert_eq!(files(directory.path()).len(), 2 + store.stats().unwrap().summaries as usize);
}

#[test]
fn replacing_shows_the_new_contents_once_they_are_compressed() {
    let directory = crate::directory();
    let (store, encoder) = (LocalStore::open(directory.path()).unwrap(), encoder());
    let old = NewDocument::new("a", TEXT).group("g");
    store.add(&old).unwrap();
    compress(&store, &encoder);
    // A new title alone needs no compression.
    let document = store.replace(&old.title("Renamed")).unwrap();
    assert_eq!((document.title.as_str(), document.summary.is_some()), ("Renamed", true));

    store.replace(&NewDocument::new("a", "A first thought").group("h")).unwrap();
    store.replace(&NewDocument::new("a", "A second one").group("i")).unwrap();
    assert_eq!(store.documents(Some("g")).unwrap().len(), 1);
    let work = store.pending(&encoder, Shard::ALL).unwrap().remove(0);
    assert_eq!(store.text(&work.text).unwrap(), "A second one");
    compress(&store, &encoder);
    let groups: Vec<String> = store.groups().unwrap().into_iter().map(|group| group.name).collect();
    assert_eq!(groups, ["i"]);
    assert_eq!(store.summary("a", &encoder).unwrap().data(), expected(&encoder, "A second one"));
    assert_eq!(store.stats().unwrap().texts, 1);

    // Back to the text that is shown: nothing is left to do.
    store.replace(&NewDocument::new("a", "Never compressed").group("i")).unwrap();
    store.replace(&NewDocument::new("a", "A second one").group("i")).unwrap();
    assert_eq!(store.pending(&encoder, Shard::ALL).unwrap(), []);
    store.replace(&NewDocument::new("new", "Added by replacing")).unwrap();
    assert_eq!(store.stats().unwrap().texts, 2);
}

#[test]
fn work_that_lost_its_document_is_told_so() {
    let directory = crate::directory();
    let (store, encoder) = (LocalStore::open(directory.path()).unwrap(), encoder());
    store.add(&NewDocument::new("a", TEXT)).unwrap();
    let work = store.pending(&encoder, Shard::ALL).unwrap().remove(0);
    let tokens = tokens(TEXT);
    let segments: Vec<&[u32]> = tokens.chunks(4).collect();
    let mut encoding = store.begin(&work, &encoder, &segments).unwrap();
    let first = rows(&encoder, &encoding.segments()[0].key);
    store.put_segment(&mut encoding, &first).unwrap();
    store.remove("a").unwrap();
    let is_superseded = |error: Error| matches!(error, Error::Superseded { id, .. } if id == "a");
    assert!(is_superseded(store.put_segment(&mut encoding.clone(), &first).unwrap_err()));
    assert!(is_superseded(store.commit(&encoding).unwrap_err()));
    assert!(is_superseded(store.begin(&work, &encoder, &segments).unwrap_err()));
    store.compact().unwrap();
    assert_eq!(files(directory.path()), ["format.json"]);
}

#[test]
fn rows_of_the_wrong_shape_or_value_are_refused() {
    let directory = crate::directory();
    let (store, encoder) = (LocalStore::open(directory.path()).unwrap(), encoder().precision(Precision::F16));
    store.add(&NewDocument::new("a", "four")).unwrap();
    let work = store.pending(&encoder, Shard::ALL).unwrap().remove(0);
    let tokens = tokens("four");
    assert!(matches!(store.begin(&work, &encoder, &[]), Err(Error::EmptyText { .. })));
    let mut encoding = store.begin(&work, &encoder, &[&tokens]).unwrap();
    for (rows, hidden) in [(0, 3), (3, 3), (2, 4), (2, 2)] {
        let wrong = SummaryRows::new(rows, hidden, vec![0.0; rows * hidden]).unwrap();
        assert!(matches!(store.put_segment(&mut encoding, &wrong), Err(Error::SummaryShape { .. })));
    }
    assert!(matches!(SummaryRows::new(2, 3, vec![0.0; 5]), Err(Error::SummaryShape { values: 5, .. })));
    for value in [f32::NAN, f32::INFINITY, 1e6] {
        let wrong = SummaryRows::new(2, 3, vec![0.0, 0.0, 0.0, value, 0.0, 0.0]).unwrap();
        assert!(matches!(store.put_segment(&mut encoding, &wrong), Err(Error::SummaryValue { row: 1, .. })));
    }
    let good = SummaryRows::new(1, 3, vec![0.5; 3]).unwrap();
    store.put_segment(&mut encoding, &good).unwrap();
    assert!(matches!(store.put_segment(&mut encoding, &good), Err(Error::NoSegmentLeft { total: 1, .. })));
    store.commit(&encoding).unwrap();
    let other: Vec<&[u32]> = tokens.chunks(2).collect();
    assert!(matches!(store.begin(&work, &encoder, &other), Err(Error::SegmentsDiffer { .. })));
    assert_eq!(store.summary("a", &encoder).unwrap().data(), [0.5; 3]);
}

#[test]
fn another_encoder_is_refused_and_can_take_over_document_by_document() {
    let directory = crate::directory();
    let store = LocalStore::open(directory.path()).unwrap();
    let (old, new) = (encoder(), EncoderInfo::new("other weights", 4, 2, 3));
    store.add(&NewDocument::new("a", TEXT)).unwrap();
    store.add(&NewDocument::new("b", "Second")).unwrap();
    compress(&store, &old);
    let error = store.summary("a", &new).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::EncoderMismatch { .. }));
    assert!(text.contains("weights+token") && text.contains("other weights") && text.contains("reencode"), "{text}");

    let work = store.pending(&new, Shard::ALL).unwrap();
    assert_eq!(work.len(), 2);
    compress_some(&store, &new, &work[0], 4);
    assert!(store.summary("a", &old).is_ok(), "the old summary serves until the new one is whole");
    assert_eq!(compress(&store, &new), 6 + 2);
    for id in ["a", "b"] {
        assert!(store.summary(id, &new).is_ok());
        assert!(matches!(store.summary(id, &old), Err(Error::EncoderMismatch { .. })));
    }
    assert_eq!(store.stats().unwrap().summaries, 24, "the old summaries are kept");
}

#[test]
fn encoders_that_keep_only_the_last_segment_or_none_before() {
    let directory = crate::directory();
    let store = LocalStore::open(directory.path()).unwrap();
    store.add(&NewDocument::new("a", "abcdefghabcd")).unwrap();
    let last = encoder().accumulate(false);
    assert_eq!(compress(&store, &last), 3);
    assert_eq!(store.summary("a", &last).unwrap().rows(), 2);
    let independent = encoder().recurrent(false);
    assert_eq!(compress(&store, &independent), 3);
    let softprompt = store.summary("a", &independent).unwrap();
    assert_eq!(softprompt.rows(), 6);
    assert_eq!(softprompt.data()[..6], softprompt.data()[12..]);
    assert_eq!(store.forget_encoder(&last.id()).unwrap().summaries, 3);
    assert_eq!(store.stats().unwrap().summaries, 2, "equal segments without a past are one");
    store.remove("a").unwrap();
    assert_eq!(store.stats().unwrap().summaries, 0);
}

#[test]
fn hostile_names_are_names_and_never_paths() {
    let directory = crate::directory();
    let root = directory.path().join("store");
    let store = LocalStore::open(&root).unwrap();
    let names = ["../../etc/passwd", "/", "..", ".", "a\nb", "CON", "é\u{301}", "\u{202e}rtl", "a/b", " ", "%2e"];
    let long = "x".repeat(512);
    for (i, name) in names.into_iter().chain([long.as_str()]).enumerate() {
        store.add(&NewDocument::new(name, &format!("Text {i}")).group(name).title("\0")).unwrap();
        store.put_adapter(name, &adapter(directory.path(), name.as_bytes())).unwrap();
    }
    compress(&store, &encoder());
    for name in names.into_iter().chain([long.as_str()]) {
        assert_eq!(store.documents(Some(name)).unwrap()[0].id, name);
        let path = store.adapter(name).unwrap().unwrap().path;
        assert!(path.starts_with(root.join("adapters")) && !path.to_str().unwrap().contains(".."));
        assert_eq!(std::fs::read(path.join("adapter_model.safetensors")).unwrap(), name.as_bytes());
    }
    let outside: Vec<String> = files(directory.path()).into_iter().filter(|path| !path.starts_with("store/")).collect();
    assert!(outside.iter().all(|path| path.starts_with("adapter-")), "{outside:?}");

    for name in ["", "a\0b", &"x".repeat(513), &"x".repeat(10_000)] {
        for document in [NewDocument::new(name, TEXT), NewDocument::new("a", TEXT).group(name)] {
            let error = store.add(&document).unwrap_err();
            assert!(matches!(error, Error::InvalidName { .. }));
            assert!(error.to_string().len() < 250, "{error}");
        }
    }
    assert!(matches!(store.add(&NewDocument::new("empty", "")), Err(Error::EmptyText { id, .. }) if id == "empty"));
    for name in ["../x", "", ".hidden", "a/b", "a\0"] {
        assert!(matches!(store.put_index(name, b"x"), Err(Error::InvalidName { .. })), "{name}");
    }
}

#[test]
fn texts_of_any_kind_come_back_byte_for_byte() {
    let directory = crate::directory();
    let store = LocalStore::open(directory.path()).unwrap();
    let large = "0123456789abcde\n".repeat(1 << 16);
    for (id, text) in [("1", "x"), ("2", "a\0b\r\n"), ("3", "עברית é\u{301} \u{feff}"), ("4", large.as_str())] {
        let document = store.add(&NewDocument::new(id, text)).unwrap();
        assert!(store.text(&document.text).unwrap() == text, "{id}");
    }
}

#[test]
fn a_hundred_megabytes_are_one_document() {
    let directory = crate::directory();
    let store = LocalStore::open(directory.path()).unwrap();
    let large = "0123456789abcde\n".repeat(100 << 16);
    let document = store.add(&NewDocument::new("large", &large)).unwrap();
    assert_eq!(document.text_bytes, 100 << 20);
    assert!(store.text(&document.text).unwrap() == large);
    let longer = store.append("large", "!").unwrap();
    assert_eq!(longer.staged.unwrap().text_bytes, (100 << 20) + 1);
    assert!(store.remove("large").unwrap());
    assert_eq!(files(directory.path()), ["format.json"]);
}

#[test]
fn many_documents_at_once_are_as_one_by_one() {
    let directory = crate::directory();
    let (single, many) = (directory.path().join("single"), directory.path().join("many"));
    let (single, many) = (LocalStore::open(single).unwrap(), LocalStore::open(many).unwrap());
    let encoder = encoder();
    let documents: Vec<(String, String)> =
        (0..30).map(|i| (format!("{}", i % 25), format!("Text number {}", i % 20))).collect();
    let new: Vec<NewDocument<'_>> = documents.iter().map(|(id, text)| NewDocument::new(id, text)).collect();
    for document in &new {
        single.replace(document).unwrap();
    }
    let stored = many.replace_all(&new).unwrap();
    assert_eq!(stored.len(), new.len());
    assert_eq!(crate::seen(&many), crate::seen(&single), "of two with one id the later counts");
    let revision = many.revision().unwrap();
    many.replace_all(&new[5..]).unwrap();
    assert_eq!(many.revision().unwrap(), revision, "the same again changes nothing");
    for bad in [NewDocument::new("a\0", "x"), NewDocument::new("new", "")] {
        assert!(many.replace_all(&[NewDocument::new("fresh", "text"), bad]).is_err());
        assert!(many.document("fresh").unwrap().is_none(), "nothing is stored if one cannot be");
    }

    compress(&single, &encoder);
    let pending = many.pending(&encoder, Shard::ALL).unwrap();
    let tokens: Vec<Vec<u32>> = pending.iter().map(|work| tokens(&many.text(&work.text).unwrap())).collect();
    let segments: Vec<Vec<&[u32]>> = tokens.iter().map(|tokens| tokens.chunks(4).collect()).collect();
    let computed = |(work, segments): (&Pending, &Vec<&[u32]>)| -> Vec<SummaryRows> {
        let encoding = many.begin(work, &encoder, segments).unwrap();
        encoding.segments().iter().map(|segment| rows(&encoder, &segment.key)).collect()
    };
    let computed: Vec<Vec<SummaryRows>> = pending.iter().zip(&segments).map(computed).collect();
    let new = pending.iter().zip(&segments).zip(&computed);
    let new: Vec<NewSummary<'_>> = new.map(|((work, segments), rows)| NewSummary { work, segments, rows }).collect();
    let missing = NewSummary { rows: &new[0].rows[1..], ..new[0] };
    assert!(matches!(many.put_summaries(&encoder, &[missing]), Err(Error::NotCompressed { .. })));
    many.put_summaries(&encoder, &new).unwrap();
    many.put_summaries(&encoder, &new).unwrap();
    assert_eq!(crate::seen(&many), crate::seen(&single));
    assert_eq!(files(many.path()), files(single.path()));
    many.remove(&pending[0].id).unwrap();
    assert!(matches!(many.put_summaries(&encoder, &new), Err(Error::Superseded { .. })));
    assert!(many.verify().unwrap().is_empty());
    assert_eq!(many.compact().unwrap().files, 0);
}

#[test]
fn a_mapped_summary_is_the_stored_values() {
    let directory = crate::directory();
    let store = LocalStore::open(directory.path()).unwrap();
    store.add(&NewDocument::new("a", TEXT)).unwrap();
    for precision in [Precision::F16, Precision::F32, Precision::Int8] {
        let encoder = encoder().precision(precision);
        compress(&store, &encoder);
        let (mapped, read) = (store.mapped("a", &encoder).unwrap(), store.summary("a", &encoder).unwrap());
        assert_eq!((mapped.rows(), mapped.segments().len()), (read.rows(), 10));
        let values = mapped.segments().iter().flat_map(|segment| match precision {
            Precision::F16 => segment.as_f16().unwrap().iter().map(|value| value.to_f32()).collect::<Vec<_>>(),
            Precision::F32 => segment.as_f32().unwrap().to_vec(),
            _ => {
                let (values, scales) = segment.as_int8().unwrap();
                let rows = values.chunks(segment.hidden()).zip(scales);
                rows.flat_map(|(row, scale)| row.iter().map(move |value| f32::from(*value) * scale)).collect()
            }
        });
        assert_eq!(values.collect::<Vec<_>>(), read.data());
    }
    let encoder = encoder().precision(Precision::Int8);
    let mapped = store.mapped("a", &encoder).unwrap();
    let before = mapped.to_rows().unwrap();
    store.remove("a").unwrap();
    assert_eq!(mapped.to_rows().unwrap(), before, "a view outlives its document");
}

#[test]
fn adapters_have_versions_and_roll_back() {
    let directory = crate::directory();
    let root = directory.path().join("store");
    let store = LocalStore::open(&root).unwrap();
    assert_eq!(store.adapter("g").unwrap(), None);
    let weights = |version: u32| {
        let adapter = store.adapter("g").unwrap().unwrap();
        assert_eq!(adapter.version, version);
        std::fs::read(adapter.path.join("adapter_model.safetensors")).unwrap()
    };
    for (version, contents) in [(1, b"one"), (2, b"two"), (3, b"six")] {
        let source = adapter(directory.path(), contents);
        assert_eq!(store.put_adapter("g", &source).unwrap().version, version);
        assert_eq!(store.put_adapter("g", &source).unwrap().version, version, "the same again is no new version");
    }
    assert_eq!(weights(3), b"six");
    assert_eq!(store.set_adapter("g", None).unwrap().version, 2);
    assert_eq!(store.set_adapter("g", None).unwrap().version, 1);
    assert_eq!(weights(1), b"one");
    assert!(matches!(store.set_adapter("g", None), Err(Error::AdapterNotFound { version: 0, .. })));
    assert!(matches!(store.set_adapter("g", Some(9)), Err(Error::AdapterNotFound { version: 9, .. })));
    assert!(matches!(store.set_adapter("h", Some(1)), Err(Error::AdapterNotFound { .. })));
    assert_eq!(store.set_adapter("g", Some(3)).unwrap().version, 3);
    let group = store.groups().unwrap().remove(0);
    assert_eq!((group.adapter, group.versions, group.documents), (Some(3), vec![1, 2, 3], 0));

    // A stored adapter can be stored again elsewhere: our own label is not part of it.
    let stored = store.adapter("g").unwrap().unwrap().path;
    store.put_adapter("copy", &stored).unwrap();
    drop(store);
    let store = LocalStore::open(&root).unwrap();
    assert_eq!(store.adapter("copy").unwrap().unwrap().version, 1);
    assert!(store.verify().unwrap().is_empty());

    std::fs::remove_file(adapter(directory.path(), b"two").join("adapter_config.json")).unwrap();
    let bad = directory.path().join(format!("adapter-{}", lloco_core::Digest::of(b"two")));
    for path in [bad.as_path(), &directory.path().join("missing"), directory.path()] {
        assert!(matches!(store.put_adapter("g", path), Err(Error::NotAnAdapter { .. })), "{}", path.display());
    }
}

#[test]
fn index_files_are_replaced_as_a_whole() {
    let directory = crate::directory();
    let store = LocalStore::open(directory.path()).unwrap();
    assert_eq!(store.index("dense.bin").unwrap(), None);
    for contents in [b"first".as_slice(), b"second, longer"] {
        let path = store.put_index("dense.bin", contents).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), contents);
        assert_eq!(store.index("dense.bin").unwrap(), Some(path));
    }
    let revision = store.revision().unwrap();
    store.add(&NewDocument::new("a", TEXT)).unwrap();
    assert!(store.revision().unwrap() > revision);
}

#[test]
fn threads_share_a_store() {
    let directory = crate::directory();
    let (store, encoder) = (LocalStore::open(directory.path()).unwrap(), encoder());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, encoder) = (&store, &encoder);
            scope.spawn(move || {
                for i in 0..6 {
                    // Neighbouring threads share texts.
                    let (id, text) = (format!("{thread}-{i}"), format!("Text number {}", thread / 2 * 10 + i));
                    store.add(&NewDocument::new(&id, &text)).unwrap();
                    let pending = store.pending(encoder, Shard::ALL).unwrap();
                    if let Some(work) = pending.iter().find(|work| work.id == id) {
                        compress_some(store, encoder, work, usize::MAX);
                    }
                    if i % 3 == 2 {
                        store.remove(&id).unwrap();
                    } else {
                        assert_eq!(store.summary(&id, encoder).unwrap().data(), expected(encoder, &text));
                    }
                }
            });
        }
    });
    assert_eq!(store.stats().unwrap().documents, 16);
    assert!(store.verify().unwrap().is_empty());
    assert_eq!(store.compact().unwrap().files, 0);
}

#[test]
fn shards_cover_everything_once() {
    let directory = crate::directory();
    let (store, encoder) = (LocalStore::open(directory.path()).unwrap(), encoder());
    for i in 0..20 {
        store.add(&NewDocument::new(&format!("{i}"), &format!("Text {}", i / 2))).unwrap();
    }
    let mut ids: Vec<String> = (0..3)
        .flat_map(|index| store.pending(&encoder, Shard::new(index, 3).unwrap()).unwrap())
        .map(|work| work.id)
        .collect();
    ids.sort();
    let all: Vec<String> = store.documents(None).unwrap().into_iter().map(|document| document.id).collect();
    assert_eq!(ids, all);
    for (index, of) in [(3, 3), (0, 0), (7, 3)] {
        assert!(matches!(Shard::new(index, of), Err(Error::InvalidShard { .. })));
    }
}
