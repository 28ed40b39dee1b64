//! A seeded generator of long documents: dated field reports with names, numbers and decisions.

mod words;

use super::{QaDocument, Question};
use crate::random::SplitMix64;
use words::{
    ASIDES, DECISIONS, FIRST_NAMES, INSTRUMENTS, KINDS, LAST_NAMES, MONTHS, PLACES, RIVERS, SUMMER, TASKS, WINTER,
};

const TITLE: &str = "Archive of the Northern Rivers Survey";

/// Writes an archive of `reports` dated field reports and a question on two in five of them.
///
/// The archive is **synthetic**: it exists for trying the library and for measuring speed and memory on documents of
/// any length. Scores on it say nothing about real documents. The same arguments give the same document on every
/// machine, and a longer archive starts with the shorter one. A report has some 220 tokens (SmolLM2's tokenizer), so
/// 100 reports make more than 20,000 and 560 more than 122,880.
///
/// ```
/// let archive = lloco_core::dataset::archive(7, 100);
/// assert_eq!(archive.questions.len(), 40);
/// assert!(archive.text.contains(&archive.questions[0].answers[0]));
/// ```
pub fn archive(seed: u64, reports: usize) -> QaDocument {
    let mut random = SplitMix64::new(seed);
    let places = places(&mut random);
    let mut text = format!("{TITLE}\nReports of the field parties, in the order in which they came in\n");
    let mut questions = Vec::new();
    let mut day = 730 + random.below(365);
    for number in 1..=reports {
        day += 1 + random.below(3);
        let place = &places[random.below(places.len())];
        let report = Report::new(&mut random, place, number, day);
        text.push('\n');
        report.write(&mut random, &mut text);
        if matches!(number % 5, 2 | 4) {
            questions.push(report.question(questions.len() + 1));
        }
    }
    QaDocument { id: format!("archive-{seed}-{reports}"), title: TITLE.into(), text, questions }
}

/// A gauging site and the engineer who decides there; both recur, as in a real archive.
struct Place {
    site: String,
    river: &'static str,
    engineer: String,
}

fn places(random: &mut SplitMix64) -> [Place; 24] {
    std::array::from_fn(|index| {
        // The first half of the name walks through its list. On the second round the second half is drawn from the
        // other half of its list, so no two sites share a name.
        let half = KINDS.len() / 2;
        let kind = KINDS[random.below(half) + half * (index / PLACES.len())];
        let site = format!("{} {kind}", PLACES[index % PLACES.len()]);
        Place { site, river: random.pick(&RIVERS), engineer: person(random) }
    })
}

fn person(random: &mut SplitMix64) -> String {
    format!("{} {}", random.pick(&FIRST_NAMES), random.pick(&LAST_NAMES))
}

/// `day` counts from 1 January 1950; the archive's calendar has no leap days.
fn date(day: usize) -> String {
    let (mut rest, mut name) = (day % 365, "");
    for (month, length) in MONTHS {
        name = month;
        if rest < length {
            break;
        }
        rest -= length;
    }
    format!("{} {name} {}", rest + 1, 1950 + day / 365)
}

/// The facts of one report. Each stands in its text and can be asked for.
struct Report<'a> {
    place: &'a Place,
    number: usize,
    date: String,
    due: String,
    leader: String,
    level: String,
    instrument: &'static str,
    fault: &'static str,
    decision: &'static str,
    reason: &'static str,
    weather: &'static str,
    cost: usize,
}

impl<'a> Report<'a> {
    fn new(random: &mut SplitMix64, place: &'a Place, number: usize, day: usize) -> Self {
        let (instrument, faults) = random.pick(&INSTRUMENTS);
        let (decision, reasons) = random.pick(&DECISIONS);
        let summer = (90..300).contains(&(day % 365));
        Self {
            place,
            number,
            date: date(day),
            due: date(day + random.between(14, 90)),
            leader: person(random),
            level: format!("{}.{:02} metres", random.between(0, 6), random.between(1, 99)),
            instrument,
            fault: random.pick(&faults),
            decision,
            reason: random.pick(&reasons),
            weather: random.pick(if summer { &SUMMER } else { &WINTER }),
            cost: random.between(11, 980) * 5,
        }
    }

