//! What work reached of the machine's own limit, and whether that meets the project's target.

use std::fmt;

/// A rate beside the limit of the machine, both measured by the same process.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    reached: f64,
    limit: f64,
    kind: &'static Kind,
}

#[derive(Debug)]
struct Kind {
    unit: &'static str,
    limit: &'static str,
    /// The least share that the project aims at.
    aim: f64,
}

const PRODUCTS: Kind = Kind { unit: "GFLOP/s", limit: "the product rate alone", aim: 0.5 };
const MEMORY: Kind = Kind { unit: "GB/s", limit: "the memory bandwidth", aim: 0.6 };

impl Share {
    /// Operations a second, beside those of the [product rate](crate::limit::product_rate).
    pub fn of_products(reached: f64, limit: f64) -> Self {
        Self { reached, limit, kind: &PRODUCTS }
    }

    /// Bytes a second, beside those of the [memory bandwidth](crate::limit::bandwidth_of).
    pub fn of_memory(reached: f64, limit: f64) -> Self {
        Self { reached, limit, kind: &MEMORY }
    }

    /// Prints whether `what` meets the target. A missed one fails nothing: on a machine that others share, so may any.
    pub fn target(&self, what: &str) {
        println!("{}", self.verdict(what));
    }

    fn verdict(&self, what: &str) -> String {
        let (share, Kind { limit, aim, .. }) = (self.reached / self.limit, self.kind);
        let met = if share >= *aim { "met" } else { "missed" };
        format!("target {what}, at least {:.0} % of {limit}: {met} ({:.0} %)", 100.0 * aim, 100.0 * share)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reached, limit, kind } = self;
        let share = 100.0 * reached / limit;
        write!(
            f,
            "{:.1} {unit}, {share:.0} % of {} ({:.1} {unit})",
            reached / 1e9,
            kind.limit,
            limit / 1e9,
            unit = kind.unit
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_tells_whether_its_target_is_met() {
        let share = Share::of_products(5e9, 10e9);
        assert_eq!(share.to_string(), "5.0 GFLOP/s, 50 % of the product rate alone (10.0 GFLOP/s)");
        assert_eq!(share.verdict("prefill"), "target prefill, at least 50 % of the product rate alone: met (50 %)");
        let verdict = Share::of_memory(5.9e9, 10e9).verdict("decode");
        assert_eq!(verdict, "target decode, at least 60 % of the memory bandwidth: missed (59 %)");
        assert!(Share::of_memory(1.0, f64::NAN).verdict("decode").contains("missed"));
    }
}
