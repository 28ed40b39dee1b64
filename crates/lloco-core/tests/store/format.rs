//! The format on disk: what others can rely on. `docs/format.md` describes it.

use std::path::{Path, PathBuf};
use std::process::Command;

use lloco_core::Digest;
use lloco_core::store::{EncoderInfo, LocalStore, NewDocument, Precision, Store};
use safetensors::{Dtype, SafeTensors};

use crate::{adapter, compress, directory, encoder, files, rows};

fn documentation() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

#[test]
fn keys_are_what_the_specification_says() {
    let field = |bytes: &[u8]| [(bytes.len() as u64).to_le_bytes().as_slice(), bytes].concat();
    let numbers = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let info = EncoderInfo::new("f", 4, 2, 3).accumulate(false);
    let id = [field(b"lloco encoder 1"), field(b"f"), numbers(&[4, 2, 3, 0, 1]), field(b"f16")].concat();
    assert_eq!(info.id(), Digest::of(&id));

    let directory = directory();
    let (store, encoder) = (LocalStore::open(directory.path()).unwrap(), encoder());
    store.add(&NewDocument::new("a", "abcdefgh")).unwrap();
    compress(&store, &encoder);
    let key = |previous: [u8; 32], tokens: [u32; 4]| {
        let tokens: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        Digest::of(&[field(b"lloco segment 1"), encoder.id().bytes().to_vec(), previous.to_vec(), tokens].concat())
    };
    let first = key([0; 32], [97, 98, 99, 100]);
    let second = key(*first.bytes(), [101, 102, 103, 104]);
    assert_eq!(store.document("a").unwrap().unwrap().summary.unwrap().segments, [first, second]);
}

#[test]
fn files_are_where_and_what_the_specification_says() {
    let directory = directory();
    let root = directory.path().join("store");
    let (store, encoder) = (LocalStore::open(&root).unwrap(), encoder().precision(Precision::Int8));
    store.add(&NewDocument::new("a", "abcdefgh").group("My Group!")).unwrap();
    compress(&store, &encoder);
    store.put_adapter("My Group!", &adapter(directory.path(), b"weights")).unwrap();
    let document = store.document("a").unwrap().unwrap();
    let keys: Vec<String> = document.summary.unwrap().segments.iter().map(ToString::to_string).collect();
    let text = Digest::of(b"abcdefgh").to_string();
    let group = format!("adapters/my-group--{}/1", &Digest::of(b"My Group!").to_string()[..16]);
    let mut expected = vec!["format.json".to_owned(), format!("text/{}/{text}.txt", &text[..2])];
    expected.extend(keys.iter().map(|key| format!("summaries/{}/{key}.safetensors", &key[..2])));
    for name in ["adapter_config.json", "adapter_model.safetensors", "lloco.json"] {
        expected.push(format!("{group}/{name}"));
    }
    expected.sort();
    assert_eq!(files(&root), expected);

    let read = |name: &str| std::fs::read(root.join(name)).unwrap();
    assert_eq!(read("format.json"), br#"{"format":"lloco-store","version":1}"#);
    let label: serde_json::Value = serde_json::from_slice(&read(&format!("{group}/lloco.json"))).unwrap();
    assert_eq!((&label["format"], &label["version"]), (&"lloco-adapter".into(), &1.into()));
    assert_eq!((&label["group"], &label["adapter"]), (&"My Group!".into(), &1.into()));

    let bytes = read(&format!("summaries/{}/{}.safetensors", &keys[1][..2], keys[1]));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (summary, scale) = (file.tensor("summary").unwrap(), file.tensor("scale").unwrap());
    assert_eq!((summary.dtype(), summary.shape()), (Dtype::I8, [2, 3].as_slice()));
    assert_eq!((scale.dtype(), scale.shape()), (Dtype::F32, [2].as_slice()));
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let label: serde_json::Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["lloco"]).unwrap();
    assert_eq!((&label["format"], &label["version"]), (&"lloco-summary".into(), &1.into()));
    assert_eq!((&label["key"], &label["previous"]), (&keys[1].as_str().into(), &keys[0].as_str().into()));
    assert_eq!((&label["tokens"], &label["encoder"]["precision"]), (&4.into(), &"int8".into()));
}

