//! Stores that somebody else made: whatever their files and rows say, there is an error or a
//! result, no panic, and nothing outside is touched. Seeded; `LLOCO_FUZZ_SECONDS` makes it longer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lloco_core::Error;
use lloco_core::store::{LocalStore, NewDocument, Precision, Shard, Store};
use redb::{ReadableTable as _, TableHandle as _};

use crate::mutator::{Mutator, time};
use crate::{adapter, compress, directory, encoder, files};

/// A small store of every kind of file and row.
fn sample(root: &Path) -> PathBuf {
    let path = root.join("sample");
    let store = LocalStore::open(&path).unwrap();
    for (id, text) in [("a", "A text of some length"), ("b", "A text of another length"), ("c/..", "Third")] {
        store.add(&NewDocument::new(id, text).group("g")).unwrap();
    }
    compress(&store, &encoder().precision(Precision::Int8));
    store.replace(&NewDocument::new("b", "A text to come").group("h")).unwrap();
    store.put_adapter("g", &adapter(root, b"weights")).unwrap();
    store.put_adapter("g", &adapter(root, b"other weights")).unwrap();
    path
}

fn copy(from: &Path, to: &Path) {
    for name in files(from).iter().map(String::as_str).chain(["catalog.redb"]) {
        let target = to.join(name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(from.join(name), target).unwrap();
    }
}

/// Calls everything that reads, and everything that looks after a store.
fn use_all(path: &Path, target: &LocalStore) -> Result<(), Error> {
    let encoder = encoder().precision(Precision::Int8);
    {
        let reader = LocalStore::open_read_only(path)?;
        let documents = reader.documents(None)?;
        for document in &documents {
            let _ = (reader.text(&document.text), reader.summary(&document.id, &encoder));
        }
        let _ = (reader.groups(), reader.stats(), reader.pending(&encoder, Shard::ALL), reader.revision());
        let _ = (reader.adapter("g"), reader.verify());
    }
    let store = LocalStore::open(path)?;
    let _ = (store.verify(), target.merge(&store, |_| true));
    let _ = store.append("a", " and more");
    let _ = (store.set_adapter("g", None), store.put_adapter("g", path));
    for work in store.pending(&encoder, Shard::ALL)? {
        let tokens = store.text(&work.text).map(|text| crate::tokens(&text)).unwrap_or_default();
        let segments: Vec<&[u32]> = tokens.chunks(4).collect();
        if let Ok(encoding) = store.begin(&work, &encoder, &segments) {
            let _ = (store.prefix(&encoding), store.commit(&encoding));
        }
    }
    let _ = (store.repair(), store.remove("b"), store.compact());
    Ok(())
}

/// Damages copies of a store, until time is over, and uses each. How many could not be opened.
fn damage_copies(seed: u64, damage: impl Fn(&mut Mutator, &Path)) -> (usize, usize) {
    let directory = directory();
    let sample = sample(directory.path());
    let (mut mutator, start) = (Mutator(seed), Instant::now());
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("x"), "not the store's").unwrap();
    let (mut runs, mut refused) = (0, 0);
    while runs < 12 || start.elapsed() < time() {
        let room = tempfile::tempdir_in(directory.path()).unwrap();
        let (path, target) = (room.path().join("copy"), room.path().join("target"));
        copy(&sample, &path);
        damage(&mut mutator, &path);
        let target = LocalStore::open(&target).unwrap();
        target.add(&NewDocument::new("own", "Of the target")).unwrap();
        refused += usize::from(use_all(&path, &target).is_err());
        assert!(target.verify().unwrap().is_empty(), "damage came over with a merge");
        assert_eq!(fs::read(outside.join("x")).unwrap(), b"not the store's");
        runs += 1;
    }
    assert_eq!(files(&outside), ["x"]);
    (runs, refused)
}

#[test]
fn files_of_any_contents() {
    let (runs, refused) = damage_copies(1, |mutator, path| {
        let names = files(path);
        let path = path.join(&names[mutator.below(names.len())]);
        let mut bytes = fs::read(&path).unwrap();
        mutator.mutate(&mut bytes);
        fs::write(path, bytes).unwrap();
    });
    assert!(runs > 10 && refused < runs, "{runs} runs, {refused} refused");
}

