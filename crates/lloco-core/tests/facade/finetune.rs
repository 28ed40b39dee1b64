//! What a finetuning run keeps, what makes it another run, and what it does not learn.

use std::{
    fs,
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex},
};

use lloco_core::{
    Error, Event, FinetuneConfig, LoraConfig,
    dataset::{self, QaDocument, Question},
    store::{NewDocument, Store},
};

use crate::{Fixture, MANUAL, MEETING, documents, questions, training};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(entry.file_name().unwrap());
        match entry.is_dir() {
            true => copy(&entry, &target),
            false => drop(fs::copy(&entry, &target).unwrap()),
        }
    }
}

/// Settings of a run whose best adapter is not its last: what is learned contradicts what is asked.
fn contradicted(fixture: &Fixture) -> FinetuneConfig {
    let mut other = questions();
    other[0].questions = vec![Question::new("m-3", "Who buys the paint?", "~~ {} ~~")];
    let held_out = fixture.path().join("held-out.jsonl");
    fs::write(&held_out, serde_json::to_vec(&other[0]).unwrap()).unwrap();
    let mut config = training().with_held_out(&held_out);
    config.training.save_every = 1;
    config
}

#[test]
fn a_process_killed_between_the_last_and_the_best_adapter_has_not_done_the_work() {
    let straight = Fixture::new();
    let (runs, saved) = (straight.store().join("runs"), straight.path().join("saved"));
    let (from, to) = (runs.clone(), saved.clone());
    let builder = straight.builder().on_event(move |event| {
        if matches!(event, Event::HeldOut { step: 6, .. }) {
            copy(&from, &to);
        }
        ControlFlow::Continue(())
    });
    let lloco = builder.build().unwrap();
    lloco.add(&documents()).unwrap();
    let config = contradicted(&straight);
    let whole = lloco.finetune_on("town", &questions(), &config).unwrap();
    assert_eq!((whole.version, whole.steps), (2, 6));
    let best = lloco.store().adapter("town").unwrap().unwrap().path;
    let last = lloco.store().set_adapter("town", Some(1)).unwrap().path;

    // As a killed process leaves it: checkpoints, and the last adapter alone.
    let killed = Fixture::new();
    let lloco = killed.lloco();
    lloco.add(&documents()).unwrap();
    lloco.store().put_adapter("town", &last).unwrap();
    let runs = killed.store().join("runs");
    copy(&saved, &runs);
    let rest = lloco.finetune_on("town", &questions(), &config).unwrap();
    assert_eq!((rest.version, rest.steps, rest.held_out), (2, 1, whole.held_out));
    let found = lloco.store().adapter("town").unwrap().unwrap().path;
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        assert_eq!(fs::read(found.join(name)).unwrap(), fs::read(best.join(name)).unwrap(), "{name}");
    }
    assert_eq!(fs::read_dir(&runs).unwrap().count(), 0, "checkpoints are left");

    // Killed between the best adapter and the end of its checkpoints.
    copy(&saved, &runs);
    let again = lloco.finetune_on("town", &questions(), &config).unwrap();
    assert_eq!((again.version, again.steps), (2, 0));
    assert_eq!(fs::read_dir(&runs).unwrap().count(), 0, "checkpoints are left");
}

#[test]
fn a_setting_without_effect_makes_no_other_run() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&documents()).unwrap();
    let learned = lloco.finetune_on("town", &questions(), &training()).unwrap();
    let mut idle = training().with_lora(lloco.adapter_shape());
    (idle.training.patience, idle.training.evaluate_every, idle.training.distillation) = (Some(3), 2, 0.5);
    // In the place of this one stands the shape that is asked for.
    idle.training.lora = LoraConfig::default().with_rank(5, 10.0);
    let again = lloco.finetune_on("town", &questions(), &idle).unwrap();
    assert_eq!((again.version, again.steps), (learned.version, 0), "the same adapter was trained twice");

    let other = lloco.finetune_on("town", &questions(), &training().with_lora(idle.training.lora)).unwrap();
    assert_eq!((other.version, other.steps), (2, 6), "another shape is another run");
    let path = lloco.store().adapter("town").unwrap().unwrap().path.join("adapter_config.json");
    let config: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(config["r"], 5);
}

#[test]
fn every_so_many_documents_are_held_out() {
    let fixture = Fixture::new();
    let positions = Arc::new(Mutex::new(0));
    let sum = positions.clone();
    let builder = fixture.builder().on_event(move |event| {
        if let Event::Finetuned { positions, .. } = event {
            *sum.lock().unwrap() += *positions as u64;
        }
        ControlFlow::Continue(())
    });
    let lloco = builder.build().unwrap();
    lloco.add(&[NewDocument::new("meeting", MEETING), NewDocument::new("manual", MANUAL)]).unwrap();
    let document = |id: &str, text: &str, count: usize| {
        let questions =
            (0..count).map(|n| Question::new(format!("{id}-{n}"), format!("What is {n}?"), "this")).collect();
        QaDocument { id: id.into(), title: String::new(), text: text.into(), questions }
    };
    let data = [document("meeting", MEETING, 2), document("manual", MANUAL, 3)];
    let kept = dataset::held_out(&data, 2);
    assert_eq!(kept.len(), 1);
    let learned: usize = data.iter().filter(|d| !kept.contains(d.id.as_str())).map(|d| d.questions.len()).sum();
    let done = lloco.finetune_on("default", &data, &training().with_hold_out_every(2)).unwrap();
    assert_eq!((done.examples, done.held_out.is_some()), (learned, true));
    assert_eq!((done.positions, done.positions > 0), (*positions.lock().unwrap(), true));

    // A file of questions is held out beside them.
    let all = training().with_hold_out_every(2).with_held_out(contradicted(&fixture).held_out.unwrap());
    let both = lloco.finetune_on("default", &data, &all).unwrap();
    assert_eq!(
        (both.examples, both.version),
        (learned, done.version + 1 + u32::from(both.held_out.unwrap().1 < both.steps))
    );
    let error = lloco.finetune_on("default", &data, &training().with_hold_out_every(1)).unwrap_err();
    assert!(matches!(error, Error::Lora(_)) && error.to_string().contains("hold_out_every"), "{error}");
}
