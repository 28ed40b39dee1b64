//! The verbs in a process that is killed again and again: what was acknowledged is there, and going
//! on gives what an undisturbed run gives. `LLOCO_TEST_KILLS` sets how often.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use lloco_core::{
    Lloco,
    store::{LocalStore, NewDocument, Precision, Store},
};

use crate::{Fixture, MANUAL, MEETING, documents, questions, training};

const STEPS: usize = 7;
const TAIL: &str = " At the end Ada thanked everybody, and the council went home.";

fn step(fixture: &Fixture, number: usize) {
    let precision = if number < 5 { Precision::F16 } else { Precision::F32 };
    let lloco: Lloco = fixture.builder().precision(precision).build().unwrap();
    let length = |id: &str| lloco.store().document(id).unwrap().map(|document| lloco.store().text(&document.text));
    match number {
        0 => drop(lloco.add(&documents()).unwrap()),
        // Appending again would append twice.
        1 if length("meeting").unwrap().unwrap().ends_with(TAIL) => {}
        1 if lloco.store().document("meeting").unwrap().unwrap().staged.is_some() => drop(lloco.add(&[]).unwrap()),
        1 => drop(lloco.append("meeting", TAIL).unwrap()),
        2 => drop(lloco.finetune_on("town", &questions(), &training()).unwrap()),
        3 => drop(lloco.add(&[NewDocument::new("manual", &MANUAL[9..]).group("pumps")]).unwrap()),
        4 => drop(lloco.remove("manual").unwrap()),
        5 => drop(lloco.reencode().unwrap()),
        _ => drop(lloco.store().compact().unwrap()),
    }
}

/// The newest texts after so many steps.
fn texts_after(steps: usize) -> BTreeMap<String, String> {
    let meeting = if steps < 2 { MEETING.to_owned() } else { format!("{MEETING}{TAIL}") };
    let manual = match steps {
        0 => return BTreeMap::new(),
        1..=3 => Some(MANUAL),
        4 => Some(&MANUAL[9..]),
        _ => None,
    };
    let manual = manual.map(|text| ("manual".to_owned(), text.to_owned()));
    manual.into_iter().chain([("meeting".to_owned(), meeting)]).collect()
}

fn check(path: &Path, done: usize) {
    let Ok(store) = LocalStore::open(path) else {
        assert_eq!(done, 0, "an acknowledged store can be opened");
        return;
    };
    assert_eq!(store.verify().unwrap(), [], "after {done} steps");
    let mut texts = BTreeMap::new();
    for document in store.documents(None).unwrap() {
        let newest = document.staged.as_ref().map_or(document.text, |staged| staged.text);
        texts.insert(document.id.clone(), store.text(&newest).unwrap());
        match document.summary {
            Some(summary) => drop(store.summary(&document.id, &summary.encoder).unwrap()),
            None => assert_eq!(done, 0, "{} lost its summary", document.id),
        }
    }
    assert!(texts == texts_after(done) || texts == texts_after(done + 1), "after {done} steps: {texts:?}");
    let adapter = store.adapter("town").unwrap().map(|adapter| adapter.version);
    assert!(adapter == Some(1) || done < 3 && adapter.is_none(), "{adapter:?} after {done} steps");
}

#[test]
#[ignore = "a child process of the test below"]
fn child() {
    let Some(dir) = env::var_os("LLOCO_TEST_FIXTURE").map(PathBuf::from) else { return };
    let fixture = Fixture::at(dir);
    let start = env::var("LLOCO_TEST_START").unwrap().parse().unwrap();
    for number in start..STEPS {
        step(&fixture, number);
        println!("\ndid {}", number + 1);
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn a_library_killed_at_any_instant_loses_nothing() {
    let straight = Fixture::new();
    (0..STEPS).for_each(|number| step(&straight, number));
    let wanted: usize = env::var("LLOCO_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let (mut random, mut lifetime) = (7_u64, Duration::from_millis(400));
    let (mut fixture, mut done, mut kills, mut children) = (Fixture::new(), 0, 0, 0);
    while kills < wanted || done < STEPS {
        if done == STEPS {
            (fixture, done) = (Fixture::new(), 0);
        }
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["kill::child", "--exact", "--ignored", "--nocapture"])
            .env("LLOCO_TEST_FIXTURE", fixture.path())
            .env("LLOCO_TEST_START", done.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if kills < wanted {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            thread::sleep(lifetime.mul_f64((random >> 40) as f64 / (1 << 24) as f64));
            child.kill().unwrap();
        }
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let said = lines.filter_map(|line| line.strip_prefix("did ")?.parse().ok()).max();
        child.wait().unwrap();
        // Children should live about as long as a step or two takes, however fast the machine.
        match said {
            Some(said) => (done, lifetime) = (said, lifetime.mul_f64(0.95)),
            None => lifetime = lifetime.mul_f64(1.15),
        }
        check(&fixture.store(), done);
        kills += 1;
        children += 1;
        assert!(children < 20 * wanted + 20, "{done} steps after {children} children");
    }

    let [expected, found] = [&straight, &fixture].map(|fixture| {
        let lloco = fixture.builder().precision(Precision::F32).build().unwrap();
        lloco.store().summary("meeting", lloco.encoder_info()).unwrap()
    });
    let worst = expected.data().iter().zip(found.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert_eq!(expected.rows(), found.rows());
    assert!(worst < 2e-2, "differs by {worst}");
}
