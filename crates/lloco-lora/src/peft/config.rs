//! `adapter_config.json`.

use std::{fs, path::Path};

use serde_json::{Map, Value, json};

use crate::{Error, LoraConfig, Result, Targets};

/// Fields that [`LoraConfig`] holds.
const READ: [&str; 10] = [
    "alpha_pattern",
    "exclude_modules",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "r",
    "rank_pattern",
    "target_modules",
    "use_rslora",
];

/// Fields that say how an adapter was made, or how a program should hold it, and not what it computes.
const HARMLESS: [&str; 17] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// Initialisations that leave the base model's weights as they are.
const PLAIN_INITS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Reads and checks the file. Unknown fields are allowed only with a value that switches them off.
pub(crate) fn read(path: &Path) -> Result<LoraConfig> {
    let json = fs::read(path).map_err(Error::read(path))?;
    let malformed = |detail: String| Error::Malformed { path: path.to_path_buf(), detail };
    let mut fields: Map<String, Value> = serde_json::from_slice(&json).map_err(|e| malformed(e.to_string()))?;
    fields.retain(|_, value| !value.is_null());
    check(&fields).map_err(|e| e.at(path))?;
    for field in ["r", "lora_alpha", "target_modules"] {
        if !fields.contains_key(field) {
            return Err(malformed(format!("`{field}` is missing")));
        }
    }
    // A single layer may stand without a list.
    if let Some(layer) = fields.get_mut("layers_to_transform").filter(|value| value.is_number()) {
        *layer = json!([layer]);
    }
    if fields.get("layers_to_transform").is_some_and(neutral) {
        fields.remove("layers_to_transform");
    }
    fields.retain(|field, _| READ.contains(&field.as_str()));
    let config: LoraConfig = serde_json::from_value(Value::Object(fields)).map_err(|e| malformed(e.to_string()))?;
    config.check().map_err(|e| e.at(path))?;
    Ok(config)
}

fn check(fields: &Map<String, Value>) -> Result<()> {
    let refuse =
        |field: &str, expected: &str| Err(Error::setting(field, fields.get(field).unwrap_or(&Value::Null), expected));
    let text = |field: &str| fields.get(field).and_then(Value::as_str);
    if text("peft_type") != Some("LORA") {
        return refuse("peft_type", "LORA");
    }
    if !matches!(text("bias"), None | Some("none")) {
        return refuse("bias", "none");
    }
    let patterns = fields.get("layers_pattern").filter(|value| !neutral(value));
    if patterns.is_some_and(|value| *value != json!("layers") && *value != json!(["layers"])) {
        return refuse("layers_pattern", "layers");
    }
    match fields.get("init_lora_weights") {
        None | Some(Value::Bool(_)) => {}
        Some(Value::String(init)) if PLAIN_INITS.contains(&init.as_str()) => {}
        Some(_) => return refuse("init_lora_weights", "an initialisation that leaves the base model's weights alone"),
    }
    let tied = fields.get("ensure_weight_tying").is_some_and(|value| !neutral(value));
    if tied && fields.get("modules_to_save").is_some_and(|value| !neutral(value)) {
        return refuse("ensure_weight_tying", "false where modules are saved");
    }
    let known = |field: &str| field == "bias" || READ.contains(&field) || HARMLESS.contains(&field);
    match fields.iter().find(|(field, value)| !known(field) && !neutral(value)) {
        Some((field, value)) => Err(Error::setting(field, value, "adapters without this option")),
        None => Ok(()),
    }
}

/// Whether a value switches its option off.
fn neutral(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    }
}

/// The file's bytes.
pub(crate) fn write(config: &LoraConfig) -> Vec<u8> {
    let optional = |empty: bool, value: Value| if empty { Value::Null } else { value };
    let targets = |targets: &Targets| match targets {
        Targets::Pattern(pattern) => json!(pattern),
        Targets::Names(names) => json!(names),
    };
    let value = json!({
        "alpha_pattern": config.alpha_pattern,
        "base_model_name_or_path": null,
        "bias": "none",
        "exclude_modules": config.exclude_modules.as_ref().map(targets),
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_to_transform": config.layers_to_transform,
        "lora_alpha": number(config.lora_alpha),
        "lora_dropout": config.lora_dropout,
        "modules_to_save": optional(config.modules_to_save.is_empty(), json!(config.modules_to_save)),
        "peft_type": "LORA",
        "r": config.r,
        "rank_pattern": config.rank_pattern,
        "target_modules": targets(&config.target_modules),
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": config.use_rslora,
    });
    format!("{value:#}\n").into_bytes()
}

/// A whole number without its `.0`: PEFT declares alpha as an integer.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}