    fn write(&self, random: &mut SplitMix64, text: &mut String) {
        let arrival = self.arrival(random);
        let reading = self.reading(random);
        let failure = self.failure(random);
        let order = format!("{} {}", self.order(random), self.money(random));
        let samples = samples(random);
        let river = self.place.river;
        let findings = [finding(random, river), finding(random, river)];
        let start = random.below(ASIDES.len());
        let asides = [0, 7].map(|step| ASIDES[(start + step) % ASIDES.len()]);
        let body = match random.below(3) {
            0 => [
                self.weather, &arrival, &reading, &findings[0], &samples, asides[0], &failure, &findings[1], &order,
                asides[1],
            ],
            1 => [
                &arrival, self.weather, asides[0], &reading, &failure, &findings[0], &samples, asides[1], &order,
                &findings[1],
            ],
            _ => [
                &arrival, &reading, self.weather, &failure, asides[0], &findings[0], &findings[1], &order, &samples,
                asides[1],
            ],
        };
        text.push_str(&format!("Report {}. {}, {}.\n{}\n", self.number, self.place.site, self.date, body.join(" ")));
    }

    fn arrival(&self, random: &mut SplitMix64) -> String {
        let Self { leader, place: Place { site, river, .. }, .. } = self;
        let (party, hour, task) = (random.between(3, 9), random.between(5, 11), random.pick(&TASKS));
        match random.below(5) {
            0 => format!("A party of {party} under {leader} went to {site} on the {river} {task}."),
            1 => format!("{leader} led a party of {party} to {site} {task}; they were on the water by {hour} o'clock."),
            2 => format!(
                "Left the depot at {hour} with {leader} in charge and came to {site} before noon, {party} of us, {task}."
            ),
            3 => format!("Party of {party}, leader {leader}. Sent to {site} on the {river} {task}."),
            _ => format!("{leader} and {} others were at {site} all day {task}.", party - 1),
        }
    }

    fn reading(&self, random: &mut SplitMix64) -> String {
        let Self { level, place: Place { river, .. }, .. } = self;
        match random.below(5) {
            0 => format!("The water stood at {level} on the staff."),
            1 => format!("Level at the gauge {level}, read twice."),
            2 => format!("At noon the gauge showed {level}, and by evening it had hardly changed."),
            3 => format!("We measured a level of {level}, with the {river} running clear."),
            _ => format!("The {river} was at {level}, to judge by the lower staff."),
        }
    }

    fn failure(&self, random: &mut SplitMix64) -> String {
        let Self { instrument, fault, .. } = self;
        match random.below(5) {
            0 => format!("The {instrument} failed after an hour because of {fault}."),
            1 => format!("There was trouble with the {instrument}: {fault}."),
            2 => format!("We had to do without the {instrument}, which has {fault}."),
            3 => format!("Much time was lost with the {instrument}, in which we found {fault}."),
            _ => format!("The {instrument} came back to the workshop with {fault}."),
        }
    }

    fn order(&self, random: &mut SplitMix64) -> String {
        let Self { decision, reason, place: Place { engineer, .. }, .. } = self;
        match random.below(5) {
            0 => format!("{engineer}, the district engineer, decided {decision}, because {reason}."),
            1 => format!("Since {reason}, the engineer {engineer} gave the order {decision}."),
            2 => format!("After a long talk on the bank {engineer} resolved {decision}; {reason}."),
            3 => format!("The decision of {engineer}, who came out by car, was {decision}, as {reason}."),
            _ => format!("It was agreed with {engineer} {decision}, for {reason}."),
        }
    }

    fn money(&self, random: &mut SplitMix64) -> String {
        let Self { cost, due, .. } = self;
        match random.below(4) {
            0 => format!("The cost is put at {cost} crowns, and the work is to be done by {due}."),
            1 => format!("For this {cost} crowns were set aside until {due}."),
            2 => format!("This will take {cost} crowns, of which nothing has been paid yet. Next visit on {due}."),
            _ => format!("We reckon with {cost} crowns. The account is to be closed on {due}."),
        }
    }

