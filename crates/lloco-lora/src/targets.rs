//! Which modules a list of names or a pattern means, by PEFT's rules.

use lloco_decoder::DecoderConfig;
use regex::Regex;

use crate::{
    Error, Result,
    config::{Targets, every_site},
};

/// Linear modules that are no site: an adapter on them is refused, not ignored.
const UNADAPTED: [&str; 2] = ["lm_head", "model.embed_tokens"];

/// Decides which full module names, such as `model.layers.0.mlp.up_proj`, are meant.
#[derive(Debug)]
pub(crate) struct Matcher {
    field: &'static str,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    AllLinear,
    Whole(Regex),
    Names(Vec<String>),
}

impl Matcher {
    pub(crate) fn new(field: &'static str, targets: &Targets) -> Result<Self> {
        let rule = match targets {
            Targets::Pattern(word) if word == "all-linear" => Rule::AllLinear,
            Targets::Pattern(pattern) => Rule::Whole(compile(field, pattern, &format!("^(?:{pattern})$"))?),
            Targets::Names(names) => Rule::Names(names.clone()),
        };
        Ok(Self { field, rule })
    }

    /// The key of a rank or alpha pattern: an expression for the end of a name, behind a dot or from its start.
    pub(crate) fn suffix(field: &'static str, key: &str) -> Result<Self> {
        Ok(Self { field, rule: Rule::Whole(compile(field, key, &format!("^(?:.*\\.)?(?:{key})$"))?) })
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        match &self.rule {
            Rule::AllLinear => !UNADAPTED.contains(&path),
            Rule::Whole(pattern) => pattern.is_match(path),
            Rule::Names(names) => names.iter().any(|name| ends_with(path, name)),
        }
    }

    /// Refuses targets that are nothing this crate adapts: they would be lost in silence.
    pub(crate) fn check_all_found(&self, model: &DecoderConfig) -> Result<()> {
        if let Some(module) = UNADAPTED.into_iter().find(|module| self.matches(module)) {
            return Err(Error::setting(self.field, module, "only the projections of attention and MLP are adapted"));
        }
        let Rule::Names(names) = &self.rule else { return Ok(()) };
        let paths: Vec<String> = every_site(model).map(|site| site.path()).collect();
        match names.iter().find(|name| !paths.iter().any(|path| ends_with(path, name))) {
            Some(name) => Err(Error::setting(self.field, name, "this model has no projection of that name")),
            None => Ok(()),
        }
    }
}

fn ends_with(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn compile(field: &str, pattern: &str, anchored: &str) -> Result<Regex> {
    // The pattern alone must be valid: an unbalanced one could escape its anchors.
    Regex::new(pattern)
        .and_then(|_| Regex::new(anchored))
        .map_err(|e| Error::setting(field, pattern, format!("a regular expression without look-around ({e})")))
}
