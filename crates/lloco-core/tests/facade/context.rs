//! What stands before a question: how many documents, and what of them.

use lloco_core::{AskOptions, store::NewDocument};

use crate::{Fixture, MANUAL, documents, short};

#[test]
fn documents_fill_the_positions_they_are_given() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    let copies = ["a", "b", "c"].map(|id| NewDocument::new(id, MANUAL));
    let texts: Vec<String> = (0..3).map(|n| format!("{MANUAL} Number {n}.")).collect();
    let different: Vec<_> = copies.iter().zip(&texts).map(|(copy, text)| NewDocument::new(copy.id, text)).collect();
    lloco.add(&different).unwrap();
    let read = |options: AskOptions| {
        let answer = lloco.ask_with("Which valve?", &options).unwrap();
        (answer.sources.len(), answer.usage.context_positions)
    };
    let (one, positions) = read(short());
    assert_eq!(one, 1);
    assert_eq!(read(short().top_k(3).positions(2 * positions)), (2, 2 * positions));
    assert_eq!(read(short().top_k(3).positions(1)), (1, positions), "the best is always read");
}

#[test]
fn passages_stand_behind_the_summaries() {
    let fixture = Fixture::new();
    let lloco = fixture.lloco();
    lloco.add(&documents()).unwrap();
    let ask = |options: AskOptions| lloco.ask_with("Which valve?", &options.group("town")).unwrap();
    let (plain, with) = (ask(short()), ask(short().passages(true)));
    assert_eq!(plain.sources, with.sources);
    let more = with.usage.context_positions - plain.usage.context_positions;
    // The model of these tests reads bytes: the passage, and the empty line behind it.
    assert_eq!(more, with.sources[0].passage.trim().len() + 2);
    assert_eq!(with.usage.prompt_positions - plain.usage.prompt_positions, more);
    assert_eq!(with.usage.document_tokens, plain.usage.document_tokens);
}
