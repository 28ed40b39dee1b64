//! Which curves the lines of `metrics.jsonl` draw: every loss by itself, those of evaluations beside them.

use serde_json::Value;

/// What a line of an evaluation has.
pub(crate) const EVALUATION: &str = "evaluation";

/// The losses that a line holds, by name.
pub(crate) fn losses(line: &Value) -> Vec<(String, f64)> {
    let fields = |name| line.get(name).and_then(Value::as_object).into_iter().flatten();
    let own = fields("losses").filter_map(|(name, loss)| Some((name.clone(), loss.as_f64()?)));
    let scored = fields(EVALUATION).filter(|(_, score)| score["tokens"].as_u64() > Some(0));
    let scores = scored.flat_map(|(name, score)| {
        let score = |suffix, field: &str| Some((format!("{name}, {suffix}"), score[field].as_f64()?));
        [score("evaluated", "nll"), score("behind other summaries", "shuffled_nll")].into_iter().flatten()
    });
    own.chain(scores).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn evaluations_are_drawn_beside_the_losses_of_steps() {
        let names = |line: Value| losses(&line).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(json!({"step": 1, "losses": {"answer": 2.0, "gap": null}})), ["answer"]);
        let score = |tokens: u32| json!({"nll": 1.0, "shuffled_nll": 2.0, "accuracy": 0.5, "tokens": tokens});
        let line = json!({"step": 1, EVALUATION: {"answer": score(3), "continuation": score(0)}});
        assert_eq!(losses(&line), [("answer, evaluated".into(), 1.0), ("answer, behind other summaries".into(), 2.0)]);
    }
}