/// What `docs/read_store.py` prints, or nothing where there is no Python.
fn python(arguments: &[&str]) -> Option<String> {
    let script = documentation().join("read_store.py");
    let Ok(output) = Command::new("python3").arg(script).args(arguments).output() else {
        eprintln!("SKIPPED: there is no python3 on this machine to read the store with");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn python_reads_a_store_with_its_standard_library_alone() {
    let directory = directory();
    let root = directory.path().to_str().unwrap();
    for precision in [Precision::F32, Precision::F16, Precision::Int8] {
        let encoder = encoder().precision(precision);
        {
            let store = LocalStore::open(root).unwrap();
            // Enough documents for a catalogue of several levels, and ids of all kinds.
            for i in 0..150 {
                let (id, text) = (format!("{i}/é\n"), format!("Text number {} says little", i % 140));
                store.replace(&NewDocument::new(&id, &text).group("g").title("Title")).unwrap();
            }
            compress(&store, &encoder);
            store.replace(&NewDocument::new("0/é\n", "A newer text, not yet compressed")).unwrap();
        }
        let store = LocalStore::open_read_only(root).unwrap();
        let Some(listing) = python(&[root]) else { return };
        let listed: Vec<serde_json::Value> = listing.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let documents = store.documents(None).unwrap();
        assert_eq!(listed.len(), documents.len());
        for (listed, document) in listed.iter().zip(&documents) {
            assert_eq!(listed["id"], document.id.as_str());
            assert_eq!(listed["text"], store.text(&document.text).unwrap().as_str());
            assert_eq!(listed["vectors"], store.summary(&document.id, &encoder).unwrap().rows());
        }
        let numbers = python(&[root, "7/é\n"]).unwrap();
        let numbers: Vec<f64> = numbers.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let expected = store.summary("7/é\n", &encoder).unwrap().into_data();
        assert_eq!(numbers.len(), expected.len());
        for (number, expected) in numbers.iter().zip(expected) {
            assert!((number - f64::from(expected)).abs() < 1e-6, "{number} {expected}");
        }
    }
}

/// The store that version 1 wrote, unpacked.
fn version_1(directory: &Path) -> PathBuf {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store_v1.zip");
    let mut archive = zip::ZipArchive::new(std::fs::File::open(archive).unwrap()).unwrap();
    archive.extract(directory).unwrap();
    directory.join("store")
}

#[test]
fn a_store_of_version_1_stays_readable() {
    let directory = directory();
    let root = version_1(directory.path());
    let encoder = encoder();
    let check = |store: &LocalStore| {
        assert!(store.verify().unwrap().is_empty());
        let document = store.document("minutes/1").unwrap().unwrap();
        assert_eq!((document.group.as_str(), document.title.as_str()), ("meetings", "Minutes"));
        assert_eq!(store.text(&document.text).unwrap(), "The budget was approved.");
        let summary = document.summary.unwrap();
        let expected: Vec<f32> = summary.segments.iter().flat_map(|key| rows(&encoder, key).into_data()).collect();
        assert_eq!(store.summary("minutes/1", &encoder).unwrap().data(), expected);
        let staged = store.document("minutes/2").unwrap().unwrap().staged.unwrap();
        assert_eq!(store.text(&staged.text).unwrap(), "A longer text, to be compressed.");
        let adapter = store.adapter("meetings").unwrap().unwrap();
        assert_eq!(adapter.version, 1);
        assert_eq!(std::fs::read(adapter.path.join("adapter_model.safetensors")).unwrap(), b"weights");
    };
    check(&LocalStore::open_read_only(&root).unwrap());
    let store = LocalStore::open(&root).unwrap();
    check(&store);
    assert!(compress(&store, &encoder) > 0);
    assert_eq!(store.stats().unwrap().compressed, 2);
}

/// Makes the archive that the test above reads. Run once for each format version.
#[test]
#[ignore = "writes test data"]
fn write_version_1() {
    let directory = directory();
    let root = directory.path().join("store");
    {
        let (store, encoder) = (LocalStore::open(&root).unwrap(), encoder());
        let first = NewDocument::new("minutes/1", "The budget was approved.").group("meetings").title("Minutes");
        store.add(&first).unwrap();
        store.add(&NewDocument::new("minutes/2", "A text")).unwrap();
        compress(&store, &encoder);
        store.replace(&NewDocument::new("minutes/2", "A longer text, to be compressed.")).unwrap();
        store.put_adapter("meetings", &adapter(directory.path(), b"weights")).unwrap();
        store.compact().unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store_v1.zip");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for name in files(&root).iter().map(String::as_str).chain(["catalog.redb"]) {
        archive.start_file(format!("store/{name}"), zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut archive, &std::fs::read(root.join(name)).unwrap()).unwrap();
    }
    archive.finish().unwrap();
}