    /// Dates are unique in an archive, so each question has one answer.
    fn question(&self, number: usize) -> Question {
        let at = format!("at {} on {}", self.place.site, self.date);
        let (question, answer) = match number % 5 {
            0 => (format!("Who led the party {at}?"), self.leader.clone()),
            1 => (format!("What was the water level {at}?"), self.level.clone()),
            2 => (format!("Which instrument gave trouble {at}?"), format!("the {}", self.instrument)),
            3 => (format!("What was decided {at}?"), self.decision.into()),
            _ => (format!("What is the cost of the work decided {at}?"), format!("{} crowns", self.cost)),
        };
        Question::new(format!("archive-{number:04}"), question, answer)
    }
}

fn samples(random: &mut SplitMix64) -> String {
    let (some, all) = (random.between(4, 19), random.between(20, 60));
    match random.below(4) {
        0 => format!("{all} bottles of water were filled and labelled."),
        1 => format!("We brought back {all} samples, all in good order."),
        2 => format!("Of the {all} samples taken, {some} go to the laboratory and the rest were poured away."),
        _ => format!("{all} soundings were made between the two posts, {some} of them after dark."),
    }
}

/// Something measured or counted that no question asks for.
fn finding(random: &mut SplitMix64, river: &str) -> String {
    let (few, many) = (random.between(2, 19), random.between(20, 95));
    match random.below(12) {
        0 => format!("Post {few} on the left bank leans by {many} millimetres."),
        1 => format!("The bed lies {many} centimetres lower than in the survey of {}.", 1920 + few),
        2 => format!("The bank has lost {few} metres over a length of {many} metres since last year."),
        3 => format!("{many} carts and {few} motor cars crossed while we were there."),
        4 => format!("In one hour we counted {few} salmon and {many} trout."),
        5 => format!("In the middle of the {river} the current ran at 0.{many} metres a second."),
        6 => format!("{many} metres of new fence are needed against the cattle."),
        7 => format!("{few} of the {many} stones that were laid in autumn are still in place."),
        8 => format!("The {river} carries more sand than usual, {many} grams in a bucket."),
        9 => format!("The staff was read every {few} minutes and did not change by more than a finger."),
        10 => format!("We walked {few} kilometres along the {river} and marked {many} trees."),
        _ => format!("Two of the party stayed behind to finish the profile, {many} points in all."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn same_seed_same_archive() {
        assert_eq!(archive(7, 12), archive(7, 12));
        assert_ne!(archive(7, 12).text, archive(8, 12).text);
    }

    #[test]
    fn a_longer_archive_starts_with_the_shorter_one() {
        assert!(archive(1, 30).text.starts_with(&archive(1, 10).text));
    }

    #[test]
    fn every_answer_stands_in_the_report_it_is_asked_of() {
        for seed in 0..20 {
            let archive = archive(seed, 100);
            let mut asked = HashSet::new();
            for question in &archive.questions {
                let heading = question.question.split(" at ").nth(1).and_then(|rest| rest.strip_suffix('?'));
                let heading = heading.expect("place and date").replacen(" on ", ", ", 1);
                let report = archive.text.split("\n\n").find(|report| report.contains(&format!("{heading}.\n")));
                let report = report.unwrap_or_else(|| panic!("no report of {heading}"));
                assert!(
                    report.to_lowercase().contains(&question.answers[0].to_lowercase()),
                    "{question:?} in {report}"
                );
                assert!(asked.insert(&question.question), "asked twice: {question:?}");
            }
            assert_eq!(archive.questions.len(), 40);
        }
    }

    #[test]
    fn calendar_goes_through_the_year() {
        assert_eq!(date(0), "1 January 1950");
        assert_eq!(date(58), "28 February 1950");
        assert_eq!(date(59), "1 March 1950");
        assert_eq!(date(364), "31 December 1950");
        assert_eq!(date(365), "1 January 1951");
    }

    #[test]
    fn no_reports_no_questions() {
        assert!(archive(1, 0).questions.is_empty());
    }
}