#[test]
fn rows_of_any_contents() {
    let (runs, refused) = damage_copies(2, |mutator, path| {
        let mut builder = redb::Builder::new();
        builder.set_concurrency_mode(redb::ConcurrencyMode::SingleWriter);
        let catalogue = builder.open(path.join("catalog.redb")).unwrap();
        let write = catalogue.begin_write().unwrap();
        let names: Vec<String> = write.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
        // One table in most runs, now and then several.
        for name in names.iter().filter(|_| mutator.below(4) == 0).cloned().collect::<Vec<_>>() {
            type Json = &'static [u8];
            type Hash = &'static [u8; 32];
            macro_rules! alter {
                ($key:ty, $own:expr) => {{
                    let mut table = write.open_table(redb::TableDefinition::<$key, Json>::new(&name)).unwrap();
                    let row = table.iter().unwrap().nth(mutator.below(3)).map(|row| {
                        let (key, value) = row.unwrap();
                        ($own(key.value()), value.value().to_vec())
                    });
                    if let Some((key, mut bytes)) = row {
                        mutator.mutate(&mut bytes);
                        table.insert(key.borrowed(), bytes.as_slice()).unwrap();
                    }
                }};
            }
            match name.as_str() {
                "documents" | "groups" => alter!(&str, |key: &str| key.to_owned()),
                "texts" | "encoders" | "summaries" => alter!(Hash, |key: &[u8; 32]| *key),
                "encodings" => alter!((Hash, Hash), |(a, b): (&[u8; 32], &[u8; 32])| (*a, *b)),
                "segments" => alter!((Hash, Hash, u32), |(a, b, n): (&[u8; 32], &[u8; 32], u32)| (*a, *b, n)),
                _ => {}
            }
        }
        write.commit().unwrap();
    });
    assert!(runs > 10, "{runs} runs, {refused} refused");
}

/// Keys as redb takes them.
trait Borrowed {
    type As<'a>
    where
        Self: 'a;
    fn borrowed(&self) -> Self::As<'_>;
}

impl Borrowed for String {
    type As<'a> = &'a str;
    fn borrowed(&self) -> &str {
        self
    }
}

impl Borrowed for [u8; 32] {
    type As<'a> = &'a [u8; 32];
    fn borrowed(&self) -> &[u8; 32] {
        self
    }
}

impl Borrowed for ([u8; 32], [u8; 32]) {
    type As<'a> = (&'a [u8; 32], &'a [u8; 32]);
    fn borrowed(&self) -> (&[u8; 32], &[u8; 32]) {
        (&self.0, &self.1)
    }
}

impl Borrowed for ([u8; 32], [u8; 32], u32) {
    type As<'a> = (&'a [u8; 32], &'a [u8; 32], u32);
    fn borrowed(&self) -> (&[u8; 32], &[u8; 32], u32) {
        (&self.0, &self.1, self.2)
    }
}

#[test]
fn softprompt_files_of_any_contents() {
    use lloco_core::{Device, softprompt};
    let directory = directory();
    let path = directory.path().join("x.safetensors");
    let store = LocalStore::open(sample(directory.path())).unwrap();
    store.export_softprompt("a", &encoder().precision(Precision::Int8), &path).unwrap();
    let device: Device = lloco_core::device("cpu").unwrap();
    let rows = softprompt::load(&path, &device).unwrap().dims()[0];
    assert!(rows > 0);
    let (good, mut mutator, start) = (fs::read(&path).unwrap(), Mutator(3), Instant::now());
    let (mut runs, mut refused) = (0, 0);
    while start.elapsed() < time() / 2 {
        for _ in 0..100 {
            let mut bytes = good.clone();
            mutator.mutate(&mut bytes);
            fs::write(&path, bytes).unwrap();
            refused += usize::from(softprompt::load(&path, &device).is_err());
            runs += 1;
        }
    }
    assert!(refused > 0 && refused < runs, "{runs} runs, {refused} refused");
}

#[cfg(unix)]
#[test]
fn links_out_of_a_store_are_not_followed() {
    use std::os::unix::fs::symlink;
    let directory = directory();
    let (sample, outside) = (sample(directory.path()), directory.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("thesis.txt"), "mine").unwrap();
    let inner = fs::read_dir(sample.join("summaries")).unwrap().next().unwrap().unwrap().path();
    let group = fs::read_dir(sample.join("adapters")).unwrap().next().unwrap().unwrap().path();
    let at_once = ["tmp", "text", "summaries", "adapters", "index", "runs"].map(|name| sample.join(name));
    for (i, place) in at_once.iter().chain([&inner, &group]).enumerate() {
        let aside = directory.path().join("moved");
        let existed = place.exists();
        if existed {
            fs::rename(place, &aside).unwrap();
        }
        symlink(&outside, place).unwrap();
        match LocalStore::open(&sample) {
            Err(error) => assert!(matches!(&error, Error::Damaged { path, .. } if path == place), "{error}"),
            Ok(store) => {
                assert!(i >= at_once.len(), "{} was followed", place.display());
                let error = store.compact().unwrap_err();
                assert!(matches!(&error, Error::Damaged { path, .. } if path == place), "{error}");
            }
        }
        assert_eq!(files(&outside), ["thesis.txt"]);
        fs::remove_file(place).unwrap();
        if existed {
            fs::rename(&aside, place).unwrap();
        }
    }
    assert!(LocalStore::open(&sample).unwrap().verify().unwrap().is_empty());
}
