//! `ingest`, `finetune` and `ask`, one after the other on one store.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::{failure, json, model_with_tokenizer, repository, run, text};
use serde_json::{Value, json as value};

const LINE: &str =
    r#"{"id":"log","text":"Kept by Ilves.","questions":[{"question":"Who kept the log?","answers":["Ilves"]}]}"#;

/// A directory with a model and room for a store.
struct Library {
    work: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Library {
    fn new() -> Self {
        let work = tempfile::tempdir().unwrap();
        let (store, model) = (work.path().join("store"), model_with_tokenizer(work.path()));
        let embedder = repository("crates/lloco-retrieval/tests/data/tiny-bert");
        let given = ["--store", text(&store), "--model", text(&model), "--embedder", text(&embedder)];
        let arguments = given.iter().chain(&["--segment-length", "56"]).map(ToString::to_string).collect();
        Self { work, arguments }
    }

    fn file(&self, name: &str, contents: &str) -> String {
        let path = self.work.path().join(name);
        fs::write(&path, contents).unwrap();
        text(&path).to_owned()
    }

    fn run(&self, program: &str, more: &[&str]) -> Value {
        let given: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        json(program, &[&given, more].concat())
    }
}

#[test]
fn files_are_added_learned_and_asked() {
    let library = Library::new();
    let log = library.file("log.txt", "The log of the survey was kept by Ilves from the first day to the last.");
    let pump = library.file("pump [old].txt", "Open the red valve first.");
    let latin = library.work.path().join("latin.txt");
    fs::write(&latin, b"caf\xe9").unwrap();

    let add = ["--group", "survey", &log, &pump, text(&latin)];
    let added = library.run("ingest", &add);
    assert_eq!((&added["documents"], &added["unchanged"]), (&value!(2), &value!(0)));
    assert_eq!(added["failed"][0]["path"], value!(latin));
    let again = library.run("ingest", &add);
    assert_eq!((&again["documents"], &again["unchanged"], &again["tokens_read"]), (&value!(0), &value!(2), &value!(0)));

    // The questions name the document by its file.
    let questions = library.file("questions.jsonl", LINE);
    let learn = ["--group", "survey", "--questions", &questions, "--epochs", "2", "--rank", "2"];
    let first = library.run("finetune", &learn);
    assert_eq!((&first["examples"], &first["steps"], &first["version"]), (&value!(1), &value!(2), &value!(1)));
    assert!(first["last_loss"].as_f64().unwrap() > 0.0);
    let arithmetic = |report: &Value| report["arithmetic"]["share"].as_f64().filter(|share| *share > 0.0);
    assert!(arithmetic(&first).is_some() && first["positions_per_second"].as_f64() > Some(0.0), "{first}");
    let second = library.run("finetune", &learn);
    assert_eq!((&second["steps"], &second["version"], &second["last_loss"]), (&value!(0), &value!(1), &Value::Null));
    assert_eq!((arithmetic(&second), &second["positions_per_second"]), (None, &Value::Null));

    let ask = ["--group", "survey", "--max-new-tokens", "4", "--documents", "2", "Who kept the log?"];
    let answer = library.run("ask", &ask);
    assert_eq!((&answer["adapter"], answer["sources"].as_array().map(Vec::len)), (&value!(1), Some(2)));
    let read = library.run("ask", &[&ask[..], &["--text"]].concat());
    assert_eq!((&read["adapter"], &read["document_tokens"]), (&Value::Null, &read["context_positions"]));

    let more = ["--group", "survey", "--data", &questions, "--rows", "compressed,shuffled", "--max-new-tokens", "4"];
    let table = library.run("evaluate", &more);
    let rows: Vec<&Value> = table["rows"].as_array().unwrap().iter().map(|row| &row["row"]).collect();
    assert_eq!(rows, ["compressed", "compressed + adapter", "shuffled summaries", "shuffled summaries + adapter"]);
    assert!(table["rows"][1]["cells"]["NLL"]["value"].as_f64().unwrap() > 0.0, "{table}");
    assert_eq!(table["differences"][0]["difference"], "compressed + adapter - shuffled summaries + adapter");

    let out = library.work.path().join("study.jsonl");
    let study = ["--group", "survey", "--written", "0", "--out", text(&out)];
    let studied = library.run("self_study", &study);
    assert!(studied["cloze"].as_u64().unwrap() > 0, "{studied}");
    let learn = ["--group", "survey", "--questions", text(&out), "--epochs", "1", "--rank", "2", "--distil"];
    let taught = library.run("finetune", &learn);
    assert_eq!((&taught["version"], &taught["examples"]), (&value!(2), &studied["cloze"]));
    assert!(taught["last_divergence"].as_f64().unwrap() >= 0.0, "{taught}");

    // Another library's adapter is a version like any other.
    let elsewhere = Library::new();
    elsewhere.run("ingest", &["--group", "reports", &log]);
    let store = elsewhere.work.path().join("store");
    let adopt =
        |from: &str| vec!["--store".to_owned(), text(&store).into(), "adopt".into(), "reports".into(), from.into()];
    let path =
        json("store", &["--store", text(&library.work.path().join("store")), "rollback", "survey"])["path"].clone();
    for _ in 0..2 {
        let adopted = json("store", &adopt(path.as_str().unwrap()).iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(adopted["version"], value!(1));
    }
    let answer = elsewhere.run("ask", &["--group", "reports", "--max-new-tokens", "4", "Who kept the log?"]);
    assert_eq!(answer["adapter"], value!(1));
    let message = failure("store", &adopt(text(&store)).iter().map(String::as_str).collect::<Vec<_>>());
    assert!(message.contains("is not an adapter directory"), "{message}");
}

#[test]
fn shards_of_a_data_set_merge_into_the_whole() {
    let lines: Vec<String> =
        (0..12).map(|n| format!(r#"{{"id":"{n}","text":"Report number {n}.","questions":[]}}"#)).collect();
    let parts = [Library::new(), Library::new()];
    for (library, shard) in parts.iter().zip(["0/2", "1/2"]) {
        let data = library.file("data.jsonl", &lines.join("\n"));
        library.run("ingest", &["--data", &data, "--shard", shard]);
    }
    let whole = tempfile::tempdir().unwrap();
    let store = |verb: &[&str]| json("store", &[&["--store", text(whole.path())], verb].concat());
    let [first, second] = [&parts[0], &parts[1]].map(|part| part.work.path().join("store"));
    let merged = store(&["merge", text(&first), text(&second)]);
    assert_eq!((&merged[0]["added"], &merged[1]["unchanged"]), (&value!(12), &value!(12)));
    let stats = store(&["stats"]);
    assert_eq!((&stats["documents"], &stats["compressed"]), (&value!(12), &value!(12)));
    assert_eq!(store(&["verify"])["damaged"], value!([]));

    let encoder = &stats["encoders"][0];
    assert_eq!((&encoder["documents"], &encoder["summaries"]), (&value!(12), &stats["summaries"]));
    let shown = encoder["id"].as_str().unwrap();
    let message = failure("store", &["--store", text(whole.path()), "forget", shown]);
    assert!(message.contains("12 documents show"), "{message}");
    assert_eq!(store(&["forget", &"0".repeat(64)])["summaries"], value!(0));
    let listed = store(&["list", "--group", "default"]);
    assert_eq!((&listed[11]["encoder"], &listed[11]["waits"]), (&encoder["id"], &value!(false)));
    assert_eq!(store(&["groups"])[0], value!({"group": "default", "documents": 12, "adapter": null, "versions": []}));

    let out = parts[0].work.path();
    let exported = store(&["export", text(&out.join("one")), "--document", "3"]);
    assert_eq!((&exported["added"], &exported["summaries"]), (&value!(1), &value!(1)));
    let file = out.join("3.safetensors");
    store(&["softprompt", "3", text(&file)]);
    assert!(file.exists());
    let message = failure("store", &["--store", text(whole.path()), "rollback", "default"]);
    assert!(message.contains("default"), "{message}");
    assert_eq!(store(&["remove", "3", "none"]), value!({"removed": 1, "unknown": ["none"]}));
}

#[test]
fn behind_finetuning_stands_the_control_table_of_the_held_out_questions() {
    let library = Library::new();
    let line = |n: usize| LINE.replace("log", &format!("log-{n}")).replace("Ilves", &format!("Ilves the {n}th"));
    let data = library.file("data.jsonl", &(0..6).map(line).collect::<Vec<_>>().join("\n"));
    library.run("ingest", &["--data", &data]);
    let learn = ["--questions", &data, "--hold-out-every", "3", "--epochs", "1", "--rank", "2", "--json"];
    let given: Vec<&str> = library.arguments.iter().map(String::as_str).collect();
    let printed = |more: &[&str]| -> Vec<Value> {
        let output = run("finetune", &[&given[..], &learn, more].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let both = printed(&[]);
    assert_eq!((both.len(), &both[0]["examples"], &both[0]["version"]), (2, &value!(4), &value!(1)));
    let table = &both[1]["table"];
    assert_eq!(
        (&table["questions"], &table["adapter"], both[1]["rows"].as_array().map(Vec::len)),
        (&value!(2), &value!(1), Some(14))
    );
    let one = printed(&["--control", "1"]);
    assert_eq!((&one[0]["steps"], &one[1]["table"]["questions"]), (&value!(0), &value!(1)));
    assert_eq!(printed(&["--control", "0"]).len(), 1);

    // As evaluate prints it.
    let held_out: Vec<&Value> =
        table["rows"][0]["answers"].as_array().unwrap().iter().map(|a| &a["question"]).collect();
    let asked = (0..6).filter(|n| held_out.contains(&&value!(format!("log-{n}-1"))));
    let judges = library.file("judges.jsonl", &asked.map(line).collect::<Vec<_>>().join("\n"));
    assert_eq!(library.run("evaluate", &["--data", &judges])["table"], *table);
}

#[test]
fn people_get_text() {
    let library = Library::new();
    let data = library.file("data.jsonl", LINE);
    let given: Vec<&str> = library.arguments.iter().map(String::as_str).collect();
    let output = run("ingest", &[&given[..], &["--data", &data]].concat());
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.starts_with("1 documents compressed") && !printed.contains('{'), "{printed}");
}

const CURRICULUM: &str = r#"{
    "mode": {"pooled": {"segment_length": 8, "ratios": [4, 2]}},
    "encoder": {"r": 2, "lora_alpha": 4}, "reader": {"own": {"r": 2, "lora_alpha": 4}},
    "micro_batch": 2, "save_every": 2,
    "stages": [
        {"name": "overfit", "steps": 3, "batch": 2, "context": 8, "documents": 2, "ratios": [4],
         "losses": {"reconstruction": 1.0}},
        {"name": "answer", "steps": 2, "batch": 2, "context": 12, "continuation": 4, "ratios": [2, 4],
         "losses": {"answer": 1.0, "kl": 1.0, "binding": 0.1}}
    ]
}"#;

#[test]
fn training_makes_a_compressor_that_a_library_uses() {
    let library = Library::new();
    let text_of = "The log of the survey was kept by Ilves from the first day to the last. Open the red valve first.";
    let (data, log) = (library.file("data.jsonl", LINE), library.file("log.txt", text_of));
    let (curriculum, out) = (library.file("curriculum.json", CURRICULUM), library.work.path().join("run"));
    let model: Vec<&str> = library.arguments.iter().skip(2).take(2).map(String::as_str).collect();
    let more = ["--curriculum", &curriculum, "--data", &data, &log, "--out", text(&out)];
    let train = [&model[..], &more[..]].concat();
    let early = library.work.path().join("early");
    let first = json("train", &[&train[..], &["--steps", "2", "--export", text(&early)]].concat());
    assert!(early.join("compressor.safetensors").is_file());
    assert_eq!((&first["step"], &first["finished"]), (&value!(2), &value!(false)));
    let rest = json("train", &train);
    assert_eq!((&rest["step"], &rest["steps"], &rest["finished"]), (&value!(5), &value!(3), &value!(true)));
    assert!(rest["evaluation"]["reconstruction"]["accuracy"].is_number());
    let of = |name: &str| rest["arithmetic"][name].as_f64().unwrap();
    let share = of("operations") / of("step_seconds") / of("product_rate");
    assert!(share > 0.0 && (of("share") - share).abs() < 1e-9 * share, "{rest}");
    let again = json("train", &train);
    assert_eq!((&again["steps"], &again["finished"]), (&value!(0), &value!(true)));

    // A training with held-out questions ends with their control table; the library that it is asked in stays.
    let embedder = library.arguments.get(5).unwrap().as_str();
    let asked = library.file(
        "asked.jsonl",
        &["log", "copy"].map(|id| LINE.replace("Kept by Ilves.", text_of).replace("log", id)).join("\n"),
    );
    let judged = library.work.path().join("judged");
    let judge = |held_out: &str| {
        let more = ["--held-out", held_out, "--embedder", embedder, "--ratio", "2", "--control", "1", "--json"];
        run("train", &[&train[..train.len() - 1], &[text(&judged)], &more].concat())
    };
    for steps in [5, 0] {
        let output = judge(&asked);
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{printed} {}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[0]["steps"]), (2, &value!(steps)), "{printed}");
        let (table, rows) = (&lines[1]["table"], lines[1]["rows"].as_array().map(Vec::len));
        assert_eq!((&table["questions"], rows), (&value!(1), Some(7)), "{table}");
    }
    assert!(judged.join("control").is_dir());
    let nameless = library.file("nameless.jsonl", r#"{"text":"Kept by Ilves."}"#);
    let refused = String::from_utf8(judge(&nameless).stderr).unwrap();
    assert!(refused.contains("nameless.jsonl, line 1") && refused.contains("--control 0"), "{refused}");

    let compressor = out.join("compressor");
    let store: Vec<&str> = library.arguments.iter().take(6).map(String::as_str).collect();
    let store = [&store[..], &["--compressor", text(&compressor), "--ratio", "2"]].concat();
    let added = json("ingest", &[&store[..], &[log.as_str()]].concat());
    let (tokens, vectors) = (added["tokens"].as_f64().unwrap(), added["summary_vectors"].as_f64().unwrap());
    assert_eq!(added["documents"], 1);
    assert!((tokens / vectors - 2.0).abs() < 0.2, "{added}");
    let asked = json("ask", &[&store[..], &["--max-new-tokens", "2", "Who kept the log?"]].concat());
    assert_eq!(asked["context_positions"].as_f64(), Some(vectors));
    // A group's adapter begins as the compressor's reader, of rank 2 on attention, in every shape that has room for it.
    let learn = [&store[..], &["--questions", &data, "--epochs", "1"]].concat();
    let shape = |more: &[&str]| {
        let version = json("finetune", &[&learn[..], more].concat())["version"].clone();
        let group = library.work.path().join("store/adapters").read_dir().unwrap().next().unwrap().unwrap().path();
        let file = group.join(version.to_string()).join("adapter_config.json");
        let config: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        (config["r"].clone(), config["lora_alpha"].clone(), config["target_modules"].clone())
    };
    let attention = value!(["q_proj", "k_proj", "v_proj", "o_proj"]);
    assert_eq!(shape(&[]), (value!(2), value!(4), attention.clone()));
    assert_eq!(shape(&["--rank", "3"]), (value!(3), value!(6), attention));
    assert_eq!(shape(&["--rank", "7", "--all-linear"]), (value!(7), value!(14), value!("all-linear")));
    let message = failure("finetune", &[&learn[..], &["--rank", "1", "--alpha", "4"]].concat());
    assert!(message.contains("rank 1 on") && message.contains("at least rank 2 on"), "{message}");

    // Without the compressor the document is another encoder's.
    let given: Vec<&str> = library.arguments.iter().map(String::as_str).collect();
    let error = failure("ask", &[&given[..], &["Who?"]].concat());
    assert!(error.contains("compressed by encoder"), "{error}");
}

#[test]
fn a_training_that_goes_on_replaces_what_it_made() {
    let library = Library::new();
    let data = library.file("data.jsonl", LINE);
    let log = library.file("log.txt", "The log of the survey was kept by Ilves from the first day to the last.");
    let work = |name: &str| text(&library.work.path().join(name)).to_owned();
    let (out, early, second) = (work("run"), work("early"), work("second"));
    let model: Vec<&str> = library.arguments.iter().skip(2).take(2).map(String::as_str).collect();
    let train = |curriculum: &str, more: &[&str]| {
        let file = library.file("curriculum.json", curriculum);
        let given = ["--data", &data, &log, "--curriculum", &file].map(str::to_owned);
        [
            &model.iter().map(ToString::to_string).collect::<Vec<_>>()[..],
            &given,
            &more.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ]
        .concat()
    };
    let run = |curriculum: &str, more: &[&str]| {
        json("train", &train(curriculum, more).iter().map(String::as_str).collect::<Vec<_>>())
    };
    let refused = |curriculum: &str, more: &[&str]| {
        failure("train", &train(curriculum, more).iter().map(String::as_str).collect::<Vec<_>>())
    };
    let steps = |dir: &str| -> Value {
        let json = fs::read(library.work.path().join(dir).join("compressor.json")).unwrap();
        serde_json::from_slice::<Value>(&json).unwrap()["steps"].clone()
    };
    // The same command goes on, and exports what there is by then.
    for step in [2, 4] {
        let report = run(CURRICULUM, &["--out", &out, "--steps", "2", "--export", &early]);
        assert_eq!((&report["step"], steps("early")), (&value!(step), value!(step)));
    }
    assert_eq!(run(CURRICULUM, &["--out", &out])["finished"], true);
    assert_eq!(steps("run/compressor"), 5);
    // With another stage behind the last it is another compressor, also where a kill came before it was written.
    let stage = r#"{"name": "more", "steps": 2, "batch": 2, "context": 8, "continuation": 4, "ratios": [4], "losses": {"reconstruction": 1.0}}"#;
    let longer = CURRICULUM.replace("\"binding\": 0.1}}", &format!("\"binding\": 0.1}}}}, {stage}"));
    assert_eq!(run(&longer, &["--out", &out])["step"], 7);
    assert_eq!(steps("run/compressor"), 7);
    let config = library.work.path().join("run/compressor/compressor.json");
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("\"steps\": 7", "\"steps\": 5")).unwrap();
    assert_eq!((run(&longer, &["--out", &out])["steps"].clone(), steps("run/compressor")), (value!(0), value!(7)));

    // Another run begins with it.
    let made = format!("{out}/compressor");
    assert_eq!(run(CURRICULUM, &["--out", &second, "--from", &made, "--steps", "1"])["step"], 1);
    let inside = refused(CURRICULUM, &["--out", &out, "--from", &made]);
    assert!(inside.contains("lies in --out"), "{inside}");
    let missing = refused(CURRICULUM, &["--out", &second, "--from", &work("nowhere")]);
    assert!(missing.contains("nowhere"), "{missing}");
    let ratio = refused(CURRICULUM, &["--out", &work("third"), "--ratio", "3"]);
    assert!(ratio.contains("ratio") && ratio.contains('3') && !library.work.path().join("third").exists(), "{ratio}");
    // Nobody's directory is replaced by a compressor.
    let taken = refused(
        CURRICULUM,
        &["--out", &second, "--from", &made, "--steps", "1", "--export", text(library.work.path())],
    );
    assert!(taken.contains("exists"), "{taken}");
}
